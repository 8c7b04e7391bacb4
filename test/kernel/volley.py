"""A volley of VXLAN packets, one of each shape that an attacker may give them, each named in its own frame.

  volley.py fire SOURCE SPOOFED ADDRESS PORT/VNI,…
                        sends all shapes of ADDRESS's family to each port, of that network, most from SOURCE; needs root
  volley.py names FAMILY
                        prints the names of the shapes of IPv4 or IPv6 (4 or 6), as JSON
  volley.py train ADDRESS,… PORT VNI,…
                        one send to each address that the kernel carries as one packet, and cuts up into a datagram of each
                        network (UDP segmentation offload), from an ordinary socket
  volley.py hear PORT,… until SIGTERM, then prints what came as {"PORT VNI": {name: how often}}

The last says "ready" first.
"""
import json
import secrets
import select
import signal
import socket
import struct
import sys

from packets import IPPROTO_FRAGMENT, QUIET, UDP_HEADER, VNI_FLAG, checksum, terminated

ETHERNET = bytes.fromhex('ffffffffffff' '020000000001' '88b5')
VNI_AT = UDP_HEADER + 4
NAME_AT = 8 + len(ETHERNET)
NAME_LENGTH = 64
UDP_SEGMENT = 103  # linux/udp.h
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60  # IPv6 extension headers
UNKNOWN_ROUTING = 253  # RFC 3692: to be passed over where no segments are left
PAD, SKIPPED_OPTION = 1, 0x1e  # RFC 8200; RFC 4727


def vxlan(vni, name):
    return struct.pack('!II', VNI_FLAG, vni << 8) + ETHERNET + name.encode().ljust(NAME_LENGTH, b'\0')


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ':' in address else socket.AF_INET, address)


def udp(source, destination, port, body):
    length = UDP_HEADER + len(body)
    header = struct.pack('!HHHH', 55555, port, length, 0)
    if ':' not in source:
        return header + body  # IPv4 need not have a checksum
    pseudo = packed(source) + packed(destination) + struct.pack('!II', length, socket.IPPROTO_UDP)
    return header[:6] + struct.pack('!H', checksum(pseudo + header + body) or 0xffff) + body


def cuts(payload, *at):
    """Pieces of a payload, cut at these offsets: (offset, whether more follow, bytes)."""
    edges = [0, *at, len(payload)]
    return [(start, end < len(payload), payload[start:end]) for start, end in zip(edges, edges[1:])]


def orders(payload, fixed=0):
    """Cuts, and orders of the pieces, by name; `fixed` bytes stand before UDP's header."""
    least, most = fixed + UDP_HEADER, fixed + 56
    for cut in range(least, most + 1, 8):
        tiny = TINY if cut == least else ''
        yield f'{tiny}cut at {cut}', cuts(payload, cut)
        yield f'{tiny}cut at {cut}, backwards', cuts(payload, cut)[::-1]
    small = cuts(payload, *range(least, most + 1, 8))
    yield f'{TINY}in pieces of 8', small
    yield f'{TINY}in pieces of 8, backwards', small[::-1]
    yield f'{TINY}in pieces of 8, the odd ones first', small[1::2] + small[::2]
    yield f'{TINY}cut at {least}, each piece twice', [piece for piece in cuts(payload, least) for _ in range(2)]
    # Of another network by its first piece, and of this one by what lies over it.
    lie = payload[:fixed + VNI_AT] + bytes(3) + payload[fixed + VNI_AT + 3:least + 8]
    over = [(0, True, lie), (least, False, payload[least:])]
    yield f'{OVERLAP}lie first', over
    yield f'{OVERLAP}lie last', over[::-1]
    first, rest = cuts(payload, least + 8)
    yield 'a lie in the place of the first piece', [first, over[0], rest]


class IPv4:
    def __init__(self, source, spoofed, destination):
        self.source, self.spoofed, self.destination = source, spoofed, destination
        self.identification = secrets.randbelow(1 << 16)  # what waits for its other pieces is of another volley

    def packet(self, protocol, payload, source=None, options=b'', offset=0, more=False):
        assert len(options) % 4 == 0
        head = struct.pack('!BBHHHBBH', 0x40 | (5 + len(options) // 4), 0, 0, self.identification,
                           (more << 13) | (offset // 8), 64, protocol, 0)  # the kernel fills in length and checksum
        return head + packed(source or self.source) + packed(self.destination) + options + payload

    def fragments(self, payload, pieces, options=b''):
        self.identification = (self.identification + 1) & 0xffff
        return [self.packet(socket.IPPROTO_UDP, part, options=options, offset=offset, more=more)
                for offset, more, part in pieces]

    def shapes(self, datagram):
        """(name, packets); `datagram(name)` makes the UDP datagram that bears the name."""
        def shape(name, **more):
            return name, [self.packet(socket.IPPROTO_UDP, datagram(name), **more)]
        yield shape('whole')
        yield shape('from an address of somebody else', source=self.spoofed)
        for name, options in (('one option', b'\x01\x01\x01\x00'), ('router alert', b'\x94\x04\x00\x00'),
                              ('record route', b'\x07\x27\x04' + bytes(37)), ('40 bytes of options', b'\x01' * 40)):
            yield shape(name, options=options)
        for name, _ in orders(datagram('')):
            pieces = dict(orders(datagram(name)))[name]
            yield name, self.fragments(datagram(name), pieces)
        name = f'{TINY}options, cut at 8'
        yield name, self.fragments(datagram(name), cuts(datagram(name), 8), options=b'\x01\x01\x01\x00')


class IPv6:
    def __init__(self, source, spoofed, destination):
        self.source, self.spoofed, self.destination = source, spoofed, destination
        self.identification = secrets.randbelow(1 << 31)

    def packet(self, headers, payload, source=None):
        """Headers: (protocol number, bytes after the number of the next one); the payload is UDP unless told otherwise."""
        chain, following = b'', socket.IPPROTO_UDP
        for protocol, rest in reversed(headers):
            chain, following = bytes([following]) + rest + chain, protocol
        return self.bare(following, chain + payload, source)

    def bare(self, following, payload, source=None):
        return (struct.pack('!IHBB', 6 << 28, len(payload), following, 64)
                + packed(source or self.source) + packed(self.destination) + payload)

    def fragment_header(self, following, offset, more):
        return struct.pack('!BBHI', following, 0, offset | more, self.identification)

    def fragments(self, following, payload, pieces):
        """Fragments of a payload that begins with the header `following`."""
        self.identification += 1
        return [self.bare(IPPROTO_FRAGMENT, self.fragment_header(following, offset, more) + part)
                for offset, more, part in pieces]

    def shapes(self, datagram):
        hop, destination, routing = (HOP_BY_HOP, PADDING), (DESTINATION, PADDING), (ROUTING, NO_SEGMENTS)
        long = (DESTINATION, bytes([3, SKIPPED_OPTION, 28]) + bytes(28))

        def shape(name, *headers, **more):
            return name, [self.packet(headers, datagram(name), **more)]
        yield shape('whole')
        yield shape('from an address of somebody else', source=self.spoofed)
        yield shape('hop-by-hop options', hop)
        yield shape('destination options', destination)
        yield shape('long destination options', long)
        yield shape('routing header', routing)
        yield shape('hop-by-hop, destination, routing, destination', hop, destination, routing, long)
        self.identification += 1
        atomic = (IPPROTO_FRAGMENT, self.fragment_header(0, 0, 0)[1:])
        yield shape('a fragment that is the whole', atomic)
        yield shape('the whole as a fragment, behind and before options', destination, atomic, destination)

        for name, _ in orders(datagram('')):
            pieces = dict(orders(datagram(name)))[name]
            yield name, self.fragments(socket.IPPROTO_UDP, datagram(name), pieces)
        # The options are a part of what is cut: the first fragment has all of them, and UDP's header.
        for name, _ in orders(bytes(8) + datagram(''), 8):
            full = f'behind options: {name}'
            payload = bytes([socket.IPPROTO_UDP]) + PADDING + datagram(full)
            yield full, self.fragments(DESTINATION, payload, dict(orders(payload, 8))[name])
        # Illegal, and put together all the same: the chain of headers goes on in the next fragment.
        for kind, following, head in (('options', DESTINATION, PADDING), ('routing', ROUTING, NO_SEGMENTS)):
            for backwards in (False, True):
                name = f'{HIDDEN}{kind}, more options{", backwards" * backwards}'
                payload = bytes([DESTINATION]) + head + bytes([socket.IPPROTO_UDP]) + PADDING + datagram(name)
                pieces = cuts(payload, 8)
                yield name, self.fragments(following, payload, pieces[::-1] if backwards else pieces)


HIDDEN = 'headers cut: '
OVERLAP = 'overlap: '
TINY = 'tiny: '
PADDING = bytes([0, PAD, 4, 0, 0, 0, 0])
NO_SEGMENTS = bytes([0, UNKNOWN_ROUTING, 0, 0, 0, 0, 0])


def shapes(source, spoofed, address, port, vni):
    of_family = (IPv6 if ':' in address else IPv4)(source, spoofed, address)

    def datagram(name):
        # A datagram of somebody else needs another checksum.
        sender = spoofed if 'somebody else' in name else source
        return udp(sender, address, port, vxlan(vni, name))
    return of_family.shapes(datagram)


def fire(source, spoofed, address, networks):
    # Headers and all.
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for network in networks.split(','):
        port, vni = map(int, network.split('/'))
        for packet in (packet for _, packets in shapes(source, spoofed, address, port, vni) for packet in packets):
            try:
                sender.sendto(packet, (address, 0))
            except PermissionError:  # what a drop on the way out is to the sender
                pass


def names(family):
    ends = ('192.0.2.1', '192.0.2.7', '192.0.2.2') if family == 4 else ('2001:db8::1', '2001:db8::7', '2001:db8::2')
    print(json.dumps([name for name, _ in shapes(*ends, 1, 1)]))


def train(addresses, port, vnis):
    datagrams = [vxlan(int(vni), 'train') for vni in str(vnis).split(',')]
    for address in addresses.split(','):
        sender = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(datagrams[0]))
        try:
            sender.sendto(b''.join(datagrams), (address, port))
        except PermissionError:
            pass


def hear(ports):
    receivers = {}
    for port in str(ports).split(','):
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # IPv4 too, as mapped addresses
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(('::', int(port)))
        receivers[receiver] = port
    print('ready', flush=True)
    found = {}
    while True:
        readable, _, _ = select.select(list(receivers), [], [], QUIET)
        # Asked to end, and nothing is under way any more.
        if not readable and terminated():
            break
        for receiver in readable:
            datagram = receiver.recv(65536)
            network = f'{receivers[receiver]} {int.from_bytes(datagram[4:7], "big")}'
            name = datagram[NAME_AT:NAME_AT + NAME_LENGTH].rstrip(b'\0').decode()
            named = found.setdefault(network, {})
            named[name] = named.get(name, 0) + 1
    print(json.dumps(found))


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    words = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    {'fire': fire, 'names': names, 'train': train, 'hear': hear}[sys.argv[1]](*words)


main()

"""VXLAN packets of every shape that an attacker may give them, each named in its own frame."""
import itertools
import re
import socket
import struct

VNI_FLAG = 0x08000000  # the I flag of RFC 7348
# Ethernet: to all, from a host of no one's, of a type for experiments.
ETHERNET = bytes.fromhex('ffffffffffff' '020000000001' '88b5')
UDP_HEADER = 8
VNI_AT = UDP_HEADER + 4
NAME_LENGTH = 64
NAMED = re.compile(rb'!(\d+)!([^\0]*)\0')
IPPROTO_FRAGMENT = 44
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60  # IPv6 extension headers
UNKNOWN_ROUTING = 253  # RFC 3692: to be passed over where no segments are left
PAD, SKIPPED_OPTION = 1, 0x1e  # RFC 8200; RFC 4727

HIDDEN = 'headers cut: '
OVERLAP = 'overlap: '
TINY = 'tiny: '
PADDING = bytes([0, PAD, 4, 0, 0, 0, 0])
NO_SEGMENTS = bytes([0, UNKNOWN_ROUTING, 0, 0, 0, 0, 0])

# Of IPv4's and of IPv6's fragments, whoever sends them: what waits somewhere for its other pieces is of no later packet.
identifications = itertools.count(1)


def vxlan(vni, name, flags=VNI_FLAG, reserved=0):
    """A VXLAN header, and a frame that bears its network and a name, in the clear."""
    return struct.pack('!II', flags, vni << 8 | reserved) + ETHERNET + f'!{vni}!{name}'.encode().ljust(NAME_LENGTH, b'\0')


def checksum(words):
    total = sum(struct.unpack(f'!{len(words) // 2}H', words))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ':' in address else socket.AF_INET, address)


def udp(source, destination, port, body, source_port=55555):
    length = UDP_HEADER + len(body)
    header = struct.pack('!HHHH', source_port, port, length, 0)
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

    def packet(self, protocol, payload, source=None, options=b'', offset=0, more=False, identification=0, tos=0, ttl=64):
        assert len(options) % 4 == 0
        head = struct.pack('!BBHHHBBH', 0x40 | (5 + len(options) // 4), tos, 0, identification,
                           (more << 13) | (offset // 8), ttl, protocol, 0)  # the kernel fills in length and checksum
        return head + packed(source or self.source) + packed(self.destination) + options + payload

    def fragments(self, payload, pieces, options=b''):
        identification = next(identifications) & 0xffff
        return [self.packet(socket.IPPROTO_UDP, part, options=options, offset=offset, more=more,
                            identification=identification)
                for offset, more, part in pieces]

    def shapes(self, datagram):
        """(name, packets); `datagram(name)` makes the UDP datagram that bears the name."""
        def shape(name, body={}, **more):
            return name, [self.packet(socket.IPPROTO_UDP, datagram(name, **body), **more)]
        yield shape('whole')
        yield from (shape(name, body) for name, body in BODIES.items())
        yield shape('from an address of somebody else', {'source': self.spoofed}, source=self.spoofed)
        yield shape('type of service', tos=0xff)
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

    def packet(self, headers, payload, source=None, flow=0):
        """Headers: (protocol number, bytes after the number of the next one); the payload is UDP unless told otherwise."""
        chain, following = b'', socket.IPPROTO_UDP
        for protocol, rest in reversed(headers):
            chain, following = bytes([following]) + rest + chain, protocol
        return self.bare(following, chain + payload, source, flow)

    def bare(self, following, payload, source=None, flow=0):
        return (struct.pack('!IHBB', 6 << 28 | flow, len(payload), following, 64)
                + packed(source or self.source) + packed(self.destination) + payload)

    def fragment_header(self, following, offset, more, identification):
        return struct.pack('!BBHI', following, 0, offset | more, identification)

    def fragments(self, following, payload, pieces):
        """Fragments of a payload that begins with the header `following`."""
        identification = next(identifications)
        return [self.bare(IPPROTO_FRAGMENT, self.fragment_header(following, offset, more, identification) + part)
                for offset, more, part in pieces]

    def shapes(self, datagram):
        hop, destination, routing = (HOP_BY_HOP, PADDING), (DESTINATION, PADDING), (ROUTING, NO_SEGMENTS)
        long = (DESTINATION, bytes([3, SKIPPED_OPTION, 28]) + bytes(28))
        mapped = f'::ffff:{socket.inet_ntoa(packed(self.source)[-4:])}'

        def shape(name, *headers, body={}, **more):
            return name, [self.packet(headers, datagram(name, **body), **more)]
        yield shape('whole')
        yield from (shape(name, body=body) for name, body in BODIES.items())
        yield shape('from an address of somebody else', body={'source': self.spoofed}, source=self.spoofed)
        yield shape('from an address of IPv4', body={'source': mapped}, source=mapped)
        yield shape('traffic class and flow label', flow=0xfffffff)
        yield shape('hop-by-hop options', hop)
        yield shape('destination options', destination)
        yield shape('long destination options', long)
        yield shape('routing header', routing)
        yield shape('hop-by-hop, destination, routing, destination', hop, destination, routing, long)
        atomic = (IPPROTO_FRAGMENT, self.fragment_header(0, 0, 0, next(identifications))[1:])
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


# What UDP and VXLAN say of themselves: of the VXLAN header the VNI alone counts.
BODIES = {
    'every flag and reserved bit': {'flags': 0xffffffff, 'reserved': 0xff},
    'no flag': {'flags': 0},
    'from no port': {'source_port': 0},
    'from port 4789': {'source_port': 4789},
}


def shapes(source, spoofed, address, port, vni):
    """(name, packets) of each shape of an address's family."""
    def datagram(name, source=source, source_port=55555, **header):
        return udp(source, address, port, vxlan(vni, name, **header), source_port)
    return (IPv6 if ':' in address else IPv4)(source, spoofed, address).shapes(datagram)

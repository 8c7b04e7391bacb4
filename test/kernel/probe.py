"""Sends and hears packets in network namespaces, as it is asked: one process for all of a test's probes.

Each line of its input is {"do": COMMAND, "netns": PATH, …}, in JSON; it answers each with a line {"ok": …} or
{"error": …}, in order, and ends with its input. The commands are the functions under COMMANDS. Needs root.
"""
import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import traceback

from shapes import DESTINATION, NAMED, PADDING, IPv4, IPv6, checksum, shapes, udp, vxlan

QUIET = 0.2  # seconds without a packet after which none is on its way
CLONE_NEWNET = 0x40000000
UDP_SEGMENT = 103  # linux/udp.h
IP_XFRM_POLICY, IPV6_XFRM_POLICY = 17, 35
NETLINK_XFRM = 6
XFRM_POLICY_OUT = 1
ETH_P_ALL = 3
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23

libc = ctypes.CDLL(None, use_errno=True)
entered = None
going_on = {}


def enter(netns):
    global entered
    if netns == entered:
        return
    where = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(where, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f'setns {netns}')
    os.close(where)
    entered = netns


def family_of(address):
    return socket.AF_INET6 if ':' in address else socket.AF_INET


def attempt(sender, packet, to):
    """Whether it left this process: what is dropped on the way out is refused."""
    try:
        sender.sendto(packet, to)
        return 1
    except (PermissionError, BlockingIOError, ConnectionRefusedError):
        return 0
    except OSError as error:
        if error.errno != errno.EREMOTE:  # a policy, and no SA
            raise
        return 0


def remember(what):
    number = len(going_on)
    going_on[number] = what
    return number


def begin_hear(ports):
    """Hears what comes to UDP ports, by IPv4 or IPv6."""
    receivers = {}
    for port in ports:
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # IPv4 too, as mapped addresses
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(('::', port))
        receivers[receiver] = port
    return remember(receivers)


def end_hear(number):
    """What came, when no more does: {'PORT VNI': {name: how often}}, the VNI by VXLAN's header."""
    found = {}
    receivers = going_on[number]
    for receiver, datagram in drained(receivers):
        named = NAMED.search(datagram)
        name = named[2].decode() if named else ''
        counts = found.setdefault(f'{receivers[receiver]} {int.from_bytes(datagram[4:7], "big")}', {})
        counts[name] = counts.get(name, 0) + 1
    return found


def begin_sniff(device):
    """Sees each frame that a device receives."""
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sniffer.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sniffer.bind((device, ETH_P_ALL))
    return remember({sniffer: None})


def end_sniff(number):
    """What could be read in what came, wherever it stood: {VNI: {name: how often}}."""
    found = {}
    for _, frame in drained(going_on[number]):
        for vni, name in NAMED.findall(frame):
            counts = found.setdefault(vni.decode(), {})
            counts[name.decode()] = counts.get(name.decode(), 0) + 1
    return found


def drained(receivers):
    """What sockets receive until they are quiet, with the socket; closes them."""
    while True:
        readable, _, _ = select.select(list(receivers), [], [], QUIET)
        if not readable:
            break
        for receiver in readable:
            yield receiver, receiver.recv(1 << 17)
    for receiver in receivers:
        receiver.close()


def send(to, port, vnis, name, times=1, source=None, sport=0, mark=None, bypass=False):
    """Datagrams from an ordinary UDP socket, some of each network to each address: how many left."""
    left = 0
    for address in to:
        sender = socket.socket(family_of(address), socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if source is not None or sport != 0:
            sender.bind((source or ('::' if ':' in address else ''), sport))
        if mark is not None:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if bypass:
            allow(sender)
        for vni in vnis:
            left += sum(attempt(sender, vxlan(vni, name), (address, port)) for _ in range(times))
        sender.close()
    return left


def allow(sender):
    """A policy of the socket's own, under which what it sends is not encrypted (struct xfrm_userpolicy_info)."""
    family = socket.AF_INET6 if sender.family == socket.AF_INET6 else socket.AF_INET
    selector = bytes(40) + struct.pack('=HBBBxxxiI', family, 0, 0, 0, 0, 0)
    unlimited = struct.pack('=QQQQ', *[(1 << 64) - 1] * 4) + bytes(32)
    policy = selector + unlimited + bytes(32) + struct.pack('=IIBBBBxxxx', 0, 0, XFRM_POLICY_OUT, 0, 0, 0)
    # It is read by the module of such a socket, which comes with the first one.
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM).close()
    if family == socket.AF_INET6:
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_XFRM_POLICY, policy)
    else:
        sender.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, policy)


def fire(source, spoofed, to, networks, only=None):
    """A volley: all shapes of an address's family, or one, for each [port, VNI], headers and all, from a raw socket."""
    with socket.socket(family_of(to), socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for port, vni in networks:
            for name, packets in shapes(source, spoofed, to, port, vni):
                for packet in packets if only in (None, name) else ():
                    attempt(sender, packet, (to, 0))


def names(source, spoofed, to):
    """Of all shapes of an address's family."""
    return [name for name, _ in shapes(source, spoofed, to, 1, 1)]


def quote(source, to, port, vnis):
    """ICMP errors that quote a datagram of each network, one of each type; and a ping that only looks like it."""
    is_new = ':' in to
    made = (IPv6 if is_new else IPv4)(to, None, source)
    protocol, kinds, ping = (socket.IPPROTO_ICMPV6, (1, 2, 3, 4), 128) if is_new else (socket.IPPROTO_ICMP, (3, 11, 12), 8)
    with socket.socket(family_of(to), socket.SOCK_RAW, protocol) as sender:
        for vni in vnis:
            for kind in (*kinds, ping):
                datagram = udp(to, source, port, vxlan(vni, f'type {kind}'))
                quoted = made.packet([], datagram) if is_new else made.packet(socket.IPPROTO_UDP, datagram)
                message = bytes([kind, 0, 0, 0]) + bytes(4) + quoted
                if not is_new:  # of ICMPv6 the kernel makes it
                    message = message[:2] + struct.pack('!H', checksum(message)) + message[4:]
                attempt(sender, message, (to, 0))


def begin_record(device):
    """Sees the packets of ESP that a device receives."""
    return begin_sniff(device)


def end_record(number):
    """They, in hex, from the IP header on."""
    frames = (frame[14:] for _, frame in drained(going_on[number]))
    return [packet.hex() for packet in frames
            if packet[9 if packet[0] >> 4 == 4 else 6] == socket.IPPROTO_ESP]


def lengthen(to, packets):
    """Sends packets that were recorded once more, each with options in its IP header that do nothing."""
    with socket.socket(family_of(to), socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for packet in map(bytes.fromhex, packets):
            if packet[0] >> 4 == 4:
                longer = bytes([packet[0] + 1]) + packet[1:20] + b'\x01\x01\x01\x00' + packet[20:]
            else:
                length = struct.unpack_from('!H', packet, 4)[0] + 8
                longer = (packet[:4] + struct.pack('!H', length) + bytes([DESTINATION]) + packet[7:40]
                          + bytes([socket.IPPROTO_ESP]) + PADDING + packet[40:])
            attempt(sender, longer, (to, 0))


def train(to, port, vnis):
    """One send to each address that the kernel carries as one packet (UDP segmentation offload), a datagram of each network."""
    datagrams = [vxlan(vni, 'train') for vni in vnis]
    for address in to:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(datagrams[0]))
            attempt(sender, b''.join(datagrams), (address, port))


def begin_flood(to, port, vni):
    """Sends to each address until it is ended."""
    senders = {address: socket.socket(family_of(address), socket.SOCK_DGRAM) for address in to}
    flood = {'tried': 0, 'ending': threading.Event()}

    def run():
        while not flood['ending'].is_set():
            for address, sender in senders.items():
                attempt(sender, vxlan(vni, 'flood'), (address, port))
                flood['tried'] += 1
    flood['thread'] = threading.Thread(target=run, daemon=True)
    flood['thread'].start()
    return remember(flood)


def end_flood(number):
    """How many it tried to send."""
    flood = going_on[number]
    flood['ending'].set()
    flood['thread'].join()
    return flood['tried']


COMMANDS = {f.__name__: f for f in (begin_hear, end_hear, begin_sniff, end_sniff, begin_record,
                                    end_record, begin_flood, end_flood, send, fire, names, quote, lengthen, train)}


def main():
    for line in sys.stdin:
        words = json.loads(line)
        try:
            enter(words.pop('netns'))
            answer = {'ok': COMMANDS[words.pop('do')](**words)}
        except Exception:
            answer = {'error': traceback.format_exc()}
        print(json.dumps(answer), flush=True)


main()

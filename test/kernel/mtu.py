"""What leaves a host when its container sends the largest packet that a link lets through, and one byte more.

  mtu.py JSON    {"family": of the outer addresses, 4 or 6; "hosts": [the sender's network namespace, the receiver's];
                 "container", "link": the sender's container's namespace and device; "address": whom it pings;
                 "switch", "port": the namespace and device that all the sender sends arrives at}

For each line PATH MTU of its input it gives the sender's eth0 the one and its link the other, and answers with JSON:
{"fits": LEFT, "refused": whether one byte more was, "over": LEFT of one byte more, with the link's MTU raised by that byte}.
LEFT is {"lengths": of the IP packets that left, "fragments": how many of them were such, "answered": BOOL}.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import sys

from shapes import checksum

CLONE_NEWNET = 0x40000000
SIOCSIFMTU = 0x8922
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
UDP_ENCAP, UDP_ENCAP_ESPINUDP, ESP_PORT = 100, 2, 4500  # linux/udp.h, RFC 3948
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
ESP, FRAGMENT = 50, 44
MORE_OR_OFFSET = 0x3fff
ECHO_REQUEST = 8
SMALL = 100
PATIENCE = 30  # seconds, for what must be answered
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    assert LIBC.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def within(path):
    """What is opened in here belongs to that namespace for good."""
    with open('/proc/self/ns/net') as home, open(path) as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def set_mtu(path, device, mtu):
    with within(path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack('16si20x', device.encode(), mtu))


def decapsulating(family):
    """A socket that takes ESP out of UDP for as long as it is open."""
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    receiver.bind(('', ESP_PORT))
    return receiver


class Tap:
    def __init__(self, device, family):
        self.kind, self.protocol_at = (ETH_P_IP, 9) if family == 4 else (ETH_P_IPV6, 6)
        # All kinds: who asks for one comes after the bridge, which leaves nothing.
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.wire.bind((device, ETH_P_ALL))
        self.wire.setblocking(False)

    def seen(self):
        """All ESP since the last look, in UDP or not: (length, whether it was a fragment)."""
        packets = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, (_, kind, way, *_) = self.wire.recvfrom(65536)
                if kind != self.kind or way == socket.PACKET_OUTGOING:
                    continue
                protocol = packet[self.protocol_at]
                fragment = (protocol == FRAGMENT if kind == ETH_P_IPV6
                            else struct.unpack_from('!H', packet, 6)[0] & MORE_OR_OFFSET != 0)
                if fragment or protocol in (ESP, socket.IPPROTO_UDP):
                    packets.append((len(packet), fragment))
        return packets


class Pinger:
    def __init__(self, address):
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        self.sender.settimeout(PATIENCE)
        self.sender.connect((address, 0))
        self.sequence = 0
        self.answers = set()

    def send(self, size):
        """A request of that many bytes, IP's header with them, that must not be fragmented. OSError: the link is too small."""
        self.sequence += 1
        rest = struct.pack('!HH', os.getpid() & 0xffff, self.sequence)
        message = struct.pack('!BBH', ECHO_REQUEST, 0, 0) + rest + bytes(size - 20 - 8)
        self.sender.send(message[:2] + struct.pack('!H', checksum(message + bytes(size % 2))) + message[4:])
        return rest

    def is_answered(self, request):
        with contextlib.suppress(TimeoutError):
            while request not in self.answers:
                self.answers.add(self.sender.recv(65536)[24:28])
        return request in self.answers


def left(tap, pinger, size):
    tap.seen()
    # Behind it comes one that passes in any case: what has not left by then never will.
    large, small = pinger.send(size), pinger.send(SMALL)
    assert pinger.is_answered(small)
    *packets, _ = tap.seen()
    return {'lengths': [length for length, _ in packets], 'fragments': sum(fragment for _, fragment in packets),
            'answered': packets != [] and pinger.is_answered(large)}


def refuses(pinger, size):
    try:
        pinger.send(size)
        return False
    except OSError:
        return True


def main(family, hosts, container, link, address, switch, port):
    # On one processor, what is sent first leaves first.
    os.sched_setaffinity(0, {0})
    held = []
    for host in hosts:
        with within(host):
            held.append(decapsulating(socket.AF_INET if family == 4 else socket.AF_INET6))
    with within(switch):
        tap = Tap(port, family)
    with within(container):
        pinger = Pinger(address)
    for line in sys.stdin:
        path, mtu = map(int, line.split())
        set_mtu(hosts[0], 'eth0', path)
        set_mtu(container, link, mtu)
        fits, refused = left(tap, pinger, mtu), refuses(pinger, mtu + 1)
        set_mtu(container, link, mtu + 1)
        print(json.dumps({'fits': fits, 'refused': refused, 'over': left(tap, pinger, mtu + 1)}), flush=True)


main(**json.loads(sys.argv[1]))

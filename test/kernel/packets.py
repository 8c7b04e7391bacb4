"""VXLAN packets made by hand, for tests of the guard: what a link of the kernel's would not send.

  packets.py count PORT                     counts datagrams by VNI; until SIGTERM, then prints them as JSON
  packets.py send PORT COUNT VNI,… ADDRESS,…
                                            sends datagrams of each VNI to each address from ordinary UDP sockets
  packets.py flood ADDRESS PORT VNI         the same without an end; until SIGTERM, then prints how many
  packets.py fragments SOURCE ADDRESS PORT VNI COUNT
                                            each in two IPv6 fragments, the first with the UDP header alone; needs root

The two that run until SIGTERM say "ready" first.
"""
import json
import signal
import socket
import struct
import sys

VNI_FLAG = 0x08000000  # the I flag of RFC 7348
# Ethernet: to all, from a host of no one's, of a type for experiments.
FRAME = bytes.fromhex('ffffffffffff' '020000000001' '88b5') + bytes(50)
UDP_HEADER = 8
IPPROTO_FRAGMENT = 44
QUIET = 0.2  # seconds without a datagram after which none is on its way


def vxlan(vni):
    return struct.pack('!II', VNI_FLAG, vni << 8) + FRAME


def udp_socket(address):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)


def terminated():
    return signal.SIGTERM in signal.sigpending()


def count(port):
    found = {}
    receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # IPv4 too, as mapped addresses
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    receiver.bind(('::', port))
    receiver.settimeout(QUIET)
    print('ready', flush=True)
    while True:
        try:
            datagram = receiver.recv(65536)
        except TimeoutError:
            # Asked to end, and nothing is under way any more.
            if terminated():
                break
            continue
        vni = int.from_bytes(datagram[4:7], 'big')
        found[vni] = found.get(vni, 0) + 1
    print(json.dumps(found))


def send(port, times, vnis, addresses):
    for address in str(addresses).split(','):
        sender = udp_socket(address)
        for vni in str(vnis).split(','):
            for _ in range(times):
                try:
                    sender.sendto(vxlan(int(vni)), (address, port))
                except PermissionError:  # what a drop on the way out is to the sender
                    pass


def flood(address, port, vni):
    sender, tried = udp_socket(address), 0
    print('ready', flush=True)
    while not terminated():
        try:
            sender.sendto(vxlan(vni), (address, port))
        except (PermissionError, BlockingIOError):
            pass
        tried += 1
    print(tried)


def checksum(words):
    total = sum(struct.unpack(f'!{len(words) // 2}H', words))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def fragments(source, address, port, vni, times):
    sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, IPPROTO_FRAGMENT)
    sender.bind((source, 0))
    body = vxlan(vni)
    length = UDP_HEADER + len(body)
    pseudo = b''.join(socket.inet_pton(socket.AF_INET6, a) for a in (source, address))
    pseudo += struct.pack('!II', length, socket.IPPROTO_UDP)
    header = struct.pack('!HHHH', 55555, port, length, 0)
    header = header[:6] + struct.pack('!H', checksum(pseudo + header + body) or 0xffff)
    for identification in range(times):
        for offset_and_more, part in ((1, header), (UDP_HEADER, body)):
            head = struct.pack('!BBHI', socket.IPPROTO_UDP, 0, offset_and_more, identification)
            try:
                sender.sendto(head + part, (address, 0))
            except PermissionError:
                pass


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    words = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    {'count': count, 'send': send, 'flood': flood, 'fragments': fragments}[sys.argv[1]](*words)


if __name__ == '__main__':
    main()

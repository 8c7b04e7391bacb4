"""Datagrams, and what is seen of them on a wire.

  wire.py watch DEVICE           says "ready", then for each UDP datagram to the test's port: SOURCE DESTINATION TEXT
  wire.py send                   for each line SOURCE ADDRESS DEVICE TEXT of its input, until that ends: sends one from an
                                 address of this host's; a multicast one by that device
"""
import socket
import struct
import sys

PORT = 4242
ETH_P_ALL = 3
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
HEADERS = {ETH_P_IP: (socket.AF_INET, 9, 12, 4, 20), ETH_P_IPV6: (socket.AF_INET6, 6, 8, 16, 40)}


def watch(device):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    wire.bind((device, ETH_P_ALL))
    print('ready', flush=True)
    while True:
        packet, (_, kind, *_) = wire.recvfrom(65536)
        if kind not in HEADERS:
            continue
        family, protocol, source, size, length = HEADERS[kind]
        if packet[protocol] != socket.IPPROTO_UDP or struct.unpack_from('!H', packet, length + 2)[0] != PORT:
            continue
        ends = [socket.inet_ntop(family, packet[at : at + size]) for at in (source, source + size)]
        print(*ends, packet[length + 8 :].decode(), flush=True)


def send():
    for line in sys.stdin:
        send_one(*line.split())


def send_one(source, address, device, text):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.bind((source, 0))
    index = socket.if_nametoindex(device)
    if family == socket.AF_INET:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack('@4s4si', bytes(4), bytes(4), index))
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sender.sendto(text.encode(), (address, PORT))


{'watch': watch, 'send': send}[sys.argv[1]](*sys.argv[2:])

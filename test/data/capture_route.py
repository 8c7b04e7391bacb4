"""Captures of `ip neigh` and `bridge fdb`: neighbour and FDB entries of every kind that xfrmesh writes, reads or must
tell from its own, as the tools send them, and as the kernel gives them back together with what they printed.

  unshare -n python3 -B test/data/capture_route.py > test/data/route.json

The cases run in order in one network namespace, whose links have the indexes given below.

needs: iproute2 strace, a kernel with VXLAN and bridges
"""
import shlex
import subprocess

from capture import HEADER, run, write

VX, OTHER, BRIDGE = 100, 101, 102
RTM_NEWLINK, RTM_GETLINK = 16, 18
MAC, SECOND = '02:00:00:00:00:01', '02:00:00:00:00:02'

NEIGHBOURS = {
    'IPv4': f'replace 10.9.0.1 lladdr {MAC} dev vx0 nud permanent',
    'IPv6': f'replace 2001:db8::7 lladdr {MAC} dev vx0 nud permanent',
    'IPv6, link-local': f'replace fe80::7 lladdr {MAC} dev vx0 nud permanent',
    'another address': f'replace 10.9.0.1 lladdr {SECOND} dev vx0 nud permanent',
    'learned': f'replace 10.9.0.3 lladdr {MAC} dev vx0 nud stale',
    'learned elsewhere': f'replace 10.9.0.2 lladdr {MAC} dev vx0 nud permanent extern_learn',
    'of another link': f'replace 10.9.0.9 lladdr {MAC} dev vx1 nud permanent',
}
FDB = {
    'to IPv4': f'replace {MAC} dev vx0 self permanent dst 192.0.2.2',
    'another destination': f'replace {MAC} dev vx0 self permanent dst 192.0.2.3',
    'to a port and VNI': f'replace {SECOND} dev vx0 self permanent dst 192.0.2.2 port 8472 vni 77',
    'by a link': f'replace 02:00:00:00:00:03 dev vx0 self permanent dst 192.0.2.2 via vx1',
    'static': 'replace 02:00:00:00:00:04 dev vx0 self static dst 192.0.2.2',
    'learned': 'replace 02:00:00:00:00:05 dev vx0 self dynamic dst 192.0.2.2',
    'learned elsewhere': 'replace 02:00:00:00:00:06 dev vx0 self permanent extern_learn dst 192.0.2.2',
    'flooding': 'append 00:00:00:00:00:00 dev vx0 self permanent dst 192.0.2.2',
    'flooding, also': 'append 00:00:00:00:00:00 dev vx0 self permanent dst 192.0.2.3',
    'of another link': f'replace {MAC} dev vx1 self permanent dst 2001:db8::2',
    'to a next hop': 'replace 02:00:00:00:00:07 dev vx0 self permanent nhid 2',
    "of the link's bridge": 'replace 02:00:00:00:00:08 dev vx0 master static',
}


def setup():
    for command in (
        f'ip link add vx0 index {VX} type vxlan id 5 dstport 4789 local 192.0.2.1',
        f'ip link add vx1 index {OTHER} type vxlan id 6 dstport 4790 local 2001:db8::1',
        f'ip link add br0 index {BRIDGE} type bridge',
        'ip link set vx0 master br0',
        'ip link set vx0 up',
        'ip link set vx1 up',
        'ip nexthop add id 1 via 192.0.2.7 fdb',
        'ip nexthop add id 2 group 1 fdb',
    ):
        subprocess.run(shlex.split(command), check=True)


def of_neighbours(traffic):
    """Without the links that a tool looks up first. `ip` sends more than its dump request's own length says."""
    for direction, datagram in traffic:
        length, kind = HEADER.unpack_from(datagram)[:2]
        if kind not in (RTM_NEWLINK, RTM_GETLINK):
            yield direction, datagram[:length] if direction == 'sent' else datagram


def capture(name, command):
    return run(name, shlex.split(command), 'NETLINK_ROUTE', keep=of_neighbours)


def cases():
    for name, words in NEIGHBOURS.items():
        yield capture(f'neighbour: {name}', f'ip neigh {words}')
    for name, words in FDB.items():
        yield capture(f'FDB: {name}', f'bridge fdb {words}')
    yield capture('FDB: of another family: EAFNOSUPPORT', f'bridge fdb replace {MAC} dev vx0 self dst 2001:db8::2')
    yield capture('get a neighbour', 'ip neigh get 10.9.0.1 dev vx0')
    yield capture('get an FDB entry', f'bridge fdb get {SECOND} dev vx0 self')
    yield capture('get an FDB entry that is not there: ENOENT', 'bridge fdb get 02:00:00:00:00:99 dev vx0 self')
    yield capture('list neighbours, IPv4', 'ip -4 -j neigh show nud all')
    yield capture('list neighbours, IPv6', 'ip -6 -j neigh show nud all')
    yield capture('list the FDB', 'bridge -j fdb show')
    yield capture('delete a neighbour', 'ip neigh del 10.9.0.1 dev vx0')
    yield capture('delete a neighbour that is not there: ENOENT', 'ip neigh del 10.9.0.1 dev vx0')
    yield capture('delete an FDB entry', f'bridge fdb del {MAC} dev vx0 self dst 192.0.2.3')
    # The kernel says yes, and leaves it.
    yield capture('delete an FDB entry that leads elsewhere', f'bridge fdb del {SECOND} dev vx0 self dst 192.0.2.9')
    yield capture('delete an FDB entry that is not there: ENOENT', f'bridge fdb del {MAC} dev vx0 self dst 192.0.2.3')


setup()
write(cases())

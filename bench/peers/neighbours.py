"""Programs the endpoints of a VXLAN link through pyroute2, as its users do: one entry and one round trip at a time.

Commands and answers are those of neighbours.go.
"""
import json
import sys
import time

from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import ndmsg

PERMANENT = ndmsg.states['permanent']
SELF = ndmsg.flags['self']


def run(route, line):
    index = route.link_lookup(ifname=line['link'])[0]
    op = line['op']
    for endpoint in line['endpoints']:
        mac = endpoint['mac']
        neighbour = dict(ifindex=index, dst=endpoint['ip'], lladdr=mac, state=PERMANENT)
        fdb = dict(ifindex=index, dst=endpoint['vtep'], lladdr=mac, state=PERMANENT, flags=SELF)
        if op == 'add':
            route.fdb('replace', **fdb)
            route.neigh('replace', **neighbour)
        elif op == 'move':
            route.fdb('replace', **fdb)
        elif op == 'remove':
            route.neigh('del', **neighbour)
            route.fdb('del', **fdb)
        else:
            raise ValueError(f'unknown op {op}')


def main():
    with IPRoute() as route:
        for text in sys.stdin:
            line = json.loads(text)
            began = time.monotonic()
            run(route, line)
            elapsed = (time.monotonic() - began) * 1e3
            print(json.dumps({'op': line['op'], 'elapsedMs': elapsed}), flush=True)


main()

"""Captures of nft: everything that xfrmesh's firewall is made of, as nft sends it and as the kernel gives it back.

  unshare -n python3 -B test/data/capture_nft.py > test/data/nft.json

The cases run in order and build on each other. Those that change something read their rules from standard input and
keep the transaction alone, from BATCH_BEGIN to BATCH_END, with its answers; their text is what `--debug=netlink`
prints, the expressions that nft compiled. Those that list keep everything; there, the order of a set's elements, the
process id in the generation's answer and the padding after an attribute's value differ from one run to the next.

needs: nftables strace, a kernel with nf_tables
"""
from capture import HEADER, digest, messages, run, write

TABLE = 'inet xfrmesh_58464d'
SET = f'{TABLE} encrypted-vnis'
REQID = 0x58464D
NFNL_MSG_BATCH_BEGIN = 0x10


def transactions(traffic):
    """Leaves out what nft reads before it writes: its own cache."""
    kept, sequences = [], set()
    for direction, datagram in traffic:
        headers = [HEADER.unpack_from(m) for m in messages(datagram)]
        if direction == 'sent' and headers[0][1] == NFNL_MSG_BATCH_BEGIN:
            sequences = {h[3] for h in headers}
            kept.append((direction, datagram))
        elif direction == 'received' and headers[0][3] in sequences:
            kept.append((direction, datagram))
    return kept


def change(name, rules, *options):
    words = ['nft', *(options or ['--debug=netlink']), '-f', '-']
    return run(name, words, 'NETLINK_NETFILTER', rules + '\n', transactions)


def listing(name, *words):
    return run(name, ['nft', *words], 'NETLINK_NETFILTER')


def vnis(first, count):
    return ', '.join(f'0x{vni:06x}' for vni in range(first, first + count))


RULES = {
    'output': {
        'mark packets of encrypted networks':
            f'udp dport 4789 @th,96,24 @encrypted-vnis counter meta mark set 0x{REQID:x}',
        'comment': 'udp dport 4789 counter comment "set by xfrmesh"',
        'bits of the mark set, the rest kept': f'meta mark set meta mark & 0xff000000 | 0x{REQID:x}',
        'bits of the mark compared': f'meta mark & 0xffffff == 0x{REQID:x} return',
        'sender of the packet': 'meta skuid 0 return',
        'any sender but one': 'meta skuid != 65534 return',
        'name of the output interface': 'meta oifname "eth0" return',
        'index of the loopback interface': 'meta oif 1 return',
    },
    'input': {
        'jump for good': 'udp dport 4789 goto guard-in',
        'jump and return': 'udp dport 4789 jump guard-in',
        'protocol and port apart': 'meta l4proto udp th dport 4789 accept',
        'port range': 'udp sport 49152-65535 accept',
        'any port but one': 'udp dport != 4789 accept',
        'family': 'meta nfproto ipv6 accept',
        'IPv4 prefix': 'ip saddr 10.1.0.0/20 accept',
        'IPv4 address': 'ip daddr 10.1.0.1 accept',
        'IPv6 prefix': 'ip6 saddr fd00:1::/32 accept',
        'IPv6 address': 'ip6 daddr fd00::1 accept',
        'no IPsec at all': 'meta ipsec missing drop',
    },
    'guard-in': {
        'not in the set': '@th,96,24 != @encrypted-vnis return',
        'one VNI': '@th,96,24 0x001000 return',
        'VNIs by prefix': '@th,96,24 & 0xfff000 == 0x001000 return',
        **{f'came under our reqid, at depth {depth}': f'ipsec in spnum {depth} reqid {REQID} return'
           for depth in (0, 1, 5)},
        'came under our reqid': f'ipsec in reqid {REQID} return',
        'came under an SPI': 'ipsec in spi 0x1000 return',
        'drop': 'drop',
        'count and drop': 'counter drop',
        'count from': 'counter packets 5 bytes 400 drop',
    },
    'guard-out': {
        'not in the set': '@th,96,24 != @encrypted-vnis return',
        'goes out under our reqid': f'ipsec out reqid {REQID} return',
        'goes out under our reqid, at depth 1': f'ipsec out spnum 1 reqid {REQID} return',
        'no IPsec on the route': 'rt ipsec missing drop',
        'IPsec on the route': 'rt ipsec exists accept',
    },
}

WHOLE = f'''table {TABLE} {{
  comment "networks that xfrmesh encrypts"
  set encrypted-vnis {{
    typeof @th,96,24
    elements = {{ 0x001000, 0x001001 }}
  }}
  chain output {{
    type route hook output priority mangle; policy accept;
    udp dport 4789 @th,96,24 @encrypted-vnis counter meta mark set 0x{REQID:x}
  }}
  chain input {{
    type filter hook input priority raw; policy accept;
    udp dport 4789 goto guard-in
  }}
  chain guard-in {{
    @th,96,24 != @encrypted-vnis return
    ipsec in reqid {REQID} return
    ipsec in spnum 1 reqid {REQID} return
    ipsec in spnum 2 reqid {REQID} return
    ipsec in spnum 3 reqid {REQID} return
    ipsec in spnum 4 reqid {REQID} return
    ipsec in spnum 5 reqid {REQID} return
    counter drop
  }}
  chain postrouting {{
    type filter hook postrouting priority 300; policy accept;
    udp dport 4789 goto guard-out
  }}
  chain guard-out {{
    @th,96,24 != @encrypted-vnis return
    ipsec out reqid {REQID} return
    counter drop
  }}
}}'''


def cases():
    yield listing('generation and an empty ruleset', '-j', 'list', 'ruleset')

    yield change('add a table with a comment', f'add table {TABLE} {{ comment "networks that xfrmesh encrypts"; }}')
    yield change('add a table that exists', f'add table {TABLE}')
    yield change('create a table that exists: EEXIST', f'create table {TABLE}')
    yield change('add a set with a comment', f'add set {SET} {{ typeof @th,96,24; comment "VNIs"; }}')
    yield change('add a set of a declared size', f'add set {TABLE} few {{ typeof @th,96,24; size 16; }}')
    yield change('delete a set', f'delete set {TABLE} few')
    yield change('add elements', f'add element {SET} {{ {vnis(0x1000, 2)} }}')
    yield change('add an element with a comment', f'add element {SET} {{ 0x001002 comment "third" }}')
    yield change('add an element that exists', f'add element {SET} {{ 0x001000 }}')
    yield change('create an element that exists: EEXIST', f'create element {SET} {{ 0x001000 }}')
    yield listing('list a set in JSON', '-j', 'list', 'set', *SET.split())

    for name, hook in (('output', 'type route hook output priority mangle; policy accept;'),
                       ('input', 'type filter hook input priority raw; policy accept;'),
                       ('postrouting', 'type filter hook postrouting priority 300; policy accept;')):
        yield change(f'add the base chain {name}', f'add chain {TABLE} {name} {{ {hook} }}')
    yield change('add a plain chain', f'add chain {TABLE} guard-in')
    yield change('add a plain chain with a comment', f'add chain {TABLE} guard-out {{ comment "out"; }}')
    yield change('change the policy of a base chain', f'add chain {TABLE} output {{ policy drop; }}')
    yield change('change it back', f'add chain {TABLE} output {{ policy accept; }}')

    for chain, rules in RULES.items():
        for name, rule in rules.items():
            yield change(f'rule, {chain}: {name}', f'add rule {TABLE} {chain} {rule}')
    yield change('rule at the head of its chain', f'insert rule {TABLE} guard-in counter accept')
    yield change('several rules in one transaction',
                 f'add rule {TABLE} guard-out counter\nadd rule {TABLE} guard-out accept')
    yield change('rule, echoed with its handle', f'add rule {TABLE} guard-out counter drop', '-e', '-a')
    yield change('rule that jumps to a chain that is not there: ENOENT', f'add rule {TABLE} guard-out goto none')
    yield listing('list every rule in JSON', '-j', 'list', 'ruleset')

    yield change('delete a rule that is not there: ENOENT', f'delete rule {TABLE} output handle 65535')
    yield change('delete elements', f'delete element {SET} {{ {vnis(0x1000, 2)} }}')
    yield change('delete an element that is not there: ENOENT', f'delete element {SET} {{ 0x001000 }}')
    yield change('flush a set', f'flush set {SET}')
    yield change('flush a chain', f'flush chain {TABLE} output')
    yield change('delete a chain', f'delete chain {TABLE} output')
    yield change('delete a chain in use: EBUSY', f'delete chain {TABLE} guard-in')
    yield change('delete a table', f'delete table {TABLE}')
    yield change('delete a table that is not there: ENOENT', f'delete table {TABLE}')

    yield change('the whole guard', WHOLE)
    yield listing('list the whole guard in JSON', '-j', 'list', 'table', *TABLE.split())
    yield listing('list the whole guard', 'list', 'table', *TABLE.split())
    yield change('replace the table in one transaction', f'add table {TABLE}\ndelete table {TABLE}\n{WHOLE}')
    yield change('flush the table', f'flush table {TABLE}')
    yield digest(change('4,000 elements', f'add element {SET} {{ {vnis(0x4000, 4000)} }}'))
    yield digest(change('delete 4,000 elements', f'delete element {SET} {{ {vnis(0x4000, 4000)} }}'))
    yield digest(change('10,000 elements, in several messages', f'add element {SET} {{ {vnis(0x4000, 10000)} }}'))
    yield change('flush a set of 10,000 elements', f'flush set {SET}')
    yield change('300 elements', f'add element {SET} {{ {vnis(0x2000, 300)} }}', '-n')
    yield listing('list 300 elements in JSON', '-j', 'list', 'set', *SET.split())
    yield change('flush the ruleset', 'flush ruleset')


write(cases())

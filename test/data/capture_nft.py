"""Captures of nft: everything that xfrmesh's firewall is made of, as nft sends it and as the kernel gives it back.

  unshare -n python3 -B test/data/capture_nft.py > test/data/nft.json

The cases run in order and build on each other. Those that change something read their rules from standard input and
keep the transaction alone, from BATCH_BEGIN to BATCH_END, with its answers; their text is what `--debug=netlink`
prints, the expressions that nft compiled. Those that list keep everything; there, the order of a set's elements, the
process id in the generation's answer and the padding after an attribute's value differ from one run to the next.

needs: nftables strace, a kernel with nf_tables
"""
import pathlib

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
        'first fragment': 'frag frag-off 0 drop',
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

WHOLE = pathlib.Path(__file__).with_name('guard.nft').read_text()


# What CNI's plugins write to masquerade (the texts of its rules are theirs), as rules and as a map would have it.
MASQUERADE = 'inet cni_plugins_masquerade'
MASQUERADE_RULES = {
    'postrouting': {
        'multicast': 'ip daddr == 224.0.0.0/4  return',
        'multicast, IPv6': 'ip6 daddr == ff00::/8  return',
        'check the rest': 'goto masq_checks',
    },
    'masq_checks': {
        'masquerade': 'ip saddr == 192.168.1.2 ip daddr != 192.168.1.0/24 masquerade comment "an owner"',
        'masquerade, IPv6': 'ip6 saddr == fd00:1::2 ip6 daddr != fd00:1::/64 masquerade',
        'masquerade, a network of 20 bits': 'ip saddr == 10.1.16.2 ip daddr != 10.1.16.0/20 masquerade',
        'masquerade, a network of 60 bits': 'ip6 saddr == fd00:2::2 ip6 daddr != fd00:2::/60 masquerade',
        'masquerade, a network of one address': 'ip saddr == 10.2.0.2 ip daddr != 10.2.0.2/32 masquerade',
        'masquerade, whatever the network': 'ip saddr == 10.3.0.2 masquerade',
        'masquerade, a comment of 128 bytes': f'masquerade comment "{"x" * 128}"',
        'verdict map': 'ip saddr vmap @owners4',
        'verdict map, IPv6': 'ip6 saddr vmap @owners6',
        'data map': 'meta mark set ip saddr map @marks',
        'named counter': 'counter name "seen"',
        'masquerade, with random ports': 'masquerade random',
    },
}


def masquerade_cases():
    table = MASQUERADE
    yield change('masquerade: table', f'add table {table} {{ comment "Masquerading"; }}')
    yield change('masquerade: chain', f'add chain {table} masq_checks {{ comment "checks"; }}')
    yield change('masquerade: base chain',
                 f'add chain {table} postrouting {{ type nat hook postrouting priority srcnat; }}')
    yield change('masquerade: subnet chain', f'add chain {table} subnet')
    for name, options in {
        'verdict map': 'map owners4 { type ipv4_addr : verdict; comment "by address"; }',
        'verdict map, IPv6': 'map owners6 { type ipv6_addr : verdict; }',
        'data map of intervals that counts': 'map marks { type ipv4_addr : mark; flags interval; counter; }',
        'set of names with timeouts': 'set names { type ifname; flags timeout; timeout 2h; size 100; }',
        'set that rules fill': 'set ports { type inet_service; flags dynamic; size 100; }',
        'constant set': 'set fixed { type ether_addr; flags constant; }',
        'set of protocols': 'set protocols { type inet_proto; }',
        'set of marks': 'set marked { type mark; }',
    }.items():
        yield change(f'masquerade: {name}', f'add {options.replace(" ", f" {table} ", 1)}')
    yield change('masquerade: counter',
                 f'add table {table} {{ counter seen {{ comment "some"; packets 3 bytes 400 }}; }}')
    for chain, rules in MASQUERADE_RULES.items():
        for name, rule in rules.items():
            yield change(f'masquerade, {chain}: {name}', f'add rule {table} {chain} {rule}')
    for name, elements in {
        'verdicts': 'owners4 { 10.0.0.2 comment "an owner" : goto subnet, 10.0.0.3 : jump subnet, 10.0.0.4 : drop }',
        'verdicts, IPv6': 'owners6 { fd00::2 : goto subnet }',
        'data of an interval': 'marks { 10.0.0.4-10.0.0.9 comment "six" : 7 }',
        'elements with timeouts': 'names { "eth0" timeout 1h, "eth1" comment "second" }',
    }.items():
        yield change(f'masquerade: {name}', f'add element {table} {elements}')
    yield change('masquerade: delete a verdict', f'delete element {table} owners4 {{ 10.0.0.3 : jump subnet }}')
    yield change('masquerade: two elements, one of which is there: EEXIST',
                 f'create element {table} owners4 {{ 10.0.0.7 : drop, 10.0.0.4 : drop }}')
    yield listing('masquerade: list in JSON', '-j', 'list', 'ruleset')
    yield listing('masquerade: get an element in JSON', '-j', 'get', 'element', *table.split(), 'owners4',
                  '{ 10.0.0.2 }')
    yield change('masquerade: delete a counter in use: EBUSY', f'delete counter {table} seen')
    yield change('masquerade: delete the table', f'delete table {table}')


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
    yield from masquerade_cases()


write(cases())

"""Captures of `ip xfrm`: SAs and policies of every kind that xfrmesh writes or reads, as ip sends them, and as the
kernel gives them back together with what ip printed of them.

  npm run --silent lab -- unshare -n python3 -B test/data/capture_xfrm.py > test/data/xfrm.json

The cases run in order in one network namespace. Each kind of SA and policy is added under a name of its own; then one
dump holds all of them, the newest first. The two bytes of padding in struct xfrm_encap_tmpl, after the ports, are what
ip's stack held: compare the fields.

needs: iproute2 iputils-ping strace, a kernel with ESP, GCM, ChaCha20-Poly1305 and dummy devices
"""
import shlex
import subprocess

from capture import run, write


def key(first, count):
    """count bytes that count up from the first: known in a dump, never a real key."""
    return '0x' + bytes((first + i) % 256 for i in range(count)).hex()


AES128, AES192, AES256, CHACHA = key(0x10, 20), key(0x10, 28), key(0x10, 36), key(0x40, 36)
GCM = f'aead rfc4106(gcm(aes)) {AES128} 64'
V4, V6 = 'src 10.0.0.1 dst 10.0.0.2', 'src fd00::1 dst fd00::2'

STATES = {
    'AES-GCM, ICV 64': f'{V4} mode transport reqid 5785165 {GCM}',
    'AES-GCM, ICV 96, 192-bit key, tunnel': f'{V4} mode tunnel aead rfc4106(gcm(aes)) {AES192} 96',
    'AES-GCM, ICV 128, 256-bit key': f'{V4} mode transport aead rfc4106(gcm(aes)) {AES256} 128',
    'ChaCha20-Poly1305': f'{V4} mode transport aead rfc7539esp(chacha20,poly1305) {CHACHA} 128',
    'HMAC-SHA-256 cut to 128 bits, AES-CBC':
        f'{V4} mode tunnel auth-trunc hmac(sha256) {key(0xa0, 32)} 128 enc cbc(aes) {key(0xe0, 16)}',
    'HMAC-SHA-1, AES-CBC': f'{V4} mode transport auth hmac(sha1) {key(0xa0, 20)} enc cbc(aes) {key(0xe0, 32)}',
    'mark': f'{V4} mode transport {GCM} mark 0x58464d',
    'mark and mask': f'{V4} mode transport {GCM} mark 0x464d mask 0xffff',
    'output mark': f'{V4} mode transport {GCM} output-mark 0x10',
    'output mark and mask': f'{V4} mode transport {GCM} output-mark 0x10 mask 0xff',
    'interface id': f'{V4} mode tunnel {GCM} if_id 0x2a',
    'ESP in UDP': f'{V4} mode transport {GCM} encap espinudp 4500 4501 0.0.0.0',
    'replay window 32': f'{V4} mode transport {GCM} replay-window 32',
    'replay window 64': f'{V4} mode transport {GCM} replay-window 64',
    'replay window 1024': f'{V4} mode transport {GCM} replay-window 1024',
    'replay window 32, ESN': f'{V4} mode transport {GCM} replay-window 32 flag esn',
    'replay window 4096, ESN': f'{V4} mode transport {GCM} replay-window 4096 flag esn',
    'sequence numbers': f'{V4} mode transport {GCM} replay-window 32 replay-seq 0x1234 replay-oseq 0x5678',
    'sequence numbers, ESN': f'{V4} mode transport {GCM} replay-window 64 flag esn '
                             'replay-seq 0x1234 replay-seq-hi 0x1 replay-oseq 0x5678 replay-oseq-hi 0x2',
    **{f'flag {flag}': f'{V4} mode tunnel {GCM} flag {flag}'
       for flag in ('noecn', 'decap-dscp', 'nopmtudisc', 'wildrecv', 'icmp', 'af-unspec', 'align4')},
    'two flags': f'{V4} mode tunnel {GCM} flag noecn nopmtudisc',
    'extra flag dont-encap-dscp': f'{V4} mode tunnel {GCM} extra-flag dont-encap-dscp',
    'extra flag oseq-may-wrap': f'{V4} mode transport {GCM} extra-flag oseq-may-wrap',
    'limits of bytes and packets': f'{V4} mode transport {GCM} limit byte-soft 1000000 limit byte-hard 2000000 '
                                   'limit packet-soft 3000 limit packet-hard 4000',
    'limits of time': f'{V4} mode transport {GCM} limit time-soft 80000 limit time-hard 86400 '
                      'limit time-use-soft 40000 limit time-use-hard 43200',
    'selector of prefixes': f'{V4} mode tunnel {GCM} sel src 10.1.0.0/16 dst 10.2.3.0/24',
    'selector of ports':
        f'{V4} mode transport {GCM} sel src 10.0.0.1/32 dst 10.0.0.2/32 proto udp sport 49152 dport 4789',
    'selector of type and code': f'{V4} mode transport {GCM} sel proto icmp type 8 code 0',
    'selector of a device': f'{V4} mode transport {GCM} sel dev d0',
    'sequence of the acquire it answers': f'{V4} mode transport {GCM} seq 77',
    'IPv6': f'{V6} mode transport reqid 5785165 {GCM}',
    'IPv6, tunnel, selector of prefixes': f'{V6} mode tunnel {GCM} sel src fd00:1::/48 dst fd00:2::/64',
    'IPv6, ESP in UDP': f'{V6} mode transport {GCM} encap espinudp 4500 4500 ::',
    'IPv6, mark, window, ESN': f'{V6} mode transport {GCM} mark 0x1 mask 0x1 replay-window 128 flag esn',
    'IPv4 in IPv6': f'{V6} mode tunnel {GCM} sel src 10.1.0.0/16 dst 10.2.0.0/16',
}

TEMPLATE = 'tmpl src 10.0.0.1 dst 10.0.0.2 proto esp'
SHARED = 'proto esp reqid 5785165 mode transport'
POLICIES = {
    'out, per peer': 'src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 4789 dir out mark 0xd0c4e3 mask 0xffffffff '
                     f'{TEMPLATE} spi 0x1001 reqid 13681891 mode transport',
    'out, shared by all peers': 'src 10.0.0.1/32 dst 0.0.0.0/0 proto udp dport 4789 dir out mark 0x58464d '
                                f'tmpl src 0.0.0.0 dst 0.0.0.0 {SHARED}',
    'out, shared by all peers, IPv6': 'src fd00::1/128 dst ::/0 proto udp dport 4789 dir out mark 0x58464d '
                                      f'tmpl src :: dst :: {SHARED}',
    'out, exclusive':
        f'src 10.0.0.1/32 dst 0.0.0.0/0 proto udp dport 4789 dir out tmpl src 0.0.0.0 dst 0.0.0.0 {SHARED}',
    'in, exclusive': f'src 0.0.0.0/0 dst 10.0.0.1/32 proto udp dport 4789 dir in tmpl src 0.0.0.0 dst 0.0.0.0 {SHARED}',
    'in, exclusive, IPv6': f'src ::/0 dst fd00::1/128 proto udp dport 4789 dir in tmpl src :: dst :: {SHARED}',
    'out, tunnel': f'src 10.1.0.0/16 dst 10.2.0.0/16 dir out {TEMPLATE} spi 0x1002 reqid 1 mode tunnel',
    'in, tunnel': 'src 10.2.0.0/16 dst 10.1.0.0/16 dir in tmpl src 10.0.0.2 dst 10.0.0.1 proto esp reqid 1 mode tunnel',
    'fwd, tunnel':
        'src 10.2.0.0/16 dst 10.1.0.0/16 dir fwd tmpl src 10.0.0.2 dst 10.0.0.1 proto esp reqid 1 mode tunnel',
    'out, tunnel, IPv6':
        'src fd00:1::/48 dst fd00:2::/64 dir out tmpl src fd00::1 dst fd00::2 proto esp reqid 1 mode tunnel',
    'out, tunnel, IPv4 in IPv6':
        'src 10.3.0.0/16 dst 10.4.0.0/16 dir out tmpl src fd00::1 dst fd00::2 proto esp mode tunnel',
    'block': 'src 10.5.0.0/16 dst 10.6.0.0/16 dir out action block',
    'allow, no template': 'src 10.5.0.0/16 dst 10.7.0.0/16 dir out',
    'priority': f'src 10.5.0.0/16 dst 10.8.0.0/16 dir out priority 2147483648 {TEMPLATE} mode transport',
    'mark and mask': f'src 10.5.0.0/16 dst 10.9.0.0/16 dir out mark 0x464d mask 0xffff {TEMPLATE} mode transport',
    'interface id': f'src 10.5.0.0/16 dst 10.10.0.0/16 dir out if_id 0x2a {TEMPLATE} mode tunnel',
    'level use': f'src 10.5.0.0/16 dst 10.11.0.0/16 dir in {TEMPLATE} mode transport level use',
    'two templates, one optional':
        'src 10.5.0.0/16 dst 10.12.0.0/16 dir in '
        f'{TEMPLATE} reqid 1 mode tunnel level required {TEMPLATE} reqid 2 mode transport level use',
    'two templates, tunnel in transport':
        'src 10.5.0.0/16 dst 10.13.0.0/16 dir out '
        f'{TEMPLATE} reqid 1 mode tunnel {TEMPLATE} reqid 2 mode transport',
    'ports': f'src 10.5.0.0/16 dst 10.14.0.0/16 proto tcp sport 1024 dport 443 dir out {TEMPLATE} mode transport',
    'type and code': f'src 10.5.0.0/16 dst 10.15.0.0/16 proto icmp type 3 code 4 dir out {TEMPLATE} mode transport',
    'type and code, IPv6': 'src fd00:5::/32 dst fd00:6::/32 proto ipv6-icmp type 135 code 0 dir out action allow',
    'key of GRE': f'src 10.5.0.0/16 dst 10.16.0.0/16 proto gre key 66051 dir out {TEMPLATE} mode transport',
    'device': f'src 10.5.0.0/16 dst 10.17.0.0/16 dev d0 dir out {TEMPLATE} mode transport',
    'flags': f'src 10.5.0.0/16 dst 10.18.0.0/16 dir out flag localok icmp {TEMPLATE} mode transport',
    'index': f'src 10.5.0.0/16 dst 10.20.0.0/16 dir out index 8193 {TEMPLATE} mode transport',
    'limits': f'src 10.5.0.0/16 dst 10.19.0.0/16 dir out limit byte-soft 1000000 limit byte-hard 2000000 '
              f'limit packet-soft 3000 limit packet-hard 4000 limit time-soft 80000 limit time-hard 86400 '
              f'limit time-use-soft 40000 limit time-use-hard 43200 {TEMPLATE} mode transport',
}


def ip(name, words):
    return run(name, ['ip', *words.split()], 'NETLINK_XFRM')


def set_up(*commands):
    for command in commands:
        subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL)


def state_cases():
    yield ip('list no state', '-d -s xfrm state list')
    yield ip('count no state', '-s xfrm state count')
    for number, (name, rest) in enumerate(STATES.items()):
        family, rest = rest.split(' mode ')
        yield ip(f'state: {name}', f'xfrm state add {family} proto esp spi 0x{0x1001 + number:x} mode {rest}')
    yield ip('list every state', '-d -s xfrm state list')
    yield ip('list states between two addresses', f'-d -s xfrm state list {V6} proto esp')
    yield ip('count states', '-s xfrm state count')

    marked = 0x1001 + list(STATES).index('mark and mask')
    encapsulated = 0x1001 + list(STATES).index('ESP in UDP')
    yield ip('get a state', f'-d -s xfrm state get {V4} proto esp spi 0x1001')
    yield ip('get a state by its mark', f'-d -s xfrm state get {V4} proto esp spi 0x{marked:x} mark 0x464d mask 0xffff')
    yield ip('get an IPv6 state', f'-d -s xfrm state get {V6} proto esp spi 0x{0x1001 + list(STATES).index("IPv6"):x}')
    yield ip('get a state that is not there: ESRCH', f'xfrm state get {V4} proto esp spi 0x999')
    yield ip('update the ports of ESP in UDP',
             f'xfrm state update {V4} proto esp spi 0x{encapsulated:x} mode transport {GCM} '
             'encap espinudp 4600 4601 0.0.0.0')
    yield ip('get the state with new ports', f'-d -s xfrm state get {V4} proto esp spi 0x{encapsulated:x}')
    yield ip('update limits', f'xfrm state update {V4} proto esp spi 0x1001 mode transport reqid 5785165 {GCM} '
             'limit packet-hard 100000')
    yield ip('get the state with new limits', f'-d -s xfrm state get {V4} proto esp spi 0x1001')
    yield ip('update a state that is not there: ESRCH',
             f'xfrm state update {V4} proto esp spi 0x999 mode transport {GCM}')
    yield ip('add a state that is there: EEXIST', f'xfrm state add {V4} proto esp spi 0x1001 mode transport {GCM}')
    yield ip('add a state of an unknown algorithm: ENOSYS',
             f'xfrm state add {V4} proto esp spi 0x998 mode transport aead rfc4106(none) {AES128} 64')
    yield ip('add a state with a key too short: EINVAL',
             f'xfrm state add {V4} proto esp spi 0x998 mode transport aead rfc4106(gcm(aes)) {key(0x10, 8)} 64')
    yield ip('add a state with an ICV of 80 bits: ENOSYS',
             f'xfrm state add {V4} proto esp spi 0x998 mode transport aead rfc4106(gcm(aes)) {AES128} 80')
    yield ip('delete a state', f'xfrm state delete {V4} proto esp spi 0x1001')
    yield ip('delete a state by its mark', f'xfrm state delete {V4} proto esp spi 0x{marked:x} mark 0x464d mask 0xffff')
    yield ip('delete an IPv6 state', f'xfrm state delete {V6} proto esp spi 0x{0x1001 + list(STATES).index("IPv6"):x}')
    yield ip('delete a state that is not there: ESRCH', f'xfrm state delete {V4} proto esp spi 0x1001')
    yield ip('flush states', 'xfrm state flush')


def policy_cases():
    yield ip('list no policy', '-d -s xfrm policy list')
    for name, rest in POLICIES.items():
        yield ip(f'policy: {name}', f'xfrm policy add {rest}')
    yield ip('list every policy', '-d -s xfrm policy list')
    yield ip('count policies', 'xfrm policy count')
    yield ip('count policies and tell the sizes of the tables', '-s xfrm policy count')

    per_peer = POLICIES['out, per peer'].split(' tmpl ')[0]
    shared6 = POLICIES['out, shared by all peers, IPv6'].split(' tmpl ')[0]
    with_interface = POLICIES['interface id'].split(' tmpl ')[0]
    yield ip('get a policy', f'-d -s xfrm policy get {per_peer}')
    yield ip('get a policy by its index', '-d -s xfrm policy get index 8193 dir out')
    yield ip('get a policy that is not there: ENOENT', 'xfrm policy get src 10.99.0.0/16 dst 10.98.0.0/16 dir out')
    yield ip('update a policy', f'xfrm policy update {per_peer} {TEMPLATE} spi 0x2002 reqid 13681891 mode transport')
    yield ip('update a policy that is not there',
             f'xfrm policy update src 10.99.0.0/16 dst 10.97.0.0/16 dir out {TEMPLATE} mode transport')
    yield ip('add a policy that is there: EEXIST', f'xfrm policy add {per_peer} {TEMPLATE} mode transport')
    yield ip('add a policy of too many templates: EINVAL',
             f'xfrm policy add src 10.99.0.0/16 dst 10.96.0.0/16 dir out {f"{TEMPLATE} mode transport " * 6}'
             f'{TEMPLATE} mode tunnel')
    yield ip('delete a policy', f'xfrm policy delete {per_peer}')
    yield ip('delete an IPv6 policy', f'xfrm policy delete {shared6}')
    yield ip('delete a policy by its interface id', f'xfrm policy delete {with_interface}')
    yield ip('delete a policy by its index', 'xfrm policy delete index 8193 dir out')
    yield ip('delete a policy that is not there: ENOENT', f'xfrm policy delete {per_peer}')
    yield ip('flush policies', 'xfrm policy flush')


def traffic_cases():
    """SAs and a policy that packets went through: counters and times of use above zero."""
    set_up('ip address add 10.0.0.1/24 dev d0',
           'ip neighbour add 10.0.0.2 lladdr 02:00:00:00:00:02 dev d0',
           'ip xfrm policy add src 10.0.0.1/32 dst 10.0.0.2/32 proto icmp dir out '
           f'tmpl src 0.0.0.0 dst 0.0.0.0 {SHARED}',
           f'ip xfrm state add {V4} proto esp spi 0x3001 reqid 5785165 mode transport replay-window 32 '
           f"aead 'rfc4106(gcm(aes))' {AES128} 64")
    subprocess.run(['ping', '-c', '3', '-i', '0.2', '-W', '1', '10.0.0.2'], stdout=subprocess.DEVNULL)
    yield ip('list a state in use', '-d -s xfrm state list')
    yield ip('list a policy in use', '-d -s xfrm policy list')


def cases():
    set_up('ip link add d0 type dummy', 'ip link set d0 up')
    yield from state_cases()
    yield from policy_cases()
    yield from traffic_cases()


write(cases())

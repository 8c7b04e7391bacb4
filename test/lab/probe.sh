#!/usr/bin/env bash
# Fails unless this kernel, in the present network namespace, has all that the kernel tests ask of one.
set -e

key=0x000102030405060708090a0b0c0d0e0f10111213
for ends in '192.0.2.1 192.0.2.2' '2001:db8::1 2001:db8::2'; do
  read -r source destination <<<"$ends"
  ip xfrm state add src "$source" dst "$destination" proto esp spi 0x1000 mode transport \
    aead 'rfc4106(gcm(aes))' "$key" 64
done
ip link add name v0 type vxlan id 1 dstport 4789 local 192.0.2.1
ip link add name p0 type veth peer name p1
ip link add name b0 type bridge
ip link add name n0 type nlmon
ip link add name x0 type xfrm dev lo if_id 1
nft -f - <<'RULES'
table inet probe {
  chain guard { type filter hook input priority raw; ipsec in reqid 1 drop; }
  chain source { type nat hook postrouting priority srcnat; masquerade; }
}
RULES

// Command docker programs SAs and policies as the encrypted overlay driver of Docker does, call by call: one object and
// one round trip at a time through github.com/vishvananda/netlink, with a look-up before each add and each delete. It is
// the yardstick of the parity and interoperation tests and of the benchmark. The order of the calls and their parameters
// follow daemon/libnetwork/drivers/overlay/encryption.go of github.com/moby/moby (read in August 2026). Unlike Docker,
// which logs what the kernel refuses and goes on, it stops: a yardstick that silently did less would measure nothing.
//
// It reads commands from stdin, one JSON object a line, in the network namespace that it was started in:
//
//	{"op":"setKeys","keys":[{"tag":1,"value":"00112233445566778899aabbccddeeff"}]}   first is primary; forgets all peers
//	{"op":"addPeers","peers":["10.0.0.2"]}                                        counted: n adds need n removals
//	{"op":"addPeers","range":{"first":"10.1.0.1","count":1000}}
//	{"op":"updateKeys","add":{"tag":2,"value":"…"},"primary":2,"prune":1}         any combination, for every peer
//	{"op":"removePeers","peers":["10.0.0.2"]}                                     or a range
//	{"op":"clean"}                                                                deletes all of the mark, forgets all peers
//	{"op":"compare"}                                                              lists all, and fails unless each peer has what it should
//
// With --without-states it leaves the SAs out, and their look-ups: for kernels that have no ESP.
//
// It answers each command with one line: {"op":…,"operations":…,"lookups":…,"elapsedMs":…}. Operations are the adds,
// updates and deletes that the kernel took; lookups are the reads before them, a dump counting as one. The first command
// that fails is answered with {"op":…,"error":…}, and the exit status is 1.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

type key struct {
	tag   uint32
	value []byte
}

// spis are one peer's two SPIs under one key: forward for what this node sends, reverse for what it receives.
type spis struct{ forward, reverse int }

// peer holds its SPIs in the order of the driver's keys, so that the first is the primary's.
type peer struct {
	spis  []spis
	count int
}

type driver struct {
	kernel           *netlink.Handle
	local, advertise netip.Addr
	port             int
	mark             uint32
	keys             []key
	withoutStates    bool
	peers            map[netip.Addr]peer
	changes, lookups int
}

// deriveSPI gives the SPI of packets from src to dst under the key with this tag: FNV-1a over both addresses in 16-byte
// form, the tag between.
func deriveSPI(src, dst netip.Addr, tag uint32) int {
	var input [36]byte
	from, to := src.As16(), dst.As16()
	copy(input[:16], from[:])
	binary.BigEndian.PutUint32(input[16:20], tag)
	copy(input[20:], to[:])
	hash := fnv.New32a()
	hash.Write(input[:])
	return int(hash.Sum32())
}

func (d *driver) spisOf(remote netip.Addr, tag uint32) spis {
	return spis{forward: deriveSPI(d.advertise, remote, tag), reverse: deriveSPI(remote, d.advertise, tag)}
}

func (d *driver) state(src, dst netip.Addr, spi int) *netlink.XfrmState {
	return &netlink.XfrmState{Src: src.AsSlice(), Dst: dst.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Spi: spi,
		Mode: netlink.XFRM_MODE_TRANSPORT, Reqid: int(d.mark)}
}

func (d *driver) policy(remote netip.Addr, spi int) *netlink.XfrmPolicy {
	host := func(a netip.Addr) *net.IPNet {
		return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	}
	return &netlink.XfrmPolicy{Src: host(d.local), Dst: host(remote), Dir: netlink.XFRM_DIR_OUT,
		Proto: syscall.IPPROTO_UDP, DstPort: d.port, Mark: &netlink.XfrmMark{Value: d.mark, Mask: math.MaxUint32},
		Tmpls: []netlink.XfrmPolicyTmpl{{Src: d.local.AsSlice(), Dst: remote.AsSlice(), Proto: netlink.XFRM_PROTO_ESP,
			Mode: netlink.XFRM_MODE_TRANSPORT, Spi: spi, Reqid: int(d.mark)}}}
}

// took counts a change that the kernel made, or names the one that it refused.
func (d *driver) took(err error, change string, subject fmt.Stringer) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", change, subject, err)
	}
	d.changes++
	return nil
}

// exists tells a look-up that found nothing (absent) from one that failed.
func (d *driver) exists(err, absent error) (bool, error) {
	d.lookups++
	if errors.Is(err, absent) {
		return false, nil
	}
	return err == nil, err
}

func (d *driver) addState(src, dst netip.Addr, spi int, k key) error {
	if d.withoutStates {
		return nil
	}
	sa := d.state(src, dst, spi)
	salted := binary.BigEndian.AppendUint32(append([]byte(nil), k.value...), uint32(spi))
	sa.Aead = &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: salted, ICVLen: 64}
	_, err := d.kernel.XfrmStateGet(sa)
	if found, err := d.exists(err, syscall.ESRCH); found || err != nil {
		return err
	}
	return d.took(d.kernel.XfrmStateAdd(sa), "add state", stateName{sa})
}

func (d *driver) deleteState(src, dst netip.Addr, spi int) error {
	if d.withoutStates {
		return nil
	}
	sa := d.state(src, dst, spi)
	_, err := d.kernel.XfrmStateGet(sa)
	if found, err := d.exists(err, syscall.ESRCH); !found || err != nil {
		return err
	}
	return d.took(d.kernel.XfrmStateDel(sa), "delete state", stateName{sa})
}

func (d *driver) addPolicy(sp *netlink.XfrmPolicy) error {
	_, err := d.kernel.XfrmPolicyGet(sp)
	if found, err := d.exists(err, syscall.ENOENT); found || err != nil {
		return err
	}
	return d.took(d.kernel.XfrmPolicyAdd(sp), "add policy", sp)
}

func (d *driver) deletePolicy(sp *netlink.XfrmPolicy) error {
	_, err := d.kernel.XfrmPolicyGet(sp)
	if found, err := d.exists(err, syscall.ENOENT); !found || err != nil {
		return err
	}
	return d.took(d.kernel.XfrmPolicyDel(sp), "delete policy", sp)
}

// stateName prints an SA without its key.
type stateName struct{ *netlink.XfrmState }

func (s stateName) String() string {
	return fmt.Sprintf("src %s dst %s spi 0x%08x", s.Src, s.Dst, s.Spi)
}

func (d *driver) setKeys(keys []key) error {
	if err := d.clean(); err != nil {
		return err
	}
	d.keys = keys
	return nil
}

// addPeer programs, for the primary key, both SAs and the policy, and for each further key the reverse SA alone.
func (d *driver) addPeer(remote netip.Addr) error {
	if len(d.keys) == 0 {
		return errors.New("no keys are set")
	}
	p := peer{count: d.peers[remote].count + 1}
	for i, k := range d.keys {
		s := d.spisOf(remote, k.tag)
		p.spis = append(p.spis, s)
		if err := d.addState(remote, d.local, s.reverse, k); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if err := d.addState(d.local, remote, s.forward, k); err != nil {
			return err
		}
		if err := d.addPolicy(d.policy(remote, s.forward)); err != nil {
			return err
		}
	}
	d.peers[remote] = p
	return nil
}

func (d *driver) removePeer(remote netip.Addr) error {
	p, known := d.peers[remote]
	if !known {
		return fmt.Errorf("%s is not a peer", remote)
	}
	if p.count > 1 {
		p.count--
		d.peers[remote] = p
		return nil
	}
	delete(d.peers, remote)
	for i, s := range p.spis {
		if err := d.deleteState(remote, d.local, s.reverse); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if err := d.deleteState(d.local, remote, s.forward); err != nil {
			return err
		}
		if err := d.deletePolicy(d.policy(remote, s.forward)); err != nil {
			return err
		}
	}
	return nil
}

// rotation says what one updateKeys does, as indices into the keys with the added one at the end; -1 for what it does
// not do.
type rotation struct{ added, primary, pruned int }

func (d *driver) updateKeys(add *key, primary, prune *uint32) error {
	keys := d.keys
	r := rotation{-1, -1, -1}
	if add != nil {
		r.added = len(keys)
		keys = append(keys[:len(keys):len(keys)], *add)
	}
	for i, k := range keys {
		if primary != nil && k.tag == *primary {
			r.primary = i
		}
		if prune != nil && k.tag == *prune {
			r.pruned = i
		}
	}
	switch {
	case primary != nil && r.primary < 0:
		return fmt.Errorf("no key has the tag %d, which was to be primary", *primary)
	case prune != nil && r.pruned < 0:
		return fmt.Errorf("no key has the tag %d, which was to be pruned", *prune)
	case prune != nil && r.primary == r.pruned:
		return fmt.Errorf("tag %d was to be primary and pruned at once", *prune)
	case r.pruned == 0 && r.primary < 0:
		return fmt.Errorf("tag %d is primary, and no other was named to follow it", *prune)
	}
	for remote, p := range d.peers {
		all := p.spis
		if r.added >= 0 {
			all = append(all[:len(all):len(all)], d.spisOf(remote, add.tag))
		}
		if err := d.rotate(remote, all, keys, r); err != nil {
			return err
		}
		d.peers[remote] = peer{spis: settle(all, r), count: p.count}
	}
	d.keys = settle(keys, r)
	return nil
}

// rotate makes Docker's changes for one peer in Docker's order: the pruned reverse SA goes, the new one comes, the new
// forward SA comes, the policy points to it, the old forward SA goes.
func (d *driver) rotate(remote netip.Addr, all []spis, keys []key, r rotation) error {
	if r.pruned >= 0 {
		if err := d.deleteState(remote, d.local, all[r.pruned].reverse); err != nil {
			return err
		}
	}
	if r.added >= 0 {
		if err := d.addState(remote, d.local, all[r.added].reverse, keys[r.added]); err != nil {
			return err
		}
	}
	if r.primary <= 0 {
		return nil
	}
	next := all[r.primary].forward
	if err := d.addState(d.local, remote, next, keys[r.primary]); err != nil {
		return err
	}
	sp := d.policy(remote, next)
	if err := d.took(d.kernel.XfrmPolicyUpdate(sp), "update policy", sp); err != nil {
		return err
	}
	return d.deleteState(d.local, remote, all[0].forward)
}

// settle swaps the new primary with the first and takes the pruned one out, wherever the swap left it.
func settle[T any](list []T, r rotation) []T {
	settled := append([]T(nil), list...)
	pruned := r.pruned
	if r.primary > 0 {
		settled[0], settled[r.primary] = settled[r.primary], settled[0]
		if pruned == 0 {
			pruned = r.primary
		}
	}
	if pruned >= 0 {
		settled = append(settled[:pruned], settled[pruned+1:]...)
	}
	return settled
}

// list reads all policies and states.
func (d *driver) list() ([]netlink.XfrmPolicy, []netlink.XfrmState, error) {
	policies, err := d.kernel.XfrmPolicyList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("list policies: %w", err)
	}
	states, err := d.kernel.XfrmStateList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("list states: %w", err)
	}
	d.lookups += 2
	return policies, states, nil
}

// clean deletes every policy whose mark and every SA whose reqid is ours, as Docker does when it starts.
func (d *driver) clean() error {
	policies, states, err := d.list()
	if err != nil {
		return err
	}
	for i := range policies {
		if sp := &policies[i]; sp.Mark != nil && sp.Mark.Value == d.mark {
			if err := d.took(d.kernel.XfrmPolicyDel(sp), "delete policy", sp); err != nil {
				return err
			}
		}
	}
	for i := range states {
		if sa := &states[i]; uint32(sa.Reqid) == d.mark {
			if err := d.took(d.kernel.XfrmStateDel(sa), "delete state", stateName{sa}); err != nil {
				return err
			}
		}
	}
	d.peers = map[netip.Addr]peer{}
	return nil
}

// compare lists all SAs and policies, and looks for those that each peer should have, keys included. It is none of
// Docker's: what one who wrote a reconciliation on the same library would do.
func (d *driver) compare() error {
	policies, states, err := d.list()
	if err != nil {
		return err
	}
	type name struct {
		dst netip.Addr
		spi int
	}
	there := make(map[name]*netlink.XfrmState, len(states))
	for i := range states {
		if sa := &states[i]; uint32(sa.Reqid) == d.mark {
			dst, _ := netip.AddrFromSlice(sa.Dst)
			there[name{dst.Unmap(), sa.Spi}] = sa
		}
	}
	points := make(map[netip.Addr]int, len(policies))
	for i := range policies {
		if sp := &policies[i]; sp.Mark != nil && sp.Mark.Value == d.mark && len(sp.Tmpls) == 1 {
			dst, _ := netip.AddrFromSlice(sp.Dst.IP)
			points[dst.Unmap()] = sp.Tmpls[0].Spi
		}
	}
	check := func(dst netip.Addr, spi int, k key) error {
		sa := there[name{dst, spi}]
		if sa == nil || sa.Aead == nil || !bytes.HasPrefix(sa.Aead.Key, k.value) {
			return fmt.Errorf("the SA to %s of SPI 0x%08x is not as it should be", dst, spi)
		}
		return nil
	}
	for remote, p := range d.peers {
		for i, s := range p.spis {
			if err := check(d.local, s.reverse, d.keys[i]); err != nil {
				return err
			}
		}
		if err := check(remote, p.spis[0].forward, d.keys[0]); err != nil {
			return err
		}
		if points[remote] != p.spis[0].forward {
			return fmt.Errorf("the policy to %s is not as it should be", remote)
		}
	}
	return nil
}

type keyArgument struct {
	Tag   uint32 `json:"tag"`
	Value string `json:"value"`
}

func (k keyArgument) key() (key, error) {
	value, err := hex.DecodeString(k.Value)
	if err != nil {
		return key{}, fmt.Errorf("the value of key %d is not hex", k.Tag)
	}
	return key{k.Tag, value}, nil
}

type command struct {
	Op    string        `json:"op"`
	Keys  []keyArgument `json:"keys"`
	Peers []netip.Addr  `json:"peers"`
	Range *struct {
		First netip.Addr `json:"first"`
		Count int        `json:"count"`
	} `json:"range"`
	Add     *keyArgument `json:"add"`
	Primary *uint32      `json:"primary"`
	Prune   *uint32      `json:"prune"`
}

func (c *command) addresses() []netip.Addr {
	list := c.Peers
	if c.Range != nil {
		for a, i := c.Range.First, 0; i < c.Range.Count; a, i = a.Next(), i+1 {
			list = append(list, a)
		}
	}
	return list
}

// prepare turns a command into the calls that run against the clock.
func (d *driver) prepare(c *command) (func() error, error) {
	each := func(do func(netip.Addr) error) func() error {
		list := c.addresses()
		return func() error {
			for _, a := range list {
				if err := do(a); err != nil {
					return err
				}
			}
			return nil
		}
	}
	switch c.Op {
	case "setKeys":
		var keys []key
		for _, argument := range c.Keys {
			k, err := argument.key()
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
		return func() error { return d.setKeys(keys) }, nil
	case "updateKeys":
		if c.Add == nil {
			return func() error { return d.updateKeys(nil, c.Primary, c.Prune) }, nil
		}
		add, err := c.Add.key()
		return func() error { return d.updateKeys(&add, c.Primary, c.Prune) }, err
	case "addPeers":
		return each(d.addPeer), nil
	case "removePeers":
		return each(d.removePeer), nil
	case "clean":
		return d.clean, nil
	case "compare":
		return d.compare, nil
	}
	return nil, fmt.Errorf("unknown op %q", c.Op)
}

type answer struct {
	Op         string  `json:"op"`
	Operations int     `json:"operations"`
	Lookups    int     `json:"lookups"`
	ElapsedMs  float64 `json:"elapsedMs"`
}

func (d *driver) run(line []byte) (answer, error) {
	var c command
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return answer{}, err
	}
	calls, err := d.prepare(&c)
	if err != nil {
		return answer{Op: c.Op}, err
	}
	d.changes, d.lookups = 0, 0
	start := time.Now()
	err = calls()
	elapsed := time.Since(start)
	return answer{c.Op, d.changes, d.lookups, float64(elapsed.Microseconds()) / 1000}, err
}

func main() {
	d := &driver{peers: map[netip.Addr]peer{}, mark: 0xD0C4E3}
	flag.IntVar(&d.port, "port", 4789, "UDP destination port of VXLAN")
	flag.BoolVar(&d.withoutStates, "without-states", false, "leave SAs out")
	flag.TextVar(&d.local, "local", netip.Addr{}, "outer address on this node (required)")
	flag.TextVar(&d.advertise, "advertise", netip.Addr{}, "address that peers know this node by (default: the local one)")
	flag.Func("mark", "mark and reqid, decimal or 0x… (default 0xD0C4E3)", func(s string) error {
		mark, err := strconv.ParseUint(s, 0, 32)
		d.mark = uint32(mark)
		return err
	})
	flag.Parse()
	if !d.local.IsValid() || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if !d.advertise.IsValid() {
		d.advertise = d.local
	}
	out := json.NewEncoder(os.Stdout)
	refuse := func(op string, err error) {
		out.Encode(struct {
			Op    string `json:"op"`
			Error string `json:"error"`
		}{op, err.Error()})
		os.Exit(1)
	}
	var err error
	if d.kernel, err = netlink.NewHandle(syscall.NETLINK_XFRM); err != nil {
		refuse("open", err)
	}
	d.kernel.SetSocketTimeout(3 * time.Second)
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 64<<20)
	for input.Scan() {
		if line := bytes.TrimSpace(input.Bytes()); len(line) > 0 {
			result, err := d.run(line)
			if err != nil {
				refuse(result.Op, err)
			}
			out.Encode(result)
		}
	}
	if err := input.Err(); err != nil {
		refuse("read", err)
	}
}

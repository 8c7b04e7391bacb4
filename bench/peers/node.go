// Command node programs SAs and policies between nodes as Cilium's agent does, call by call: for every SA a list of all
// SAs, then an add; for every policy an update; and for every node that goes, lists of all, and a delete for each that is
// its own (pkg/datapath/linux/ipsec/ipsec_linux.go of github.com/cilium/cilium, read in November 2026; its list of SAs is
// kept until the next change, which each add is). Marks, SPIs, keys and policies are Cilium's, over both families. Unlike
// the agent, which logs what the kernel refuses and goes on, it stops: a yardstick that did less would measure nothing.
//
// It reads commands from stdin, one JSON object a line, in the network namespace that it was started in:
//
//	{"op":"upsert","count":1000}    nodes 1 to count: 10.200.x.y and fd00:200::x:y, each with a range of each family
//	{"op":"rotate"}                 the next key for every node, then the old one's SAs and policies go
//	{"op":"remove"}                 every node
//
// and answers each with one line: {"op":…,"operations":…,"lookups":…,"elapsedMs":…}, or {"op":…,"error":…} and exit
// status 1.
//
// Its time grows with the square of the nodes. With "every":20 in a command it does one node in twenty as above, and those
// between off the clock, without a list: what the lists go through is there all the same. elapsedMs is then twenty times
// what those nodes took, and once what is done once for all of them; timedMs is what was measured.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	encrypt, decrypt = 0xE00, 0xD00
	outMask, inMask  = 0xFFFFFF00, 0xFFFF0F00
	reqid            = 1
	bootID           = "00000000-0000-4000-8000-000000000001"
)

type agent struct {
	kernel           *netlink.Handle
	keyID            int
	count            int
	changes, lookups int
	every            int           // of so many nodes one is done as Cilium does it
	bare             bool          // the present one is not: no list for it
	sampled          time.Duration // what those took that were
	filling          time.Duration // what the others took
}

// family is what differs between IPv4 and IPv6.
type family struct {
	local    net.IP
	any      *net.IPNet
	node     func(n int) net.IP
	podRange func(n int) *net.IPNet
}

var families = []family{
	{
		local: net.IPv4(10, 100, 0, 1).To4(),
		any:   &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		node:  func(n int) net.IP { return net.IPv4(10, 200, byte(n>>8), byte(n)).To4() },
		podRange: func(n int) *net.IPNet {
			return &net.IPNet{IP: net.IPv4(11, byte(n>>8), byte(n), 0).To4(), Mask: net.CIDRMask(24, 32)}
		},
	},
	{
		local: net.ParseIP("fd00:100::1"),
		any:   &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		node:  func(n int) net.IP { return net.ParseIP(fmt.Sprintf("fd00:200::%x:%x", n>>8, n&255)) },
		podRange: func(n int) *net.IPNet {
			return &net.IPNet{IP: net.ParseIP(fmt.Sprintf("fd01:%x::", n)), Mask: net.CIDRMask(64, 128)}
		},
	},
}

func (a *agent) took(err error, change string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", change, err)
	}
	a.changes++
	return nil
}

// nodeKey derives the key of a pair of nodes from the shared one.
func nodeKey(keyID int, from, to net.IP) []byte {
	shared := make([]byte, 20)
	for i := range shared {
		shared[i] = byte(keyID*16 + i)
	}
	input := append(append(append(shared, from...), to...), (bootID + bootID)...)
	sum := sha256.Sum256(input)
	return sum[:len(shared)]
}

func outMark(node, keyID int) *netlink.XfrmMark {
	return &netlink.XfrmMark{Value: uint32(node<<16 | keyID<<12 | encrypt), Mask: outMask}
}

func inMark(node int) *netlink.XfrmMark {
	return &netlink.XfrmMark{Value: uint32(node<<16 | decrypt), Mask: inMask}
}

func (a *agent) state(from, to net.IP, mark *netlink.XfrmMark, output uint32) *netlink.XfrmState {
	return &netlink.XfrmState{
		Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: a.keyID, Reqid: reqid,
		ESN: true, ReplayWindow: 1024, Mark: mark, OutputMark: &netlink.XfrmMark{Value: output, Mask: outMask},
		Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: nodeKey(a.keyID, from, to), ICVLen: 128},
	}
}

func (a *agent) outState(f family, n int) *netlink.XfrmState {
	return a.state(f.local, f.node(n), outMark(n, a.keyID), encrypt)
}

func (a *agent) inState(f family, n int) *netlink.XfrmState {
	return a.state(f.node(n), f.local, inMark(n), decrypt)
}

// addState looks through all SAs for one like it, as Cilium does, and adds it.
func (a *agent) addState(state *netlink.XfrmState) error {
	if a.bare {
		return a.took(a.kernel.XfrmStateAdd(state), "add state")
	}
	states, err := a.kernel.XfrmStateList(netlink.FAMILY_ALL)
	a.lookups++
	if err != nil {
		return fmt.Errorf("list states: %w", err)
	}
	for i := range states {
		s := &states[i]
		if s.Spi == state.Spi && s.Src.Equal(state.Src) && s.Dst.Equal(state.Dst) && s.Mark != nil && *s.Mark == *state.Mark {
			return nil
		}
	}
	return a.took(a.kernel.XfrmStateAdd(state), "add state")
}

func template(from, to net.IP, spi, optional int) []netlink.XfrmPolicyTmpl {
	return []netlink.XfrmPolicyTmpl{{Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		Reqid: reqid, Spi: spi, Optional: optional}}
}

func (a *agent) outPolicy(f family, n int) *netlink.XfrmPolicy {
	return &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_OUT, Src: f.any, Dst: f.podRange(n), Mark: outMark(n, a.keyID),
		Tmpls: template(f.local, f.node(n), a.keyID, 0)}
}

// upsert programs one node: in both families the policy that drops, both SAs, and the policies out, in and forward.
func (a *agent) upsert(n int) error {
	for _, f := range families {
		none := net.IP(make([]byte, len(f.local)))
		drop := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_OUT, Src: f.any, Dst: f.any, Action: netlink.XFRM_POLICY_BLOCK,
			Priority: 100, Mark: &netlink.XfrmMark{Value: encrypt, Mask: 0xF00}}
		if err := a.took(a.kernel.XfrmPolicyUpdate(drop), "update policy"); err != nil {
			return err
		}
		if err := a.addState(a.outState(f, n)); err != nil {
			return err
		}
		fwd := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_FWD, Src: f.any, Dst: f.any, Priority: 0xB9F,
			Tmpls: template(none, f.local, 0, 1)}
		in := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_IN, Src: f.any, Dst: f.any,
			Mark: &netlink.XfrmMark{Value: decrypt, Mask: 0xF00}, Tmpls: template(none, f.local, 0, 0)}
		if err := a.addState(a.inState(f, n)); err != nil {
			return err
		}
		for _, sp := range []*netlink.XfrmPolicy{a.outPolicy(f, n), fwd, in} {
			if err := a.took(a.kernel.XfrmPolicyUpdate(sp), "update policy"); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep lists all SAs and policies once, and deletes those chosen.
func (a *agent) sweep(state func(*netlink.XfrmState) bool, policy func(*netlink.XfrmPolicy) bool) error {
	states, err := a.kernel.XfrmStateList(netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list states: %w", err)
	}
	policies, err := a.kernel.XfrmPolicyList(netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list policies: %w", err)
	}
	a.lookups += 2
	for i := range states {
		if state(&states[i]) {
			if err := a.took(a.kernel.XfrmStateDel(&states[i]), "delete state"); err != nil {
				return err
			}
		}
	}
	for i := range policies {
		if policy(&policies[i]) {
			if err := a.took(a.kernel.XfrmPolicyDel(&policies[i]), "delete policy"); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove deletes all of a node's, which it finds in lists of everything.
func (a *agent) remove(n int) error {
	if a.bare {
		return a.removeKnown(n)
	}
	ours := func(m *netlink.XfrmMark) bool { return m != nil && m.Mask>>16 == 0xFFFF && m.Value>>16 == uint32(n) }
	return a.sweep(func(s *netlink.XfrmState) bool { return ours(s.Mark) },
		func(p *netlink.XfrmPolicy) bool { return ours(p.Mark) })
}

func (a *agent) removeKnown(n int) error {
	for _, f := range families {
		for _, state := range []*netlink.XfrmState{a.outState(f, n), a.inState(f, n)} {
			if err := a.took(a.kernel.XfrmStateDel(state), "delete state"); err != nil {
				return err
			}
		}
		if err := a.took(a.kernel.XfrmPolicyDel(a.outPolicy(f, n)), "delete policy"); err != nil {
			return err
		}
	}
	return nil
}

// each does something for every node, and adds up what it takes. Those done as Cilium does them lie in the middle of
// those that they stand for.
func (a *agent) each(do func(n int) error) error {
	for n := 1; n <= a.count; n++ {
		a.bare = n%a.every != a.every/2
		start := time.Now()
		if err := do(n); err != nil {
			return err
		}
		if a.bare {
			a.filling += time.Since(start)
		} else {
			a.sampled += time.Since(start)
		}
	}
	return nil
}

func (a *agent) run(op string, count int) error {
	switch op {
	case "upsert":
		a.count = count
		return a.each(a.upsert)
	case "rotate":
		old := a.keyID
		a.keyID++
		if err := a.each(a.upsert); err != nil {
			return err
		}
		return a.sweep(func(s *netlink.XfrmState) bool { return s.Spi == old }, func(p *netlink.XfrmPolicy) bool {
			return p.Dir == netlink.XFRM_DIR_OUT && len(p.Tmpls) > 0 && p.Tmpls[0].Spi == old
		})
	case "remove":
		return a.each(a.remove)
	}
	return fmt.Errorf("unknown op %q", op)
}

func main() {
	kernel, err := netlink.NewHandle(syscall.NETLINK_XFRM)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	a := &agent{kernel: kernel, keyID: 3, every: 1}
	out := json.NewEncoder(os.Stdout)
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var command struct {
			Op    string `json:"op"`
			Count int    `json:"count"`
			Every int    `json:"every"`
		}
		err := json.Unmarshal(input.Bytes(), &command)
		if err == nil && command.Every > 1 && command.Count%command.Every != 0 {
			err = fmt.Errorf("%d nodes are no multiple of %d", command.Count, command.Every)
		}
		a.changes, a.lookups, a.sampled, a.filling, a.every = 0, 0, 0, 0, max(command.Every, 1)
		start := time.Now()
		if err == nil {
			err = a.run(command.Op, command.Count)
		}
		timed := time.Since(start) - a.filling
		if err != nil {
			out.Encode(map[string]any{"op": command.Op, "error": err.Error()})
			os.Exit(1)
		}
		answer := map[string]any{"op": command.Op, "operations": a.changes, "lookups": a.lookups,
			"elapsedMs": milliseconds(timed + time.Duration(a.every-1)*a.sampled)}
		if a.every > 1 {
			answer["timedMs"] = milliseconds(timed)
		}
		out.Encode(answer)
	}
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}

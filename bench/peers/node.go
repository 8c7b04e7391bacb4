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

// addState looks through all SAs for one like it, as Cilium does, and adds it.
func (a *agent) addState(from, to net.IP, mark *netlink.XfrmMark, output uint32) error {
	states, err := a.kernel.XfrmStateList(netlink.FAMILY_ALL)
	a.lookups++
	if err != nil {
		return fmt.Errorf("list states: %w", err)
	}
	for i := range states {
		s := &states[i]
		if s.Spi == a.keyID && s.Src.Equal(from) && s.Dst.Equal(to) && s.Mark != nil && *s.Mark == *mark {
			return nil
		}
	}
	return a.took(a.kernel.XfrmStateAdd(&netlink.XfrmState{
		Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: a.keyID, Reqid: reqid,
		ESN: true, ReplayWindow: 1024, Mark: mark, OutputMark: &netlink.XfrmMark{Value: output, Mask: outMask},
		Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: nodeKey(a.keyID, from, to), ICVLen: 128},
	}), "add state")
}

func template(from, to net.IP, spi, optional int) []netlink.XfrmPolicyTmpl {
	return []netlink.XfrmPolicyTmpl{{Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		Reqid: reqid, Spi: spi, Optional: optional}}
}

// upsert programs one node: in both families the policy that drops, both SAs, and the policies out, in and forward.
func (a *agent) upsert(n int) error {
	for _, f := range families {
		remote := f.node(n)
		none := net.IP(make([]byte, len(f.local)))
		drop := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_OUT, Src: f.any, Dst: f.any, Action: netlink.XFRM_POLICY_BLOCK,
			Priority: 100, Mark: &netlink.XfrmMark{Value: encrypt, Mask: 0xF00}}
		if err := a.took(a.kernel.XfrmPolicyUpdate(drop), "update policy"); err != nil {
			return err
		}
		if err := a.addState(f.local, remote, outMark(n, a.keyID), encrypt); err != nil {
			return err
		}
		out := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_OUT, Src: f.any, Dst: f.podRange(n), Mark: outMark(n, a.keyID),
			Tmpls: template(f.local, remote, a.keyID, 0)}
		fwd := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_FWD, Src: f.any, Dst: f.any, Priority: 0xB9F,
			Tmpls: template(none, f.local, 0, 1)}
		in := &netlink.XfrmPolicy{Dir: netlink.XFRM_DIR_IN, Src: f.any, Dst: f.any,
			Mark: &netlink.XfrmMark{Value: decrypt, Mask: 0xF00}, Tmpls: template(none, f.local, 0, 0)}
		if err := a.addState(remote, f.local, inMark(n), decrypt); err != nil {
			return err
		}
		for _, sp := range []*netlink.XfrmPolicy{out, fwd, in} {
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

func (a *agent) each(do func(n int) error) error {
	for n := 1; n <= a.count; n++ {
		if err := do(n); err != nil {
			return err
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
		return a.each(func(n int) error {
			ours := func(m *netlink.XfrmMark) bool { return m != nil && m.Mask>>16 == 0xFFFF && m.Value>>16 == uint32(n) }
			return a.sweep(func(s *netlink.XfrmState) bool { return ours(s.Mark) },
				func(p *netlink.XfrmPolicy) bool { return ours(p.Mark) })
		})
	}
	return fmt.Errorf("unknown op %q", op)
}

func main() {
	kernel, err := netlink.NewHandle(syscall.NETLINK_XFRM)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	a := &agent{kernel: kernel, keyID: 3}
	out := json.NewEncoder(os.Stdout)
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var command struct {
			Op    string `json:"op"`
			Count int    `json:"count"`
		}
		err := json.Unmarshal(input.Bytes(), &command)
		a.changes, a.lookups = 0, 0
		start := time.Now()
		if err == nil {
			err = a.run(command.Op, command.Count)
		}
		elapsed := float64(time.Since(start).Microseconds()) / 1000
		if err != nil {
			out.Encode(map[string]any{"op": command.Op, "error": err.Error()})
			os.Exit(1)
		}
		out.Encode(map[string]any{"op": command.Op, "operations": a.changes, "lookups": a.lookups, "elapsedMs": elapsed})
	}
}

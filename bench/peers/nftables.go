// Command nftables programs rules and sets through github.com/google/nftables, as Go's users of it do.
//
// Masquerading, in the manner of the CNI plugins (pkg/ip/ipmasq_nftables_linux.go of github.com/containernetworking/plugins,
// which run nft for it): what a container has is found by its comment among all rules of the chain.
//
// It reads commands from stdin, one JSON object a line, in the network namespace that it was started in:
//
//	{"op":"load","rules":[{"address":"10.1.0.2/16","owner":"…","comment":"…"}]}    table, chains and a rule each
//	{"op":"add","rules":[…]}         what each owner has goes, then a rule each
//	{"op":"remove","rules":[…]}      what each owner has goes
//	{"op":"collect","rules":[…]}     what all other owners have goes
//	{"op":"addNetworks","table":"xfrmesh_1","set":"encrypted-vnis","networks":[4096]}      elements of a set that is there
//	{"op":"removeNetworks","table":"…","set":"…","networks":[4096]}
//	{"op":"deleteTable","table":"…"}
//
// and answers each with one line: {"op":…,"elapsedMs":…}, or {"op":…,"error":…} and exit status 1.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A batch is one send from a socket of the usual buffers: so many rules it holds, and the ack and the echo of each.
const batch = 100

// The list of elements in one message is a nested attribute, and holds 64 KiB.
const elementsInMessage = 2000

type rule struct {
	Address string `json:"address"`
	Owner   string `json:"owner"`
	Comment string `json:"comment"`
}

var (
	table       = &nftables.Table{Family: nftables.TableFamilyINet, Name: "cni_plugins_masquerade"}
	checks      = &nftables.Chain{Table: table, Name: "masq_checks"}
	postrouting = &nftables.Chain{Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource}
)

// comment is the user data that nft shows as one: type, length with its NUL, text.
func comment(text string) []byte {
	return append([]byte{0, byte(len(text) + 1)}, text+"\x00"...)
}

func ofFamily(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}}
}

func field(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func (r rule) expressions() ([]expr.Any, error) {
	ip, subnet, err := net.ParseCIDR(r.Address)
	if err != nil {
		return nil, err
	}
	return append(ofFamily(unix.NFPROTO_IPV4),
		field(12, 4),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip.To4()},
		field(16, 4),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: subnet.Mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: subnet.IP.To4()},
		&expr.Masq{}), nil
}

// base is what the plugins write at each addition.
func base(c *nftables.Conn) {
	c.AddTable(table)
	c.AddChain(checks)
	c.AddChain(postrouting)
	c.FlushChain(postrouting)
	returns := &expr.Verdict{Kind: expr.VerdictReturn}
	c.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: append(ofFamily(unix.NFPROTO_IPV4),
		field(16, 4),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{240, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{224, 0, 0, 0}}, returns)})
	c.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: append(ofFamily(unix.NFPROTO_IPV6),
		field(24, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0xff}}, returns)})
	c.AddRule(&nftables.Rule{Table: table, Chain: postrouting,
		Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: checks.Name}}})
}

func addRules(c *nftables.Conn, rules []rule) error {
	for i, r := range rules {
		expressions, err := r.expressions()
		if err != nil {
			return err
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: checks, Exprs: expressions, UserData: comment(r.Comment)})
		if i%batch == batch-1 {
			if err := c.Flush(); err != nil {
				return err
			}
		}
	}
	return c.Flush()
}

// removeRules deletes the rules whose owners are chosen. What is left of a batch is for the caller to flush.
func removeRules(c *nftables.Conn, chosen func(owner string) bool) error {
	all, err := c.GetRules(table, checks)
	if err != nil {
		return err
	}
	gone := 0
	for _, r := range all {
		// A comment of ours has two halves of 16 digits and a dash.
		if len(r.UserData) < 2+33 || !chosen(string(r.UserData[2:2+33])) {
			continue
		}
		if err := c.DelRule(r); err != nil {
			return err
		}
		if gone++; gone%batch == 0 {
			if err := c.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func masquerade(c *nftables.Conn, op string, rules []rule) error {
	owners := map[string]bool{}
	for _, r := range rules {
		owners[r.Owner] = true
	}
	switch op {
	case "load":
		base(c)
		return addRules(c, rules)
	case "add":
		base(c)
		if err := removeRules(c, func(owner string) bool { return owners[owner] }); err != nil {
			return err
		}
		return addRules(c, rules)
	case "remove":
		if err := removeRules(c, func(owner string) bool { return owners[owner] }); err != nil {
			return err
		}
		return c.Flush()
	default: // collect
		network := rules[0].Owner[:16]
		if err := removeRules(c, func(owner string) bool {
			return strings.HasPrefix(owner, network) && !owners[owner]
		}); err != nil {
			return err
		}
		return c.Flush()
	}
}

// changeNetworks adds or deletes elements, as many at a time as fit.
func changeNetworks(c *nftables.Conn, set *nftables.Set, networks []uint32, change func(*nftables.Set, []nftables.SetElement) error) error {
	for len(networks) > 0 {
		part := networks
		if len(part) > elementsInMessage {
			part = part[:elementsInMessage]
		}
		networks = networks[len(part):]
		elements := make([]nftables.SetElement, len(part))
		for i, vni := range part {
			elements[i].Key = []byte{byte(vni >> 16), byte(vni >> 8), byte(vni)}
		}
		if err := change(set, elements); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
	}
	return nil
}

type command struct {
	Op       string   `json:"op"`
	Rules    []rule   `json:"rules"`
	Table    string   `json:"table"`
	Set      string   `json:"set"`
	Networks []uint32 `json:"networks"`
}

func run(c *nftables.Conn, line command) error {
	other := &nftables.Table{Family: nftables.TableFamilyINet, Name: line.Table}
	set := &nftables.Set{Table: other, Name: line.Set}
	switch line.Op {
	case "load", "add", "remove", "collect":
		return masquerade(c, line.Op, line.Rules)
	case "addNetworks":
		return changeNetworks(c, set, line.Networks, c.SetAddElements)
	case "removeNetworks":
		return changeNetworks(c, set, line.Networks, c.SetDeleteElements)
	case "deleteTable":
		c.DelTable(other)
		return c.Flush()
	}
	return fmt.Errorf("unknown op %q", line.Op)
}

func main() {
	// A socket for each batch: this version leaves what was echoed unread, and a socket that stays fills up with it.
	c, err := nftables.New()
	if err != nil {
		refuse("open", err)
	}
	serve(func(text []byte) (string, func() error, error) {
		var line command
		err := json.Unmarshal(text, &line)
		return line.Op, func() error { return run(c, line) }, err
	})
}

// Command neighbours programs the endpoints of a VXLAN link through github.com/vishvananda/netlink, as its users do: one
// entry and one round trip at a time.
//
// It reads commands from stdin, one JSON object a line, in the network namespace that it was started in:
//
//	{"op":"add","link":"vx0","endpoints":[{"ip":"10.1.0.2","mac":"02:42:0a:01:00:02","vtep":"11.0.0.1"}]}
//	{"op":"move","link":"vx0","endpoints":[…]}      FDB entries alone
//	{"op":"remove","link":"vx0","endpoints":[…]}
//
// and answers each with one line: {"op":…,"elapsedMs":…}, or {"op":…,"error":…} and exit status 1.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
)

type endpoint struct {
	IP   string `json:"ip"`
	MAC  string `json:"mac"`
	VTEP string `json:"vtep"`
}

type command struct {
	Op        string     `json:"op"`
	Link      string     `json:"link"`
	Endpoints []endpoint `json:"endpoints"`
}

// entries are the neighbour and the FDB entry of an endpoint.
func entries(index int, e endpoint) (neighbour, fdb *netlink.Neigh, err error) {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return nil, nil, err
	}
	neighbour = &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(e.IP), HardwareAddr: mac}
	fdb = &netlink.Neigh{LinkIndex: index, Family: syscall.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP(e.VTEP), HardwareAddr: mac}
	return neighbour, fdb, nil
}

func run(handle *netlink.Handle, line command) error {
	link, err := handle.LinkByName(line.Link)
	if err != nil {
		return err
	}
	for _, e := range line.Endpoints {
		neighbour, fdb, err := entries(link.Attrs().Index, e)
		if err != nil {
			return err
		}
		work := []error{}
		switch line.Op {
		case "add":
			work = append(work, handle.NeighSet(fdb), handle.NeighSet(neighbour))
		case "move":
			work = append(work, handle.NeighSet(fdb))
		case "remove":
			work = append(work, handle.NeighDel(neighbour), handle.NeighDel(fdb))
		default:
			return fmt.Errorf("unknown op %q", line.Op)
		}
		for _, err := range work {
			if err != nil {
				return fmt.Errorf("%s: %w", e.IP, err)
			}
		}
	}
	return nil
}

func main() {
	handle, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
	if err != nil {
		refuse("open", err)
	}
	serve(func(text []byte) (string, func() error, error) {
		var line command
		err := json.Unmarshal(text, &line)
		return line.Op, func() error { return run(handle, line) }, err
	})
}

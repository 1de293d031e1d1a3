package upgrade

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// What the tool can know of traffic without anybody's access log, and how
// (section 3.11): each nginx host shows in its connection table whom it talks
// to, and the observed host shows who talks to it. A layer-7 balancer's health
// checks come from the same addresses as its traffic, so from there only a
// connection that lives on from one sample to the next counts as traffic. A
// layer-4 balancer passes its clients' own addresses on: whoever reaches a port
// behind one counts as coming through it.

// balancerPeer is the peer of all connections that come through balancers.
const balancerPeer = "balancer"

// maxTrouble is how many samples in a row may fail, and balancerPatience how
// many times Pace.Observe a layer-7 balancer's traffic is looked for.
const (
	maxTrouble       = 3
	balancerPatience = 5
)

// A flow is one TCP connection as its table shows it.
type flow struct {
	peer  string // who: an SSH target of an nginx host, balancerPeer, or an address
	id    string // address and port of both ends
	open  bool   // can still carry a request
	check bool   // may be a health check
}

// A watch observes the traffic of one host.
type watch struct {
	env    *Env
	cfg    *Config
	host   *link             // the observed host
	ip     string            // its address
	known  map[string]string // address of an nginx host: its SSH target
	behind map[int]passing   // ports that balancers reach from other addresses than a CLB's

	published map[int]map[int][]int // process of a container: its port: the host's
}

// sample reads the tables once.
func (w *watch) sample(ctx context.Context) (map[string]flow, error) {
	out := map[string]flow{}
	add := func(peer string, check bool, c hostinv.Connection) {
		f := flow{peer: peer, check: check, id: fmt.Sprintf("%s:%d-%s:%d", c.LocalIP, c.LocalPort, c.RemoteIP, c.RemotePort), open: c.State != "TIME_WAIT" && c.State != "CLOSE"}
		out[peer+" "+f.id] = f
	}
	for _, n := range w.cfg.Nginx {
		conns, err := hostinv.ListConnections(ctx, w.env.host(n.Host))
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", n.Host, err)
		}
		for _, c := range conns {
			if c.RemoteIP == w.ip && servesPort(w.cfg, c.RemotePort) {
				add(n.Host, false, c)
			}
		}
	}
	conns, err := w.inbound(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range conns {
		switch {
		case isLocal(c.RemoteIP, w.ip):
		case w.known[c.RemoteIP] != "":
			// An nginx host shows open connections at its own end as well. What is
			// left of a short request stands here alone: this end closed first.
			add(w.known[c.RemoteIP], false, c)
		case isBalancer(c.RemoteIP):
			add(balancerPeer, true, c)
		case w.behind[c.LocalPort] != (passing{}):
			// Where a listener passes its clients on, whoever comes is one of them.
			// What an ALB makes may be a health check.
			add(balancerPeer, !w.behind[c.LocalPort].clients, c)
		default:
			add(c.RemoteIP, false, c)
		}
	}
	return out, nil
}

// inbound lists the connections to the host's services, those of containers
// included: a published port is translated on the way into the container's
// network namespace, and the host's own table does not show it. A container's
// port is turned back into the one it is published as.
func (w *watch) inbound(ctx context.Context) ([]hostinv.Connection, error) {
	conns, err := hostinv.ListConnections(ctx, w.host, slices.Sorted(maps.Keys(w.published))...)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", w.host.target, err)
	}
	var out []hostinv.Connection
	for _, c := range conns {
		if c.PID != 0 {
			ports := w.published[c.PID][c.LocalPort]
			i := slices.IndexFunc(ports, func(p int) bool { return servesPort(w.cfg, p) })
			if i < 0 || sameBridge(c.LocalIP, c.RemoteIP) {
				continue // the container's own client, or its neighbour's; clients keep their address on the way in
			}
			c.LocalIP, c.LocalPort = w.ip, ports[i]
		}
		if servesPort(w.cfg, c.LocalPort) {
			out = append(out, c)
		}
	}
	return out, nil
}

// sameBridge tells whether two addresses are on one container network:
// Docker's bridges are of /16 by default, and never narrower than that here,
// where a mistake would only hide a neighbour.
func sameBridge(a, b string) bool {
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	if err1 != nil || err2 != nil || !x.Is4() {
		return false
	}
	p, err := x.Prefix(16)
	return err == nil && p.Contains(y)
}

// publishedPorts tells for each running container, by its process, which of
// its ports are published as which of the host's.
func publishedPorts(inv *hostinv.Inventory) map[int]map[int][]int {
	out := map[int]map[int][]int{}
	for _, c := range inv.Containers {
		for _, p := range c.Ports {
			if c.PID == 0 || p.Proto != "tcp" {
				continue
			}
			if out[c.PID] == nil {
				out[c.PID] = map[int][]int{}
			}
			out[c.PID][p.ContainerPort] = append(out[c.PID][p.ContainerPort], p.HostPort)
		}
	}
	return out
}

// traffic gives the flows of now that prove requests since before.
func traffic(before, now map[string]flow) map[string]flow {
	out := map[string]flow{}
	for k, f := range now {
		b, seen := before[k]
		if f.check {
			if seen && b.open && f.open {
				out[k] = f
			}
		} else if f.open || !seen {
			out[k] = f
		}
	}
	return out
}

// waitSilence blocks until Pace.Observe samples in a row show no traffic of
// the peers that count (nil: all).
func (w *watch) waitSilence(ctx context.Context, a *engine.Act, count func(peer string) bool) (Silence, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Pace.Timeout)
	defer cancel()
	t := time.NewTicker(w.cfg.Pace.Sample)
	defer t.Stop()
	before, err := w.sample(ctx)
	if err != nil {
		return Silence{}, err
	}
	quiet, samples, trouble := 0, 1, 0
	var last map[string]flow
	for {
		select {
		case <-ctx.Done():
			return Silence{}, fmt.Errorf("%s still gets traffic: %s: %w", w.ip, describe(last), ctx.Err())
		case <-t.C:
		}
		now, err := w.sample(ctx)
		if ctx.Err() != nil {
			continue // said above, with what was seen last
		}
		if err != nil {
			// One lost connection to one host is no traffic and no silence.
			if quiet, trouble = 0, trouble+1; trouble > maxTrouble {
				return Silence{}, err
			}
			continue
		}
		trouble = 0
		samples++
		last = traffic(before, now)
		for k, f := range last {
			if count != nil && !count(f.peer) {
				delete(last, k)
			}
		}
		if before = now; len(last) > 0 {
			if quiet = 0; samples%10 == 0 {
				a.Progress("%s still gets traffic: %s", w.ip, describe(last))
			}
			continue
		}
		if quiet++; quiet >= w.cfg.Pace.Observe {
			return Silence{Host: w.ip, Samples: samples, Quiet: quiet}, nil
		}
	}
}

// waitArrival blocks until every peer of want has been seen to send traffic.
func (w *watch) waitArrival(ctx context.Context, a *engine.Act, want []string) (Arrival, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Pace.Timeout)
	defer cancel()
	t := time.NewTicker(w.cfg.Pace.Sample)
	defer t.Stop()
	before, err := w.sample(ctx)
	if err != nil {
		return Arrival{}, err
	}
	seen := map[string]int{}
	trouble := 0
	for samples := 1; ; samples++ {
		missing := slices.DeleteFunc(slices.Clone(want), func(p string) bool {
			// Requests that a layer-7 balancer sends on short connections look
			// like its health checks. After a fair time its word counts alone:
			// the caller has seen weight and health.
			return seen[p] > 0 || p == balancerPeer && samples > balancerPatience*w.cfg.Pace.Observe
		})
		if len(missing) == 0 && samples > w.cfg.Pace.Observe {
			return Arrival{Host: w.ip, Samples: samples, Seen: seen}, nil
		}
		if samples%20 == 0 && len(missing) > 0 {
			a.Progress("no traffic to %s yet from %s", w.ip, strings.Join(missing, ", "))
		}
		select {
		case <-ctx.Done():
			return Arrival{}, fmt.Errorf("no traffic to %s was seen from %s; if that way is idle, send a request along it and resume: %w", w.ip, strings.Join(missing, ", "), ctx.Err())
		case <-t.C:
		}
		now, err := w.sample(ctx)
		if ctx.Err() != nil {
			continue // said above, with what was seen last
		}
		if err != nil {
			if trouble++; trouble > maxTrouble {
				return Arrival{}, err
			}
			continue
		}
		trouble = 0
		for _, f := range traffic(before, now) {
			seen[f.peer]++
		}
		before = now
	}
}

// Silence is the evidence that a host gets no traffic.
type Silence struct {
	Host    string `json:"host"`
	Samples int    `json:"samples"`
	Quiet   int    `json:"quiet"` // samples in a row without traffic
	// What the access logs of the balancers say, of those that have one.
	Logs []slb.Silence `json:"logs,omitempty"`
}

// Arrival is the evidence that traffic reaches a host.
type Arrival struct {
	Host    string         `json:"host"`
	Samples int            `json:"samples"`
	Seen    map[string]int `json:"seen"` // peer: connections seen; a balancer that is missing was believed for its weight and health
	// What the access logs of the balancers say; listeners without one are named.
	Logs []slb.Traffic `json:"logs,omitempty"`
}

func describe(flows map[string]flow) string {
	n := map[string]int{}
	for _, f := range flows {
		n[f.peer]++
	}
	var out []string
	for p, c := range n {
		out = append(out, p+" "+strconv.Itoa(c)+" connections")
	}
	slices.Sort(out)
	if len(out) == 0 {
		return "not quiet for long enough"
	}
	return strings.Join(out, ", ")
}

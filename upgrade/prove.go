package upgrade

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// Sections 3.11, 4.3, 4.8 and 4.9: traffic has arrived, traffic has gone.

// watchOn observes the traffic of one of the two hosts.
func (t *transition) watchOn(ctx context.Context, a *engine.Act, r role) (*watch, error) {
	l, ip, err := t.on(a, r)
	if err != nil {
		return nil, err
	}
	known, err := nginxAddrs(ctx, t.cfg, t.e)
	if err != nil {
		return nil, err
	}
	if err := l.alive(ctx); err != nil {
		return nil, err
	}
	w := &watch{env: t.e, cfg: t.cfg, host: l, ip: ip, known: known, behind: behindBalancers(t.p.Facts.Memberships)}
	if t.p.Facts.HasDocker {
		inv, err := hostinv.Collect(ctx, l, hostinv.Options{Sections: []string{hostinv.SectionContainers}})
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
		}
		// A port that only the container's own tables show would look silent.
		if s := inv.Sections[hostinv.SectionContainers]; !s.Status.Known() {
			return nil, fmt.Errorf("host %s: cannot tell which ports its containers serve: %s: %s", l.target, s.Status, s.Message)
		}
		w.published = publishedPorts(inv)
	}
	return w, nil
}

// ways lists who has to be seen to send traffic to a host that serves.
func (t *transition) ways() []string {
	var want []string
	for _, n := range t.p.Facts.Nginx {
		if n.live() > 0 {
			want = append(want, n.Host)
		}
	}
	if slices.ContainsFunc(t.p.Facts.Memberships, func(m slb.Membership) bool { return m.Backend.Weight > 0 }) {
		want = append(want, balancerPeer)
	}
	return want
}

func (t *transition) arrivalStep(r role, id, section string) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: "traffic arrives on " + t.name(r), Effect: engine.ReadOnly,
		Lines: append(when(len(t.ways()) > 0, "connections of "+strings.Join(t.ways(), ", ")), t.logLines("share of the requests")...),
		Plan: func(context.Context, *engine.Act) (engine.Proposal, error) {
			if len(t.ways()) == 0 {
				return engine.Proposal{NotApplicable: "neither nginx nor a balancer leads to " + t.p.Host}, nil
			}
			return engine.Proposal{}, nil
		},
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			if err := t.waitServing(ctx, a, r); err != nil {
				return nil, err
			}
			w, err := t.watchOn(ctx, a, r)
			if err != nil {
				return nil, err
			}
			arrival, err := w.waitArrival(ctx, a, t.ways())
			if err != nil {
				return nil, err
			}
			c, _, err := t.clone(a)
			if err != nil {
				return nil, err
			}
			// Both have the same weights in the same groups: where the two together
			// have requests, each has some.
			both := []string{t.cfg.Address, c.PrivateIP}
			arrival.Logs, err = t.waitShares(ctx, a, w.ip, func(x way, now slb.ListenerTraffic) (least, most float64, tells bool) {
				n, _ := now.Of(both)
				return 1e-9, 1, !x.sticky && n.Requests >= minRequests
			})
			return arrival, err
		},
	}
}

func (t *transition) observeClone() engine.Step { return t.arrivalStep(old, "3.11-observe", "3.11") }
func (t *transition) observeProduction() engine.Step {
	return t.arrivalStep(prod, "4.8-observe", "4.8")
}

func (t *transition) silenceStep(r role, id, section string) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: "no traffic reaches " + t.name(r) + " any more", Effect: engine.ReadOnly,
		Lines: append([]string{fmt.Sprintf("%d samples in a row without a connection that carries requests", t.cfg.Pace.Observe)},
			t.logLines("no request in "+short(logWindow)+", after a probe was seen")...),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			w, err := t.watchOn(ctx, a, r)
			if err != nil {
				return nil, err
			}
			silence, err := w.waitSilence(ctx, a, nil)
			if err != nil {
				return nil, err
			}
			silence.Logs, err = t.waitLogSilence(ctx, a, w.ip)
			return silence, err
		},
	}
}

// logWindow is what is read of an access log: long enough for requests of a
// quiet site.
const logWindow = time.Minute

// logTimeout is how long an access log is waited for: what happened before the
// wait leaves the window only after its length.
func (t *transition) logTimeout() time.Duration { return max(t.cfg.Pace.Timeout, 3*logWindow) }

// minRequests is how many requests in logWindow make a share worth a look.
const minRequests = 20

// A way is a port of a balancer through which production gets traffic.
type way struct {
	lb      string // the balancer
	address string // its address; "" = not known
	l       slb.Listener
	groups  []slb.Group // those behind it that production has a weight in
	sticky  bool        // sessions stay where they are, whatever the weights say
	wlc     bool        // with few connections at a time, wlc does not follow the weights
}

// logged lists the running listeners that lead to production, one entry for each
// port of a balancer, whatever number of rules and groups it leads through.
func (t *transition) logged() (out []way) {
	addresses := map[string]string{}
	for _, m := range t.p.Facts.Memberships {
		addresses[m.LoadBalancerID] = m.Address
	}
	for _, m := range t.p.Facts.Memberships {
		for _, l := range m.Listeners {
			if m.Backend.Weight == 0 || l.Status == "stopped" {
				continue
			}
			// A group of ALB or NLB can be behind several balancers.
			lb := cmp.Or(l.LoadBalancerID, m.LoadBalancerID)
			i := slices.IndexFunc(out, func(o way) bool { return o.lb == lb && o.l.Port == l.Port && o.l.Protocol == l.Protocol })
			if i < 0 {
				i = len(out)
				out = append(out, way{lb: lb, address: addresses[lb], l: l})
			}
			out[i].groups = append(out[i].groups, m.Group())
			out[i].sticky = out[i].sticky || l.Sticky
			out[i].wlc = out[i].wlc || l.Scheduler == "wlc"
		}
	}
	return out
}

// logLines names the listeners whose access logs are read, of those that have
// one.
func (t *transition) logLines(what string) []string {
	var at []string
	for _, x := range t.logged() {
		if x.l.Protocol == "http" || x.l.Protocol == "https" || x.l.Protocol == "quic" {
			at = append(at, fmt.Sprintf("%s:%d", x.lb, x.l.Port))
		}
	}
	return when(len(at) > 0, fmt.Sprintf("access logs, where they are switched on: %s: %s", strings.Join(at, ", "), what))
}

// waitShares blocks until the access logs show a host's share of every listener
// within bounds. A listener that bounds cannot judge, that has no log, or too few
// requests, is proved by connections alone; the result names it.
func (t *transition) waitShares(ctx context.Context, a *engine.Act, ip string, bounds func(x way, now slb.ListenerTraffic) (least, most float64, tells bool)) ([]slb.Traffic, error) {
	var out []slb.Traffic
	for _, x := range t.logged() {
		q := slb.TrafficQuery{LoadBalancerID: x.lb, Port: x.l.Port, Window: logWindow}
		// tells looks once; the result is for the evidence.
		tells := func() (slb.Traffic, float64, float64, bool, error) {
			now, err := t.e.SLB.GetTraffic(ctx, q)
			if err != nil {
				return now, 0, 0, false, err
			}
			i := slices.IndexFunc(now.Listeners, func(l slb.ListenerTraffic) bool {
				return l.Evidence == slb.ByAccessLog && l.Protocol == x.l.Protocol && l.Now.Requests >= minRequests
			})
			if i < 0 {
				return now, 0, 0, false, nil
			}
			least, most, ok := bounds(x, now.Listeners[i])
			return now, least, most, ok, nil
		}
		now, least, most, ok, err := tells()
		if err != nil {
			return out, err
		}
		if ok {
			q := q
			q.IPs = []string{ip}
			seen, err := t.e.SLB.WaitShare(ctx, slb.ShareQuery{TrafficQuery: q, AtLeast: least, AtMost: most, MinRequests: minRequests, Timeout: t.logTimeout()})
			switch {
			case err == nil:
				now = seen
				share, _ := now.Listeners[0].Of([]string{ip})
				a.Progress("%s:%d: %s has %.1f %% of %d requests by the access log", x.lb, x.l.Port, ip, 100*share.Share, now.Listeners[0].Now.Requests)
			case ctx.Err() != nil:
				return out, err
			default:
				// The requests may have become too few meanwhile to tell anything.
				var still bool
				var lookErr error
				if now, _, _, still, lookErr = tells(); lookErr != nil || still {
					return out, err
				}
				a.Progress("%s:%d: too few requests by now to tell shares from", x.lb, x.l.Port)
			}
		}
		for i := range now.Listeners {
			now.Listeners[i].Upstreams = slices.DeleteFunc(now.Listeners[i].Upstreams, func(u slb.UpstreamTraffic) bool { return !strings.HasPrefix(u.Addr, ip+":") })
		}
		out = append(out, now)
	}
	return out, nil
}

// waitFallen blocks until production's share of the requests is no more than
// its weights of now let expect, or nearly.
func (t *transition) waitFallen(ctx context.Context, a *engine.Act, changes []weightChange) error {
	const near = 0.05
	most := map[slb.Group]float64{}
	for _, c := range changes {
		all, err := t.e.SLB.ListBackends(ctx, c.Group)
		if err != nil {
			return err
		}
		own, sum := 0, 0
		for _, b := range all {
			sum += b.Weight
			if slices.ContainsFunc(changes, func(o weightChange) bool {
				return o.Group == c.Group && o.Backend.ServerID == b.ServerID && o.Backend.ServerIP == b.ServerIP && o.Backend.Port == b.Port
			}) {
				own += b.Weight
			}
		}
		most[c.Group] = 1
		if sum > 0 {
			most[c.Group] = min(1, 2*float64(own)/float64(sum)+near)
		}
	}
	_, err := t.waitShares(ctx, a, t.cfg.Address, func(x way, _ slb.ListenerTraffic) (least, highest float64, tells bool) {
		for _, g := range x.groups {
			highest = max(highest, most[g])
		}
		return 0, highest, highest > 0 && !x.sticky && !x.wlc
	})
	return err
}

// waitLogSilence blocks until the access logs show no request to a host. A
// probe through each listener shows that they are written and read. Every
// listener is in the result; those that no log can tell of are named as proved by
// connections, with the reason.
func (t *transition) waitLogSilence(ctx context.Context, a *engine.Act, ip string) ([]slb.Silence, error) {
	var out []slb.Silence
	ways := t.logged()
	for len(ways) > 0 {
		lb := ways[0].lb
		var mine, rest []way
		for _, x := range ways {
			if x.lb == lb {
				mine = append(mine, x)
			} else {
				rest = append(rest, x)
			}
		}
		ways = rest
		s, err := t.balancerSilence(ctx, a, lb, ip, mine)
		if err != nil {
			return out, err
		}
		a.Progress("%s: %s", lb, s)
		out = append(out, s)
	}
	return out, nil
}

func (t *transition) balancerSilence(ctx context.Context, a *engine.Act, lb, ip string, ways []way) (slb.Silence, error) {
	s := slb.Silence{LoadBalancerID: lb, IPs: []string{ip}}
	known, err := t.e.SLB.ListEvidence(ctx, lb)
	if err != nil {
		return s, err
	}
	var probed []slb.Listener
	probes := map[int]slb.Probe{} // by port
	for _, x := range ways {
		i := slices.IndexFunc(known, func(l slb.ListenerTraffic) bool { return l.Port == x.l.Port && l.Protocol == x.l.Protocol })
		if i < 0 {
			continue // it is gone, and with it what came through it
		}
		one := slb.ListenerSilence{Port: x.l.Port, Protocol: x.l.Protocol, Evidence: slb.ByConnections, Reason: known[i].Reason}
		if known[i].Evidence == slb.ByAccessLog {
			probe, why := t.probe(ctx, x)
			if ctx.Err() != nil {
				return s, ctx.Err()
			}
			if probe != nil {
				probed = append(probed, x.l)
				probes[x.l.Port] = probe
				continue
			}
			if one.Reason, err = t.quietLog(ctx, x, ip, why); err != nil {
				return s, err
			}
		}
		s.Listeners = append(s.Listeners, one)
	}
	if len(probed) == 0 {
		return s, nil
	}
	seen, err := t.e.SLB.WaitSilence(ctx, slb.SilenceQuery{
		LoadBalancerID: lb, IPs: []string{ip}, Listeners: probed, Window: logWindow, Timeout: t.logTimeout(),
		Probe: func(ctx context.Context, tag string, l slb.Listener) error { return probes[l.Port](ctx, tag, l) },
	})
	if err != nil {
		return s, fmt.Errorf("%w; resume looks again; if the log is not written any more, switch access logging of %s off: then the connections alone are the proof", err, lb)
	}
	seen.Listeners = append(seen.Listeners, s.Listeners...)
	return seen, nil
}

// A place is where a probe can be sent from.
type place struct {
	name string
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// probe finds a place from which the listener can be reached: an nginx host,
// production, this machine. Without one it is nil, and why says what each place
// met.
func (t *transition) probe(ctx context.Context, x way) (p slb.Probe, why string) {
	if x.address == "" {
		return nil, "the address of " + x.lb + " is not known"
	}
	var places []place
	for _, n := range t.cfg.Nginx {
		places = append(places, place{n.Host, t.e.host(n.Host).DialContext})
	}
	places = append(places, place{t.cfg.Host, t.e.host(t.cfg.Host).DialContext}, place{"this machine", t.e.netDial})
	var met []string
	for _, from := range places {
		p := probeFrom(x.address, from.dial)
		err := p(ctx, "reach", x.l)
		if err == nil {
			return p, ""
		}
		if ctx.Err() != nil {
			return nil, ctx.Err().Error()
		}
		met = append(met, fmt.Sprintf("%s: %v", from.name, err))
	}
	return nil, strings.Join(met, "; ")
}

// probeFrom is a Probe over connections that dial makes. The certificate is for
// a domain, and the address mostly an IP; the request holds nothing that anybody
// may not see.
func probeFrom(address string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) slb.Probe {
	return func(ctx context.Context, tag string, l slb.Listener) error {
		domain, _, _ := strings.Cut(l.Domain, ",")
		rt := &http.Transport{
			DialContext: dial, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: strings.Replace(domain, "*", "probe", 1)},
		}
		defer rt.CloseIdleConnections()
		return slb.HTTPProbe(address, rt)(ctx, tag, l)
	}
}

// quietLog is for a listener with a log that no probe can be sent through: its
// log alone cannot prove silence, but it can disprove it. It blocks until the log
// shows no request to the host, and says what the log is worth.
func (t *transition) quietLog(ctx context.Context, x way, ip, why string) (reason string, err error) {
	all := 0
	q := slb.TrafficQuery{LoadBalancerID: x.lb, Port: x.l.Port, IPs: []string{ip}, Window: logWindow}
	err = t.holdsWithin(ctx, t.logTimeout(), t.cfg.Pace.Poll, fmt.Sprintf("%s still gets requests through %s:%d", ip, x.lb, x.l.Port), func(ctx context.Context) error {
		now, err := t.e.SLB.GetTraffic(ctx, q)
		if err != nil {
			return err
		}
		all = 0
		for _, l := range now.Listeners {
			all += l.Now.Requests
			if n, _ := l.Of([]string{ip}); n.Requests > 0 {
				return fmt.Errorf("%d requests in %s by the access log", n.Requests, short(logWindow))
			}
		}
		return nil
	})
	return fmt.Sprintf("no probe can be sent through it (%s); its log shows %d requests in %s, none of them to the host", why, all, short(logWindow)), err
}

func (t *transition) proveSilence() engine.Step { return t.silenceStep(prod, "4.3-silence", "4.3") }
func (t *transition) proveCloneSilence() engine.Step {
	return t.silenceStep(old, "4.9-silence", "4.9")
}

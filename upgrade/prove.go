package upgrade

import (
	"context"
	"fmt"
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
		inv, err := hostinv.Collect(ctx, l, hostinv.Options{})
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", l.target, err)
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
		Lines: []string{"connections of " + strings.Join(t.ways(), ", ")},
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
			arrival.Logs, err = t.waitShares(ctx, a, w.ip, func(slb.Membership, slb.Listener) (least, most float64) { return 0.001, 1 })
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
		Lines: []string{fmt.Sprintf("%d samples in a row without a connection that carries requests", t.cfg.Pace.Observe)},
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

// A logged is a listener that leads to production and can have an access log.
type logged struct {
	m slb.Membership
	l slb.Listener
}

// logged lists the listeners whose requests an access log can show, one entry
// for each port of a balancer.
func (t *transition) logged() (out []logged) {
	for _, m := range t.p.Facts.Memberships {
		for _, l := range m.Listeners {
			if m.Backend.Weight == 0 || l.Protocol != "http" && l.Protocol != "https" && l.Protocol != "quic" {
				continue
			}
			if !slices.ContainsFunc(out, func(o logged) bool { return o.m.LoadBalancerID == l.LoadBalancerID && o.l.Port == l.Port }) {
				m.LoadBalancerID = l.LoadBalancerID
				out = append(out, logged{m, l})
			}
		}
	}
	return out
}

// waitShares blocks until the access logs show a host's share of every listener
// within bounds. Listeners without a log, or with too few requests, are proved
// by connections alone; the result names them.
func (t *transition) waitShares(ctx context.Context, a *engine.Act, ip string, bounds func(slb.Membership, slb.Listener) (least, most float64)) ([]slb.Traffic, error) {
	var out []slb.Traffic
	for _, x := range t.logged() {
		q := slb.TrafficQuery{LoadBalancerID: x.m.LoadBalancerID, Port: x.l.Port, IPs: []string{ip}, Window: logWindow}
		now, err := t.e.SLB.GetTraffic(ctx, q)
		if err != nil {
			return out, err
		}
		least, most := bounds(x.m, x.l)
		i := slices.IndexFunc(now.Listeners, func(l slb.ListenerTraffic) bool {
			return l.Evidence == slb.ByAccessLog && l.Now.Requests >= minRequests
		})
		if i < 0 || least == most {
			out = append(out, now)
			continue
		}
		seen, err := t.e.SLB.WaitShare(ctx, slb.ShareQuery{TrafficQuery: q, AtLeast: least, AtMost: most, MinRequests: minRequests, Timeout: t.cfg.Pace.Timeout})
		if err != nil {
			return out, err
		}
		share, _ := seen.Listeners[0].Of([]string{ip})
		a.Progress("%s:%d: %s has %.1f %% of %d requests by the access log", x.m.LoadBalancerID, x.l.Port, ip, 100*share.Share, seen.Listeners[0].Now.Requests)
		out = append(out, seen)
	}
	return out, nil
}

// minRequests is how many requests in logWindow make a share worth a look.
const minRequests = 20

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
			if b.ServerID == c.Backend.ServerID && b.Port == c.Backend.Port {
				own = b.Weight
			}
		}
		if sum > 0 {
			most[c.Group] = min(1, 2*float64(own)/float64(sum)+near)
		}
	}
	_, err := t.waitShares(ctx, a, t.cfg.Address, func(m slb.Membership, l slb.Listener) (float64, float64) {
		if w, ok := most[m.Group()]; ok && l.Scheduler != "wlc" {
			return 0, w
		}
		return 0, 1 // with few connections at a time, wlc does not follow the weights
	})
	return err
}

// waitLogSilence blocks until the access logs show no request to a host. A
// probe through each listener shows that they are written and read.
func (t *transition) waitLogSilence(ctx context.Context, a *engine.Act, ip string) ([]slb.Silence, error) {
	var out []slb.Silence
	from := t.e.host(t.cfg.Host)
	if len(t.cfg.Nginx) > 0 {
		from = t.e.host(t.cfg.Nginx[0].Host)
	}
	for _, x := range t.logged() {
		if slices.ContainsFunc(out, func(s slb.Silence) bool { return s.LoadBalancerID == x.m.LoadBalancerID }) {
			continue
		}
		var listeners []slb.Listener
		for _, y := range t.logged() {
			if y.m.LoadBalancerID == x.m.LoadBalancerID {
				listeners = append(listeners, y.l)
			}
		}
		q := slb.SilenceQuery{
			LoadBalancerID: x.m.LoadBalancerID, IPs: []string{ip}, Listeners: listeners, Window: logWindow, Timeout: t.cfg.Pace.Timeout,
			Probe: slb.HTTPProbe(x.m.Address, &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}),
		}
		logs, err := t.e.SLB.ListAccessLogs(ctx, x.m.LoadBalancerID)
		if err != nil {
			return out, err
		}
		if len(logs) == 0 {
			continue // connections alone; 2.6 has said so
		}
		s, err := t.e.SLB.WaitSilence(ctx, q)
		if err != nil {
			return out, err
		}
		a.Progress("%s: %s", x.m.LoadBalancerID, s)
		out = append(out, s)
	}
	return out, nil
}

func (t *transition) proveSilence() engine.Step { return t.silenceStep(prod, "4.3-silence", "4.3") }
func (t *transition) proveCloneSilence() engine.Step {
	return t.silenceStep(old, "4.9-silence", "4.9")
}

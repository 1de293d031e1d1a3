package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Automatic gates: a host that has begun to serve (3.11, 4.8) answers as
// production did before anything was changed (2.7-baseline), by requests of our
// own from where its traffic comes from and, where a balancer writes one, by
// the access log of everybody's requests.

// HealthConfig is the health block: what the automatic gates ask for.
type HealthConfig struct {
	Probes          int           `json:"probes"`            // requests of our own to each port of each service, from each place
	MaxErrorPercent int           `json:"max_error_percent"` // of answers that may be bad, whatever it was before
	Factor          int           `json:"factor"`            // how many times the errors and the latency of before are allowed
	LatencyFloor    time.Duration `json:"latency_floor"`     // a 95th percentile that always passes
	MinRequests     int           `json:"min_requests"`      // in an access log, fewer tell nothing
	Window          time.Duration `json:"window"`            // of an access log
}

func (d *configDecoder) health(m mapping, c *Config) {
	s := d.mapping(m.values["health"], "health", "probes", "max_error_percent", "factor", "latency_floor", "min_requests", "window")
	c.Health = HealthConfig{
		Probes:          s.integer("probes", 10, 1, 1000),
		MaxErrorPercent: s.integer("max_error_percent", 1, 0, 100),
		Factor:          s.integer("factor", 3, 1, 100),
		LatencyFloor:    s.duration("latency_floor", 500*time.Millisecond, 0, true),
		MinRequests:     s.integer("min_requests", 20, 1, 1000000),
		Window:          s.duration("window", time.Minute, 10*time.Second, false),
	}
}

// A series is what one place got from one port of a service.
type series struct {
	Of     string          `json:"of"`
	Took   []time.Duration `json:"took_ns"` // of the good answers
	Bad    int             `json:"bad"`
	Errors []string        `json:"errors,omitempty"` // the first few of the bad ones
}

func (s series) counts() counts { return counts{Total: len(s.Took) + s.Bad, Bad: s.Bad} }

// logged5xx is what an access log says of a host behind a port.
type logged5xx struct {
	Of     string `json:"of"`
	Counts counts `json:"counts"`
}

// health is what was measured at one time.
type health struct {
	At     time.Time   `json:"at"`
	Probes []series    `json:"probes"`
	Logs   []logged5xx `json:"logs,omitempty"`
}

// A HealthResult is the evidence of an automatic gate.
type HealthResult struct {
	Verdict  Verdict   `json:"verdict"`
	Readings []Reading `json:"readings"`
	Measured health    `json:"measured"`
}

// maxProbeErrors is how many errors of a series are kept.
const maxProbeErrors = 3

// measure takes the health of a host; window is what is read of access logs.
func (t *transition) measure(ctx context.Context, l *link, ip string, window time.Duration) (health, error) {
	h := health{At: time.Now().UTC()}
	places := []*link{l}
	if len(t.cfg.Nginx) > 0 {
		places = nil
	}
	for _, n := range t.cfg.Nginx {
		places = append(places, t.e.host(n.Host))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, from := range places {
		wg.Go(func() {
			for _, s := range t.cfg.Services {
				for _, port := range s.Ports {
					one := service(s)
					one.Ports = []int{port}
					got := probeSeries(ctx, from, ip, one, t.cfg.Health.Probes)
					got.Of = fmt.Sprintf("%s:%d from %s", s.Name, port, from.target)
					mu.Lock()
					h.Probes = append(h.Probes, got)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return h, ctx.Err()
	}
	slices.SortFunc(h.Probes, func(a, b series) int { return strings.Compare(a.Of, b.Of) })
	for _, x := range t.logged() {
		now, err := t.e.SLB.GetTraffic(ctx, slb.TrafficQuery{LoadBalancerID: x.lb, Port: x.l.Port, Window: window})
		if err != nil {
			return h, err
		}
		for _, g := range now.Listeners {
			if g.Evidence != slb.ByAccessLog || g.Protocol != x.l.Protocol {
				continue // connections alone tell no status
			}
			n, _ := g.Of([]string{ip})
			h.Logs = append(h.Logs, logged5xx{Of: fmt.Sprintf("%s:%d", x.lb, x.l.Port), Counts: counts{Total: n.Requests, Bad: n.Status5xx}})
		}
	}
	return h, nil
}

func probeSeries(ctx context.Context, from *link, ip string, s hostos.Service, n int) series {
	var out series
	for range n {
		if ctx.Err() != nil {
			return out
		}
		begin := time.Now()
		err := hostos.Probe(ctx, from.DialContext, ip, s)
		if err == nil {
			out.Took = append(out.Took, time.Since(begin))
			continue
		}
		if out.Bad++; len(out.Errors) < maxProbeErrors {
			out.Errors = append(out.Errors, err.Error())
		}
	}
	return out
}

// judge compares what was measured with what it was before.
func (h HealthConfig) judge(now, before health) []Reading {
	var out []Reading
	for _, s := range now.Probes {
		var was series
		if i := slices.IndexFunc(before.Probes, func(b series) bool { return b.Of == s.Of }); i >= 0 {
			was = before.Probes[i]
		}
		e := judgeErrors(s.counts(), was.counts(), h, h.Probes)
		if len(s.Errors) > 0 && e.Verdict != VerdictPass {
			e.Why = s.Errors[0]
		}
		l := judgeLatency(s.Took, was.Took, h, (h.Probes+1)/2)
		for _, r := range []Reading{e, l} {
			r.Source, r.Of = "probe", s.Of
			out = append(out, r)
		}
	}
	for _, l := range now.Logs {
		var was counts
		if i := slices.IndexFunc(before.Logs, func(b logged5xx) bool { return b.Of == l.Of }); i >= 0 {
			was = before.Logs[i].Counts
		}
		// A way that was as idle before tells nothing now, and need not.
		if was.Total < h.MinRequests && l.Counts.Total < h.MinRequests && l.Counts.Bad == 0 {
			continue
		}
		r := judgeErrors(l.Counts, was, h, h.MinRequests)
		r.Source, r.Of = "access log", l.Of
		out = append(out, r)
	}
	return out
}

func (t *transition) recordHealth() engine.Step {
	return engine.Step{
		ID: "2.7-baseline", Section: "2.7", Title: "how " + t.p.Host + " answers now: what the automatic gates compare with", Effect: engine.ReadOnly,
		Lines: t.healthLines(),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			h, err := t.measure(ctx, t.e.host(t.cfg.Host), t.cfg.Address, t.cfg.Health.Window)
			if err != nil {
				return nil, err
			}
			for _, s := range h.Probes {
				if c := s.counts(); c.Bad > 0 {
					a.Progress("already now %d of %d requests to %s fail: %s", c.Bad, c.Total, s.Of, s.Errors[0])
				}
			}
			return h, nil
		},
	}
}

func (t *transition) healthLines() []string {
	return append([]string{fmt.Sprintf("%d requests to each port of each service, from each nginx host", t.cfg.Health.Probes)}, t.logLines("requests and 5xx answers")...)
}

// maxSlow is how many measurements in a row have to be slow.
const maxSlow = 3

// healthGate stands behind the arrival of traffic on a host.
func (t *transition) healthGate(r role, id, section string) engine.Step {
	return engine.Step{
		ID: id, Section: section, Title: t.name(r) + " answers as " + t.p.Host + " did before the run", Effect: engine.ReadOnly,
		Lines: append(t.healthLines(), fmt.Sprintf("fails over %d %% errors and %d times those of 2.7-baseline, or over %s and %d times its latency; too little data does not pass",
			t.cfg.Health.MaxErrorPercent, t.cfg.Health.Factor, short(t.cfg.Health.LatencyFloor), t.cfg.Health.Factor)),
		Do: func(ctx context.Context, a *engine.Act) (any, error) {
			var before health
			if ok, err := a.Result("2.7-baseline", &before); err != nil || !ok {
				return nil, errors.Join(errors.New("internal error: there is no baseline"), err)
			}
			l, ip, err := t.on(a, r)
			if err != nil {
				return nil, err
			}
			if err := l.alive(ctx); err != nil {
				return nil, err
			}
			wait, cancel := context.WithTimeout(ctx, t.logTimeout())
			defer cancel()
			tick := time.NewTicker(max(t.cfg.Pace.Sample, t.cfg.Health.Window/6))
			defer tick.Stop()
			began := time.Now()
			slow := 0 // measurements in a row that fail by their latency alone
			for first := true; ; first = false {
				// A host that shares the traffic with another one has fewer requests in
				// the same time: the window grows until they are enough.
				h, err := t.measure(wait, l, ip, t.cfg.Health.Window+time.Since(began).Truncate(time.Second))
				if err != nil && wait.Err() == nil {
					return nil, err
				}
				res := HealthResult{Measured: h, Readings: t.cfg.Health.judge(h, before)}
				res.Verdict = overall(res.Readings)
				bad := worst(res.Readings)
				switch {
				case err == nil && res.Verdict == VerdictPass:
					return res, nil
				case err == nil && res.Verdict == VerdictFail:
					// A machine may pause for a moment; a bad answer is no such thing.
					if slow++; bad[0].Metric != "p95" || slow == maxSlow {
						return nil, t.gateError(a, r, res, "")
					}
				case err == nil:
					slow = 0
				}
				switch {
				case first && len(bad) > 0:
					a.Progress("not clear yet: %s", bad[0])
				}
				select {
				case <-wait.Done():
					if ctx.Err() != nil {
						return nil, ctx.Err()
					}
					return nil, t.gateError(a, r, res, "; resume measures again; health.min_requests says how much is enough")
				case <-tick.C:
				}
			}
		},
	}
}

// gateError keeps what was measured and says where.
func (t *transition) gateError(a *engine.Act, r role, res HealthResult, more string) error {
	ref, err := putJSON(a, res)
	if err != nil {
		return err
	}
	var msg []string
	for _, b := range worst(res.Readings) {
		if msg = append(msg, b.String()); len(msg) == 3 {
			break
		}
	}
	if len(msg) == 0 {
		msg = []string{"nothing was measured"}
	}
	return fmt.Errorf("the automatic gate of %s: %s%s (all of it: blobs/%s in the run directory)", t.name(r), strings.Join(msg, "; "), more, ref)
}

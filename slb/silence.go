package slb

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// ProbeParam is the parameter of the address that tags a probe.
const ProbeParam = "upgradectl-probe"

// A Probe sends one request through listener l whose address has the parameter
// ProbeParam with the value tag. It may end up on any member, and any status of
// the answer is fine; an error means that the balancer was not reached.
type Probe func(ctx context.Context, tag string, l Listener) error

// A SilenceQuery says whose silence is to be proved.
type SilenceQuery struct {
	LoadBalancerID string
	IPs            []string      // addresses of the host
	Listeners      []Listener    // those that lead to it; empty means all of the balancer
	Window         time.Duration // for how long nothing must have come; 0 means 1 min
	// Probe shows that the log is written and read now. Without one an empty log
	// proves nothing, and every listener is ByConnections.
	Probe Probe
	// ProbeTimeout is how long a probe may take to show up; 0 means 3 min.
	ProbeTimeout time.Duration
	Timeout      time.Duration // of WaitSilence; 0 means 30 min
}

// A Silence is what one look found.
type Silence struct {
	LoadBalancerID string            `json:"load_balancer_id"`
	IPs            []string          `json:"ips"`
	From           time.Time         `json:"from"`
	To             time.Time         `json:"to"`
	Listeners      []ListenerSilence `json:"listeners"`
}

// ListenerSilence is the part of one listener.
type ListenerSilence struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
	Evidence string `json:"evidence"`         // ByAccessLog or ByConnections
	Reason   string `json:"reason,omitempty"` // of ByConnections
	Requests int    `json:"requests"`         // to the host, in the window
	Probe    string `json:"probe,omitempty"`  // its tag
	// ProbeAfter is how long the probe took to show up in the log.
	ProbeAfter time.Duration `json:"probe_after_ns,omitempty"`
}

// Silent reports whether the access log of at least one listener was read, and
// none of them shows a request to the host. What Unlogged lists is to be proved
// otherwise.
func (s Silence) Silent() bool {
	logged := 0
	for _, l := range s.Listeners {
		if l.Evidence == ByAccessLog {
			logged++
			if l.Requests > 0 {
				return false
			}
		}
	}
	return logged > 0
}

// Unlogged lists the listeners about which the cloud can say nothing.
func (s Silence) Unlogged() []ListenerSilence {
	return slices.DeleteFunc(slices.Clone(s.Listeners), func(l ListenerSilence) bool { return l.Evidence == ByAccessLog })
}

// Requests is how many requests the host got in the window, as far as logged.
func (s Silence) Requests() (n int) {
	for _, l := range s.Listeners {
		n += l.Requests
	}
	return n
}

// String names what is proved by what.
func (s Silence) String() string {
	var out []string
	for _, l := range s.Listeners {
		switch {
		case l.Evidence != ByAccessLog:
			out = append(out, fmt.Sprintf("%s:%d %s: %s", l.Protocol, l.Port, l.Evidence, l.Reason))
		default:
			out = append(out, fmt.Sprintf("%s:%d %d requests by the %s (probe seen after %s)", l.Protocol, l.Port, l.Requests, l.Evidence, l.ProbeAfter.Round(time.Second)))
		}
	}
	return strings.Join(out, "; ")
}

// ProveSilence looks once whether a host gets no requests any more. It sends a
// tagged probe through every logged listener and waits until the log shows all
// of them: only then an empty answer about the host means silence and not a late
// log. A probe that does not show up is an error: nothing is known. Listeners
// without a log are named as such; look at Unlogged.
func (c *Client) ProveSilence(ctx context.Context, q SilenceQuery) (Silence, error) {
	pattern, err := addrPattern(q.IPs)
	if err != nil {
		return Silence{}, fmt.Errorf("cannot prove silence on %s: %w", q.LoadBalancerID, err)
	}
	window := q.Window
	if window <= 0 {
		window = time.Minute
	}
	s := Silence{LoadBalancerID: q.LoadBalancerID, IPs: q.IPs}
	listeners, log, err := c.logged(ctx, q.LoadBalancerID, 0)
	if err != nil {
		return s, err
	}
	probes := map[string]*ListenerSilence{} // by tag
	for _, l := range listeners {
		via := Listener{LoadBalancerID: q.LoadBalancerID, Port: l.Port, Protocol: l.Protocol}
		if len(q.Listeners) > 0 {
			i := slices.IndexFunc(q.Listeners, func(o Listener) bool { return o.Port == l.Port && o.Protocol == l.Protocol })
			if i < 0 {
				continue
			}
			via = q.Listeners[i]
		}
		one := ListenerSilence{Port: l.Port, Protocol: l.Protocol, Evidence: l.Evidence, Reason: l.Reason}
		if one.Evidence == ByAccessLog && q.Probe == nil {
			one.Evidence, one.Reason = ByConnections, "no probe was sent, and an empty log alone proves nothing"
		}
		if one.Evidence == ByAccessLog {
			one.Probe = newTag()
			if err := q.Probe(ctx, one.Probe, via); err != nil {
				return s, fmt.Errorf("cannot send a probe through %s:%d of %s: %w", l.Protocol, l.Port, q.LoadBalancerID, err)
			}
		}
		s.Listeners = append(s.Listeners, one)
	}
	if len(s.Listeners) == 0 {
		return s, fmt.Errorf("cannot prove silence on %s: it has none of the listeners that were named", q.LoadBalancerID)
	}
	for i := range s.Listeners {
		if tag := s.Listeners[i].Probe; tag != "" {
			probes[tag] = &s.Listeners[i]
		}
	}
	sent := time.Now()
	s.From, s.To = sent.Add(-window), sent
	if len(probes) == 0 {
		return s, nil
	}
	if err := c.waitProbes(ctx, *log, q, probes, sent); err != nil {
		return s, err
	}
	// Up to now, not only up to the probe: what came in between counts as well.
	s.To = time.Now()
	rows, err := c.logQuery(ctx, *log, "select slb_vport, count(1) as requests where regexp_like(upstream_addr, '"+pattern+"') group by slb_vport limit "+strconv.Itoa(maxGroups), s.From, s.To)
	if err != nil {
		return s, err
	}
	for _, r := range rows {
		port, err1 := strconv.Atoi(r["slb_vport"])
		n, err2 := strconv.Atoi(r["requests"])
		if err := errors.Join(err1, err2); err != nil {
			return s, fmt.Errorf("cannot read the access log of %s: a row without port or count: %w", q.LoadBalancerID, err)
		}
		for i := range s.Listeners {
			if l := &s.Listeners[i]; l.Port == port && l.Evidence == ByAccessLog {
				l.Requests += n
			}
		}
	}
	return s, nil
}

// waitProbes blocks until the log shows every probe.
func (c *Client) waitProbes(ctx context.Context, log AccessLog, q SilenceQuery, probes map[string]*ListenerSilence, sent time.Time) error {
	timeout := q.ProbeTimeout
	if timeout <= 0 {
		timeout = 3 * time.Minute
	}
	ctx, cancel := alicloud.WithLimit(ctx, timeout)
	defer cancel()
	var tags []string
	for tag := range probes {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	sql := "select request_uri, count(1) as requests where regexp_like(request_uri, '" + ProbeParam + "=(" + strings.Join(tags, "|") + ")') group by request_uri limit " + strconv.Itoa(maxGroups)
	tagged := regexp.MustCompile(ProbeParam + "=([0-9a-f]+)")
	p := poll.Poller{Interval: c.poll, Retryable: retryable}
	err := p.Until(ctx, fmt.Sprintf("probes in the access log of %s", log.LoadBalancerID), func(ctx context.Context) (string, bool, error) {
		// A clock of the balancer that is a little behind ours must not hide them.
		rows, err := c.logQuery(ctx, log, sql, sent.Add(-5*time.Minute), time.Now().Add(5*time.Minute))
		if err != nil {
			return "", false, err
		}
		for _, r := range rows {
			if m := tagged.FindStringSubmatch(r["request_uri"]); m != nil && probes[m[1]] != nil && probes[m[1]].ProbeAfter == 0 {
				probes[m[1]].ProbeAfter = max(time.Since(sent), time.Nanosecond)
			}
		}
		seen := 0
		for _, l := range probes {
			if l.ProbeAfter > 0 {
				seen++
			}
		}
		return fmt.Sprintf("%d of %d", seen, len(probes)), seen == len(probes), nil
	})
	if err != nil {
		return fmt.Errorf("cannot prove silence on %s: a probe does not show up in its access log, so that an empty log proves nothing: %w", log.LoadBalancerID, err)
	}
	return nil
}

// newTag makes the tag of a probe.
func newTag() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// WaitSilence looks again and again until the host is silent on every logged
// listener. When none is logged it is an error at once.
func (c *Client) WaitSilence(ctx context.Context, q SilenceQuery) (Silence, error) {
	timeout := q.Timeout
	if timeout <= 0 {
		timeout = 30 * time.Minute
	}
	ctx, cancel := alicloud.WithLimit(ctx, timeout)
	defer cancel()
	var last Silence
	p := poll.Poller{Interval: c.poll, Retryable: retryable}
	err := p.Until(ctx, fmt.Sprintf("silence of %s on %s", strings.Join(q.IPs, ", "), q.LoadBalancerID), func(ctx context.Context) (string, bool, error) {
		s, err := c.ProveSilence(ctx, q)
		if err != nil {
			return "", false, err
		}
		last = s
		if len(s.Unlogged()) == len(s.Listeners) {
			return "", false, poll.Stop(fmt.Errorf("cannot prove silence on %s by its access log: %s", q.LoadBalancerID, s))
		}
		return fmt.Sprintf("%d requests", s.Requests()), s.Silent(), nil
	})
	return last, err
}

// HTTPProbe is a Probe that sends a GET from this machine to a balancer's
// address. A listener that is reached through a rule gets the rule's domain and
// URL. rt nil means connections of its own.
func HTTPProbe(address string, rt http.RoundTripper) Probe {
	return func(ctx context.Context, tag string, l Listener) error {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		scheme := "http"
		if l.Protocol != "http" {
			scheme = "https"
		}
		path := "/"
		if strings.HasPrefix(l.URL, "/") {
			path, _, _ = strings.Cut(l.URL, ",")
		}
		domain, _, _ := strings.Cut(l.Domain, ",")
		domain = strings.Replace(domain, "*", "probe", 1)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(address, strconv.Itoa(l.Port))+path+"?"+ProbeParam+"="+tag, nil)
		if err != nil {
			return err
		}
		r.Header.Set("User-Agent", ProbeParam)
		if domain != "" {
			r.Host = domain
		}
		next := rt
		if next == nil {
			// The certificate is for a domain, and the address is an IP. The request
			// holds nothing that anybody may not see.
			t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: domain}, DisableKeepAlives: true}
			defer t.CloseIdleConnections()
			next = t
		}
		resp, err := next.RoundTrip(r)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		return resp.Body.Close()
	}
}

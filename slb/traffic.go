package slb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// What a statement about a listener's traffic rests on.
const (
	// ByAccessLog: the balancer's own record of every request.
	ByAccessLog = "access log"
	// ByConnections: the cloud keeps no record (TCP and UDP listeners, logging
	// switched off); only the connections seen on the hosts can tell.
	ByConnections = "connections only"
)

// logLag is how old a row is before its absence is taken for something: the log
// service shows rows after up to 3 s (Alibaba Cloud, Simple Log Service,
// "GetLogs"), and how long the balancer keeps them before is not published.
const logLag = 10 * time.Second

// maxGroups is how many combinations of listener, member and status a window may
// have. More is an error, not a cut.
const maxGroups = 10_000

// An AccessLog says where a balancer writes a row for each request.
type AccessLog struct {
	LoadBalancerID string `json:"load_balancer_id"`
	Project        string `json:"project"`
	Store          string `json:"store"`
}

// ListAccessLogs lists where a CLB or ALB writes its access log. None means
// that logging is off.
func (c *Client) ListAccessLogs(ctx context.Context, loadBalancerID string) ([]AccessLog, error) {
	got, err := c.api.AccessLogs(ctx, loadBalancerID)
	if err != nil {
		return nil, fmt.Errorf("cannot find the access log of %s: %w", loadBalancerID, wrap(err))
	}
	var all []AccessLog
	for _, l := range got {
		all = append(all, AccessLog(l))
	}
	return all, nil
}

// A TrafficQuery asks what a balancer sent to whom.
type TrafficQuery struct {
	LoadBalancerID string
	Port           int           // of one listener; 0 means all
	IPs            []string      // show only members with these addresses; empty means all. Shares are of all.
	Window         time.Duration // what is looked at; 0 means 5 min
	Baseline       time.Duration // what it is compared with, just before; 0 means 1 h
	Until          time.Time     // end of the window; zero means 10 s ago, when rows can be expected to have arrived
}

// Traffic is what a balancer sent in a window, and in the baseline before it.
type Traffic struct {
	LoadBalancerID string            `json:"load_balancer_id"`
	Log            *AccessLog        `json:"log,omitempty"` // nil: there is none
	BaselineFrom   time.Time         `json:"baseline_from"`
	From           time.Time         `json:"from"` // the baseline ends here
	To             time.Time         `json:"to"`
	Listeners      []ListenerTraffic `json:"listeners"`
}

// ListenerTraffic is the part of one listener.
type ListenerTraffic struct {
	Port      int               `json:"port"`
	Protocol  string            `json:"protocol"`
	Evidence  string            `json:"evidence"`         // ByAccessLog or ByConnections
	Reason    string            `json:"reason,omitempty"` // of ByConnections
	Now       Counts            `json:"now"`
	Baseline  Counts            `json:"baseline"`
	Upstreams []UpstreamTraffic `json:"upstreams"`
}

// Counts are requests. One that was tried on several members counts for each of
// them.
type Counts struct {
	Requests  int     `json:"requests"`
	Status502 int     `json:"status_502"` // the client got 502
	Status5xx int     `json:"status_5xx"` // the member (of a listener: the balancer) answered 500 to 599
	Share     float64 `json:"share"`      // of the listener's requests, 0 to 1
}

// UpstreamTraffic is the part of one member.
type UpstreamTraffic struct {
	Addr     string  `json:"addr"` // ip:port; "-" for requests that reached no member
	Now      Counts  `json:"now"`
	Baseline Counts  `json:"baseline"`
	Expected float64 `json:"expected"` // requests in the window at the rate of the baseline
}

// Missing reports whether a member that had requests before has none now,
// although at least five were to be expected.
func (u UpstreamTraffic) Missing() bool { return u.Now.Requests == 0 && u.Expected >= 5 }

// Idle reports whether a listener had too few requests before to expect any in
// the window, and has none.
func (l ListenerTraffic) Idle() bool { return l.Now.Requests == 0 && l.Baseline.Requests == 0 }

// Of sums up the members with these addresses.
func (l ListenerTraffic) Of(ips []string) (now, baseline Counts) {
	for _, u := range l.Upstreams {
		if slices.Contains(ips, hostOf(u.Addr)) {
			now.add(u.Now)
			baseline.add(u.Baseline)
		}
	}
	now.share(l.Now.Requests)
	baseline.share(l.Baseline.Requests)
	return now, baseline
}

func (c *Counts) add(o Counts) {
	c.Requests += o.Requests
	c.Status502 += o.Status502
	c.Status5xx += o.Status5xx
}

func (c *Counts) share(of int) {
	if c.Share = 0; of > 0 {
		c.Share = float64(c.Requests) / float64(of)
	}
}

func hostOf(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return a.Addr().String()
	}
	return addr
}

// GetTraffic reads a balancer's access log for a window and the baseline before
// it. Listeners without a log are in the answer too, with the reason, never as
// silent. A member that was asked in the baseline and not in the window is in
// the answer with no requests.
func (c *Client) GetTraffic(ctx context.Context, q TrafficQuery) (Traffic, error) {
	window, baseline, until := q.Window, q.Baseline, q.Until
	if window <= 0 {
		window = 5 * time.Minute
	}
	if baseline <= 0 {
		baseline = time.Hour
	}
	if until.IsZero() {
		until = time.Now().Add(-logLag)
	}
	t := Traffic{LoadBalancerID: q.LoadBalancerID, BaselineFrom: until.Add(-window - baseline), From: until.Add(-window), To: until}
	listeners, log, err := c.logged(ctx, q.LoadBalancerID, q.Port)
	if err != nil {
		return t, err
	}
	t.Log, t.Listeners = log, listeners
	if log == nil || !slices.ContainsFunc(listeners, func(l ListenerTraffic) bool { return l.Evidence == ByAccessLog }) {
		return t, nil
	}
	for i, span := range [][2]time.Time{{t.BaselineFrom, t.From}, {t.From, t.To}} {
		rows, err := c.logQuery(ctx, *log, "select slb_vport, upstream_addr, upstream_status, status, count(1) as requests"+
			" group by slb_vport, upstream_addr, upstream_status, status limit "+strconv.Itoa(maxGroups), span[0], span[1])
		if err != nil {
			return t, err
		}
		if err := t.count(rows, i == 1); err != nil {
			return t, err
		}
	}
	for n := range t.Listeners {
		l := &t.Listeners[n]
		for m := range l.Upstreams {
			u := &l.Upstreams[m]
			u.Now.share(l.Now.Requests)
			u.Baseline.share(l.Baseline.Requests)
			u.Expected = float64(u.Baseline.Requests) * window.Seconds() / baseline.Seconds()
		}
		if l.Now.Requests > 0 {
			l.Now.Share = 1
		}
		if l.Baseline.Requests > 0 {
			l.Baseline.Share = 1
		}
		slices.SortFunc(l.Upstreams, func(a, b UpstreamTraffic) int { return strings.Compare(a.Addr, b.Addr) })
		if len(q.IPs) > 0 {
			l.Upstreams = slices.DeleteFunc(l.Upstreams, func(u UpstreamTraffic) bool { return !slices.Contains(q.IPs, hostOf(u.Addr)) })
		}
	}
	return t, nil
}

// count adds rows of a query to the listeners.
func (t *Traffic) count(rows []map[string]string, now bool) error {
	for _, r := range rows {
		port, err1 := strconv.Atoi(r["slb_vport"])
		n, err2 := strconv.Atoi(r["requests"])
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("cannot read the access log of %s: a row without port or count: %w", t.LoadBalancerID, err)
		}
		i := slices.IndexFunc(t.Listeners, func(l ListenerTraffic) bool { return l.Port == port && l.Evidence == ByAccessLog })
		if i < 0 {
			continue // a listener that is gone, or was not asked for
		}
		l := &t.Listeners[i]
		status, _ := strconv.Atoi(r["status"])
		client := Counts{Requests: n}
		if status == 502 {
			client.Status502 = n
		}
		total := client
		if status >= 500 && status < 600 {
			total.Status5xx = n
		}
		if now {
			l.Now.add(total)
		} else {
			l.Baseline.add(total)
		}
		tries, said := split(r["upstream_addr"]), split(r["upstream_status"])
		for k, addr := range tries {
			if slices.Contains(tries[:k], addr) {
				continue // tried twice: one request
			}
			j := slices.IndexFunc(l.Upstreams, func(u UpstreamTraffic) bool { return u.Addr == addr })
			if j < 0 {
				j = len(l.Upstreams)
				l.Upstreams = append(l.Upstreams, UpstreamTraffic{Addr: addr})
			}
			one := client
			answer := status // of a log that does not say what each member answered
			if len(said) == len(tries) {
				answer, _ = strconv.Atoi(said[k])
			}
			if answer >= 500 && answer < 600 {
				one.Status5xx = n
			}
			if now {
				l.Upstreams[j].Now.add(one)
			} else {
				l.Upstreams[j].Baseline.add(one)
			}
		}
	}
	return nil
}

// split cuts what a row has one of for each member that was tried.
func split(s string) []string {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	if len(parts) == 0 {
		return []string{"-"}
	}
	return parts
}

// logged lists the listeners of a balancer and what is known of their traffic.
func (c *Client) logged(ctx context.Context, loadBalancerID string, port int) ([]ListenerTraffic, *AccessLog, error) {
	if loadBalancerID == "" {
		return nil, nil, errors.New("cannot read traffic without the ID of a balancer")
	}
	type listener struct {
		port     int
		protocol string
	}
	var all []listener
	product := productOf(loadBalancerID)
	if product == CLB {
		got, err := c.api.Listeners(ctx, loadBalancerID)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot list the listeners of %s: %w", loadBalancerID, wrap(err))
		}
		for _, l := range got {
			all = append(all, listener{l.Port, l.Protocol})
		}
	} else {
		got, err := c.api.Forwards(ctx, string(product), []string{loadBalancerID})
		if err != nil {
			return nil, nil, fmt.Errorf("cannot list the listeners of %s: %w", loadBalancerID, wrap(err))
		}
		for _, f := range got {
			all = append(all, listener{f.Port, f.Protocol})
		}
	}
	var logs []AccessLog
	if product != NLB {
		var err error
		if logs, err = c.ListAccessLogs(ctx, loadBalancerID); err != nil {
			return nil, nil, err
		}
	}
	var out []ListenerTraffic
	for _, l := range all {
		if port != 0 && l.port != port || slices.ContainsFunc(out, func(o ListenerTraffic) bool { return o.Port == l.port && o.Protocol == l.protocol }) {
			continue
		}
		t := ListenerTraffic{Port: l.port, Protocol: l.protocol, Evidence: ByAccessLog, Upstreams: []UpstreamTraffic{}}
		switch {
		case !requests(l.protocol):
			t.Evidence, t.Reason = ByConnections, "the cloud keeps no access log of "+l.protocol+" listeners"
		case len(logs) == 0:
			t.Evidence, t.Reason = ByConnections, "access logging is off"
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		if err := c.known(ctx, loadBalancerID); err != nil {
			return nil, nil, err
		}
		if port != 0 {
			return nil, nil, fmt.Errorf("%s has no listener %d", loadBalancerID, port)
		}
		return nil, nil, fmt.Errorf("%s has no listeners", loadBalancerID)
	}
	slices.SortFunc(out, func(a, b ListenerTraffic) int { return a.Port - b.Port })
	if len(logs) == 0 {
		return out, nil, nil
	}
	return out, &logs[0], nil
}

// requests reports whether a listener passes on requests, not connections.
func requests(protocol string) bool {
	return protocol == "http" || protocol == "https" || protocol == "quic"
}

// logQuery runs a SELECT over the rows of one balancer.
func (c *Client) logQuery(ctx context.Context, log AccessLog, sql string, from, to time.Time) ([]map[string]string, error) {
	search := `__topic__: slb_layer7_access_log and slbid: "` + log.LoadBalancerID + `"`
	if productOf(log.LoadBalancerID) == ALB {
		search = `__topic__: alb_layer7_access_log and app_lb_id: "` + log.LoadBalancerID + `"`
	}
	rows, err := c.api.GetLogs(ctx, alicloud.LogQuery{Project: log.Project, Store: log.Store, Query: search + " | " + sql, From: from, To: to})
	if err != nil {
		return nil, fmt.Errorf("cannot read the access log of %s: %w", log.LoadBalancerID, wrap(err))
	}
	return rows, nil
}

// addrPattern matches upstream_addr of requests that one of these addresses was
// asked for, and of no others: 172.31.0.5 is not 172.31.0.50 or 2.172.31.0.5.
// A request that was tried on several members has all of their addresses.
func addrPattern(ips []string) (string, error) {
	var alt []string
	for _, ip := range ips {
		a, err := netip.ParseAddr(ip)
		if err != nil || !a.Is4() {
			return "", fmt.Errorf("%q is not an IPv4 address", ip)
		}
		alt = append(alt, regexp.QuoteMeta(a.String()))
	}
	switch len(alt) {
	case 0:
		return "", errors.New("no addresses are given")
	case 1:
		return "(^|[ ,])" + alt[0] + ":", nil
	}
	return "(^|[ ,])(" + strings.Join(alt, "|") + "):", nil
}

// A ShareQuery says which share of a balancer's requests some addresses are to
// have.
type ShareQuery struct {
	TrafficQuery
	// IPs of TrafficQuery name the host. AtMost and AtLeast are shares from 0 to
	// 1; the wait ends when every logged listener is between them.
	AtMost, AtLeast float64
	// MinRequests is how many requests a listener must have had in the window
	// before its share counts; 0 means 20. Listeners that had too few for that
	// before, too, are left out: their share says nothing.
	MinRequests int
	Timeout     time.Duration // 0 means 10 min
}

// WaitShare blocks until the host's share of every logged listener is as asked,
// and returns the window that showed it. It is how production's traffic is seen
// falling before its weight goes to 0, and the clone's arriving: AtLeast just
// above 0 with MinRequests 1. Listeners without a log, and idle ones, are in the
// answer and decide nothing; when no listener can decide, that is an error at
// once.
func (c *Client) WaitShare(ctx context.Context, q ShareQuery) (Traffic, error) {
	if q.AtMost < q.AtLeast || q.AtMost < 0 {
		return Traffic{}, errors.New("cannot wait for a share within bounds that exclude each other")
	}
	return c.waitShare(ctx, q, time.Time{}, func(_ ListenerTraffic, share float64) bool { return share <= q.AtMost && share >= q.AtLeast })
}

// waitShare blocks until ok says so of every listener that can tell, in a window
// that does not begin before since.
func (c *Client) waitShare(ctx context.Context, q ShareQuery, since time.Time, ok func(l ListenerTraffic, share float64) bool) (Traffic, error) {
	if len(q.IPs) == 0 {
		return Traffic{}, errors.New("cannot wait for the share of no addresses")
	}
	ips := q.IPs
	q.TrafficQuery.IPs = nil
	least := q.MinRequests
	if least <= 0 {
		least = 20
	}
	timeout := q.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Minute
	}
	ctx, cancel := alicloud.WithLimit(ctx, timeout)
	defer cancel()
	var last Traffic
	p := poll.Poller{Interval: c.poll, Retryable: retryable}
	what := fmt.Sprintf("share of %s in the traffic of %s", strings.Join(ips, ", "), q.LoadBalancerID)
	err := p.Until(ctx, what, func(ctx context.Context) (string, bool, error) {
		t, err := c.GetTraffic(ctx, q.TrafficQuery)
		if err != nil {
			return "", false, err
		}
		last = t
		var state []string
		counted, all := 0, !t.From.Before(since)
		for _, l := range t.Listeners {
			expected := float64(l.Baseline.Requests) * float64(t.To.Sub(t.From)) / float64(t.From.Sub(t.BaselineFrom))
			if l.Evidence != ByAccessLog || l.Now.Requests < least && expected < float64(least) {
				continue
			}
			counted++
			now, _ := l.Of(ips)
			all = all && l.Now.Requests >= least && ok(l, now.Share)
			state = append(state, fmt.Sprintf("listener %d: %.1f %% of %d requests", l.Port, 100*now.Share, l.Now.Requests))
		}
		if counted == 0 {
			return "", false, poll.Stop(fmt.Errorf("no listener of %s has an access log with enough requests to tell a share from; look at the connections on the host", q.LoadBalancerID))
		}
		return strings.Join(state, ", "), all, nil
	})
	return last, err
}

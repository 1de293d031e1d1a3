package slb_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/slb"
)

// logging makes lb-1 write its access log.
func logging(sim *cloud.Cloud) { sim.SetAccessLog("lb-1", "ops-log", "slb") }

func send(sim *cloud.Cloud, n int, upstream, status string) {
	for range n {
		var code int // what the client gets is the answer of the last member
		_, _ = fmt.Sscan(status[strings.LastIndexByte(status, ' ')+1:], &code)
		sim.LogAccess(cloud.AccessLog{LoadBalancerID: "lb-1", Port: 80, URI: "/x", Status: code, UpstreamAddr: upstream, UpstreamStatus: status})
	}
}

func TestTrafficAgainstBaseline(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		logging(sim)
		sim.SetLogs(cloud.Logs{Incomplete: 2}) // each query first answers twice with half of it
		for range 60 {
			send(sim, 10, "172.31.0.90:8080", "200")
			send(sim, 10, "172.31.0.9:8080", "200")
			send(sim, 2, "172.31.0.50:8080", "200")
			time.Sleep(time.Minute)
		}
		for range 5 {
			send(sim, 3, "172.31.0.90:8080", "200")
			send(sim, 1, "172.31.0.90:8080, 172.31.0.50:8080", "502, 200") // tried twice
			send(sim, 2, "172.31.0.50:8080", "502")
			send(sim, 1, "-", "503")
			time.Sleep(time.Minute)
		}
		tr, err := c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: "lb-1"})
		require.NoError(t, err)
		require.Len(t, tr.Listeners, 2)
		http, tcp := tr.Listeners[0], tr.Listeners[1]
		assert.Equal(t, slb.ByAccessLog, http.Evidence)
		assert.Equal(t, slb.ByConnections, tcp.Evidence)
		assert.Contains(t, tcp.Reason, "tcp")
		assert.Equal(t, 9000, tcp.Port)
		assert.Equal(t, &slb.AccessLog{LoadBalancerID: "lb-1", Project: "ops-log", Store: "slb"}, tr.Log)

		by := map[string]slb.UpstreamTraffic{}
		for _, u := range http.Upstreams {
			by[u.Addr] = u
		}
		// The window ends 10 s ago, so that the minute that has just begun is not in.
		assert.Equal(t, 35, http.Now.Requests)
		assert.Equal(t, 20, by["172.31.0.90:8080"].Now.Requests)
		assert.Equal(t, 15, by["172.31.0.50:8080"].Now.Requests)
		assert.InDelta(t, 20.0/35, by["172.31.0.90:8080"].Now.Share, 1e-9)
		assert.Equal(t, 10, by["172.31.0.50:8080"].Now.Status502)
		assert.Equal(t, 10, by["172.31.0.50:8080"].Now.Status5xx, "the request that 90 failed is not 50's")
		assert.Equal(t, 5, by["172.31.0.90:8080"].Now.Status5xx)
		assert.Equal(t, 0, by["172.31.0.90:8080"].Baseline.Status5xx)
		assert.True(t, by["172.31.0.9:8080"].Missing(), "had 50 in five minutes and has none")
		assert.InDelta(t, 50, by["172.31.0.9:8080"].Expected, 2)
		assert.False(t, by["172.31.0.90:8080"].Missing())
		assert.Equal(t, 5, by["-"].Now.Requests)

		only, err := c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: "lb-1", Port: 80, IPs: []string{"172.31.0.90"}})
		require.NoError(t, err)
		require.Len(t, only.Listeners, 1)
		require.Len(t, only.Listeners[0].Upstreams, 1)
		assert.InDelta(t, 20.0/35, only.Listeners[0].Upstreams[0].Now.Share, 1e-9, "shares are of all")

		_, err = c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: "lb-1", Port: 81})
		require.ErrorContains(t, err, "no listener 81")
	})
}

// TestTrafficOfServerGroups: an ALB's log is found and read the same way, and an
// NLB has none.
func TestTrafficOfServerGroups(t *testing.T) {
	groups(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		sim.SetAccessLog("alb-1", "ops-log", "alb")
		for range 7 {
			sim.LogAccess(cloud.AccessLog{LoadBalancerID: "alb-1", ALB: true, Port: 80, Status: 200, UpstreamAddr: "172.31.0.90:8080", UpstreamStatus: "200"})
		}
		time.Sleep(time.Minute)
		tr, err := c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: "alb-1"})
		require.NoError(t, err)
		require.Len(t, tr.Listeners, 1)
		assert.Equal(t, 7, tr.Listeners[0].Now.Requests)
		s, err := c.ProveSilence(t.Context(), slb.SilenceQuery{LoadBalancerID: "alb-1", IPs: []string{"172.31.0.90"}, Window: 2 * time.Minute, Probe: func(_ context.Context, tag string, l slb.Listener) error {
			sim.LogAccess(cloud.AccessLog{LoadBalancerID: "alb-1", ALB: true, Port: l.Port, URI: "/?" + slb.ProbeParam + "=" + tag, Status: 200, UpstreamAddr: "172.31.0.51:8080"})
			return nil
		}})
		require.NoError(t, err)
		assert.Equal(t, 7, s.Requests())
		tr, err = c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: "nlb-1"})
		require.NoError(t, err)
		require.Len(t, tr.Listeners, 1)
		assert.Equal(t, slb.ByConnections, tr.Listeners[0].Evidence)
	})
}

// TestTrafficSums: whatever rows come in, each listener's requests are those
// that were sent, and no member has more than its listener.
func TestTrafficSums(t *testing.T) {
	for seed := range uint64(5) {
		world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
			logging(sim)
			rnd := rand.New(rand.NewPCG(seed, 1))
			sent, tries := 0, map[string]int{}
			for range 300 {
				addrs := []string{"172.31.0.5:80", "172.31.0.50:80", "172.31.0.51:81", "-"}
				a := addrs[rnd.IntN(len(addrs))]
				tries[a]++
				if b := addrs[rnd.IntN(3)]; a != "-" && b != a && rnd.IntN(4) == 0 {
					tries[b]++
					a += ", " + b
				}
				sim.LogAccess(cloud.AccessLog{LoadBalancerID: "lb-1", Port: 80, Status: 200, UpstreamAddr: a, UpstreamStatus: strings.Repeat("200, ", strings.Count(a, ",")) + "200"})
				sent++
				time.Sleep(time.Second)
			}
			time.Sleep(20 * time.Second)
			tr, err := c.GetTraffic(t.Context(), slb.TrafficQuery{LoadBalancerID: "lb-1", Port: 80, Window: 10 * time.Minute})
			require.NoError(t, err)
			assert.Equal(t, sent, tr.Listeners[0].Now.Requests)
			got := map[string]int{}
			for _, u := range tr.Listeners[0].Upstreams {
				got[u.Addr] = u.Now.Requests
				assert.LessOrEqual(t, u.Now.Requests, sent)
			}
			assert.Equal(t, tries, got)
		})
	}
}

// TestWaitShare: production's share is seen falling, and a listener that is idle
// or has no log decides nothing.
func TestWaitShare(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		logging(sim)
		for range 60 {
			send(sim, 50, "172.31.0.90:8080", "200")
			send(sim, 50, "172.31.0.50:8080", "200")
			time.Sleep(time.Minute)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var sender sync.WaitGroup
		defer func() { cancel(); sender.Wait() }()
		sender.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				send(sim, max(50-10*n, 1), "172.31.0.90:8080", "200")
				send(sim, 99, "172.31.0.50:8080", "200")
				time.Sleep(time.Minute)
			}
		})
		q := slb.ShareQuery{TrafficQuery: slb.TrafficQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.90"}, Window: time.Minute}, AtMost: 0.02, Timeout: time.Hour}
		start := time.Now()
		tr, err := c.WaitShare(t.Context(), q)
		require.NoError(t, err)
		now, before := tr.Listeners[0].Of([]string{"172.31.0.90"})
		assert.LessOrEqual(t, now.Share, 0.02)
		assert.Greater(t, before.Share, 0.3)
		assert.Greater(t, time.Since(start), 4*time.Minute)

		q.AtMost, q.Timeout = 0.0001, 5*time.Minute
		_, err = c.WaitShare(t.Context(), q)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "listener 80: 1.0 % of")
		cancel()
		time.Sleep(3 * time.Hour)
		_, err = c.WaitShare(t.Context(), q)
		require.ErrorContains(t, err, "no listener of lb-1 has an access log with enough requests")
	})
}

// TestFallingShare: each step has to be seen in requests that came after it, and
// a weight that the balancer does not follow is noticed.
func TestFallingShare(t *testing.T) {
	// Beside a member of weight 10, a step from 100 to 50 takes no tenth of the
	// share (91 to 83 %), and is seen all the same.
	t.Run("equal", func(t *testing.T) { fallingShare(t, 100) })
	t.Run("nearly alone", func(t *testing.T) { fallingShare(t, 10) })
}

func fallingShare(t *testing.T, other int) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		logging(sim)
		var weight atomic.Int64
		weight.Store(100)
		ctx, cancel := context.WithCancel(t.Context())
		var sender sync.WaitGroup
		defer func() { cancel(); sender.Wait() }()
		sender.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				up := "172.31.0.50:8080"
				if w := int(weight.Load()); n*37%(other+w) < w {
					up = "172.31.0.90:8080"
				}
				send(sim, 1, up, "200")
				time.Sleep(200 * time.Millisecond)
			}
		})
		time.Sleep(30 * time.Minute)
		check := c.FallingShare(slb.ShareQuery{TrafficQuery: slb.TrafficQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.90"}, Baseline: 10 * time.Minute}, Timeout: 10 * time.Minute})
		for _, w := range []int{50, 10, 1} {
			weight.Store(int64(w))
			start := time.Now()
			require.NoErrorf(t, check(ctx, w), "weight %d", w)
			assert.GreaterOrEqual(t, time.Since(start), 70*time.Second, "a window after the step, and the log's delay")
		}
		err := check(ctx, 1)
		require.ErrorContains(t, err, "the share does not fall at weight 1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestLogProof(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		q := slb.SilenceQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.90"}, Probe: prober(sim, true)}
		_, err := c.LogProof(q)(t.Context())
		require.ErrorContains(t, err, "access logging is off")
		all, err := c.ListEvidence(t.Context(), "lb-1")
		require.NoError(t, err)
		assert.Equal(t, []string{slb.ByConnections, slb.ByConnections}, []string{all[0].Evidence, all[1].Evidence})
		logging(sim)
		send(sim, 3, "172.31.0.90:8080", "200")
		e, err := c.LogProof(q)(t.Context())
		require.NoError(t, err)
		assert.False(t, e.Silent)
		time.Sleep(5 * time.Minute)
		e, err = c.LogProof(q)(t.Context())
		require.NoError(t, err)
		assert.True(t, e.Silent)
		assert.Equal(t, "access log of lb-1", e.Source)
		assert.Contains(t, e.Detail, "tcp:9000 connections only")
	})
}

// prober sends probes that the balancer answers and logs.
func prober(sim *cloud.Cloud, log bool) slb.Probe {
	return func(_ context.Context, tag string, l slb.Listener) error {
		if log {
			sim.LogAccess(cloud.AccessLog{LoadBalancerID: l.LoadBalancerID, Port: l.Port, URI: "/?" + slb.ProbeParam + "=" + tag, Status: 200, UpstreamAddr: "172.31.0.51:8080", UpstreamStatus: "200"})
		}
		return nil
	}
}

func TestSilence(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		logging(sim)
		sim.SetLogs(cloud.Logs{Delay: 40 * time.Second})
		q := slb.SilenceQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.5"}, Probe: prober(sim, true)}
		// Others whose addresses begin or end alike are not the host.
		send(sim, 5, "172.31.0.50:8080", "200")
		send(sim, 5, "172.31.0.51:8080, 1.172.31.0.5:80", "502, 200")
		s, err := c.ProveSilence(t.Context(), q)
		require.NoError(t, err)
		assert.True(t, s.Silent(), s)
		require.Len(t, s.Listeners, 2)
		assert.GreaterOrEqual(t, s.Listeners[0].ProbeAfter, 40*time.Second)
		unlogged := s.Unlogged()
		require.Len(t, unlogged, 1)
		assert.Equal(t, 9000, unlogged[0].Port)
		assert.Contains(t, s.String(), "tcp:9000 connections only")

		// A request just before: the log shows it 40 s later, and a look at the log
		// now would find nothing.
		send(sim, 1, "172.31.0.51:8080, 172.31.0.5:8080", "502, 200")
		s, err = c.ProveSilence(t.Context(), q)
		require.NoError(t, err)
		assert.False(t, s.Silent())
		assert.Equal(t, 1, s.Requests())

		s, err = c.WaitSilence(t.Context(), q)
		require.NoError(t, err)
		assert.True(t, s.Silent())
	})
}

// TestSilenceIsNeverNoData: a log that is late, off, or not asked with a probe
// never counts as silence.
func TestSilenceIsNeverNoData(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		q := slb.SilenceQuery{LoadBalancerID: "lb-1", IPs: []string{"172.31.0.90"}, Probe: prober(sim, true)}
		s, err := c.ProveSilence(t.Context(), q)
		require.NoError(t, err)
		assert.False(t, s.Silent(), "logging is off")
		assert.Len(t, s.Unlogged(), 2)
		assert.Contains(t, s.String(), "access logging is off")
		_, err = c.WaitSilence(t.Context(), q)
		require.ErrorContains(t, err, "cannot prove silence")

		logging(sim)
		q.Probe = nil
		s, err = c.ProveSilence(t.Context(), q)
		require.NoError(t, err)
		assert.False(t, s.Silent(), "no probe")
		assert.Contains(t, s.String(), "no probe was sent")

		q.Probe = prober(sim, false) // logs are lost
		_, err = c.ProveSilence(t.Context(), q)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "a probe does not show up")

		q.Probe = func(context.Context, string, slb.Listener) error { return errors.New("connection refused") }
		_, err = c.ProveSilence(t.Context(), q)
		require.ErrorContains(t, err, "cannot send a probe through http:80")

		q.Probe, q.IPs = prober(sim, true), []string{"172.31.0.9.*"}
		_, err = c.ProveSilence(t.Context(), q)
		require.ErrorContains(t, err, "not an IPv4 address")
		assert.False(t, slb.Silence{}.Silent(), "nothing looked at is not silence")
	})
}

func TestLogErrors(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		logging(sim)
		q := slb.TrafficQuery{LoadBalancerID: "lb-1", Port: 80}
		for _, f := range []cloud.Fault{
			{Action: "sls:GetLogs", Code: "ServerBusy", Status: 503}, {Action: "sls:GetLogs", Code: "ReadQuotaExceed", Status: 403},
			{Action: "sls:GetLogs", Code: "InternalServerError", Status: 500}, {Action: "sls:GetLogs", Kind: cloud.FaultHTML},
			{Action: "sls:GetLogs", Kind: cloud.FaultEmpty}, {Action: "sls:GetLogs", Kind: cloud.FaultCut},
		} {
			sim.InjectFault(f)
			_, err := c.GetTraffic(t.Context(), q)
			require.NoErrorf(t, err, "%s %s is asked again", f.Kind, f.Code)
		}
		for code, want := range map[string]string{
			"ProjectNotExist": "there is no log store slb of project ops-log in cn-hangzhou", "LogStoreNotExist": "deleted or renamed",
			"ParameterInvalid": "switch the index", "Unauthorized": "grant it log:GetLogStoreLogs",
			"SignatureNotMatch": "access key", "RequestTimeTooSkewed": "set the clock",
		} {
			sim.InjectFault(cloud.Fault{Action: "sls:GetLogs", Code: code, Status: 403, Message: "said by the service " + secret})
			_, err := c.GetTraffic(t.Context(), q)
			require.ErrorContains(t, err, code)
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), secret)
			assert.NotContains(t, err.Error(), keyID)
		}
		sim.Deny("sls:GetLogs")
		_, err := c.GetTraffic(t.Context(), q)
		require.ErrorContains(t, err, "grant it log:GetLogStoreLogs")
	})
}

func TestCreateRule(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		want := slb.Rule{Domain: "pay.example.com", VServerGroupID: "rsp-2"}
		// The first answer is lost after the effect: no second rule.
		sim.InjectFault(cloud.Fault{Action: "CreateRules", Kind: cloud.FaultCut, Applied: true})
		r, err := c.CreateRule(t.Context(), "lb-1", 80, "", want)
		require.NoError(t, err)
		assert.NotEmpty(t, r.ID)
		again, err := c.CreateRule(t.Context(), "lb-1", 80, "http", want)
		require.NoError(t, err)
		assert.Equal(t, r, again)
		assert.Equal(t, 1, sim.Counts()["CreateRules"])

		want.VServerGroupID = "rsp-3"
		_, err = c.CreateRule(t.Context(), "lb-1", 80, "", want)
		var conflict *slb.RuleConflictError
		require.ErrorAs(t, err, &conflict)
		require.ErrorIs(t, err, slb.ErrConflict)
		for what, q := range map[string]struct {
			port int
			r    slb.Rule
		}{
			"only HTTP and HTTPS": {9000, want}, "no listener": {81, want}, "no VServer group rsp-9": {80, slb.Rule{Domain: "a.example.com", VServerGroupID: "rsp-9"}},
			"neither domain nor URL": {80, slb.Rule{VServerGroupID: "rsp-2"}}, "does not begin with /": {80, slb.Rule{URL: "x", VServerGroupID: "rsp-2"}},
			"no domain": {80, slb.Rule{Domain: "https://x", VServerGroupID: "rsp-2"}},
		} {
			_, err := c.CreateRule(t.Context(), "lb-1", q.port, "", q.r)
			require.ErrorContains(t, err, what)
		}
		rules, err := c.ListRules(t.Context(), "lb-1", 80, "")
		require.NoError(t, err)
		assert.Len(t, rules, 2)
	})
}

// names resolves like a table.
type names map[string]string

func (n names) LookupHost(_ context.Context, host string) ([]string, error) {
	if n[host] == "" {
		return nil, &netError{host}
	}
	return []string{n[host]}, nil
}

type netError struct{ host string }

func (e *netError) Error() string { return "server misbehaving: " + e.host }

func TestForwarding(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		for n := range 130 { // two pages of domains
			sim.AddDNSRecord(cloud.DNSRecord{Domain: fmt.Sprintf("d%d.example", n), RR: "@", Value: "203.0.113.9"})
		}
		sim.AddDNSRecord(cloud.DNSRecord{ID: "rec-1", Domain: "example.com", RR: "pay", Value: "172.31.0.5", TTL: 300})
		sim.AddDNSRecord(cloud.DNSRecord{ID: "rec-2", Domain: "example.com", RR: "other", Value: "172.31.0.50"})
		sim.AddDNSRecord(cloud.DNSRecord{ID: "rec-3", Domain: "example.com", RR: "off", Value: "172.31.0.5", Disabled: true})
		records, err := c.ListDomainRecords(t.Context(), []string{"172.31.0.5"})
		require.NoError(t, err)
		require.Len(t, records, 2, "172.31.0.50 is another address")
		assert.Equal(t, "pay.example.com", records[0].Name())

		dns := names{"pay.example.com": "172.31.0.5", "shop.example.org": "172.31.0.5", "else.example.org": "172.31.0.50"}
		resolved, err := slb.ResolveDomains(t.Context(), dns, []string{"pay.example.com", "shop.example.org", "else.example.org", "broken.example.org"}, []string{"172.31.0.5"})
		require.ErrorContains(t, err, "broken.example.org", "what cannot be looked up is not nothing")
		require.Len(t, resolved, 2)

		items := slb.PlanForwarding(records, resolved, slb.ForwardTarget{LoadBalancerID: "lb-1", Address: "172.31.1.1", Port: 80, VServerGroupID: "rsp-2"})
		require.Len(t, items, 2)
		assert.Equal(t, slb.ForwardingItem{Domain: "pay.example.com", RecordID: "rec-1", Zone: "example.com", Type: "A", Value: "172.31.0.5", Want: "172.31.1.1", WantType: "A",
			TTL: 300, Line: "default", Wait: 5 * time.Minute, LoadBalancerID: "lb-1", Port: 80, VServerGroupID: "rsp-2"}, items[0])
		assert.Equal(t, "create a rule on lb-1 listener 80: domain pay.example.com to group rsp-2; then change record pay.example.com from A 172.31.0.5 to A 172.31.1.1 and wait for its TTL of 300 s", items[0].String())
		assert.Equal(t, "shop.example.org", items[1].Domain)

		left, err := c.CheckForwarding(t.Context(), dns, items[0])
		require.NoError(t, err)
		assert.Len(t, left, 3, "rule, record and resolver: %q", left)
		_, err = c.CreateRule(t.Context(), "lb-1", 80, "", slb.Rule{Domain: "pay.example.com", VServerGroupID: "rsp-2"})
		require.NoError(t, err)
		require.True(t, sim.SetDNSRecord("rec-1", "A", "172.31.1.1"))
		left, err = c.CheckForwarding(t.Context(), dns, items[0])
		require.NoError(t, err)
		assert.Equal(t, []string{"pay.example.com still leads to 172.31.0.5 from here"}, left)
		dns["pay.example.com"] = "172.31.1.1"
		left, err = c.CheckForwarding(t.Context(), dns, items[0])
		require.NoError(t, err)
		assert.Empty(t, left)
	})
}

func TestPaths(t *testing.T) {
	world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
		h := slb.PathHost{Server: slb.Server{InstanceID: "i-90", ENIs: []string{"eni-90"}, IPs: []string{"172.31.0.90"}}, VPC: "vpc-sim"}
		found, err := c.ListPaths(t.Context(), h)
		require.NoError(t, err)
		assert.Empty(t, found)

		sim.AddEIP(cloud.EIP{ID: "eip-1", Address: "203.0.113.7", InstanceID: "eni-90"})
		sim.AddEIP(cloud.EIP{ID: "eip-2", Address: "203.0.113.8", InstanceID: "i-50"})
		var entries []cloud.ForwardEntry
		for n := range 60 { // more than a page
			entries = append(entries, cloud.ForwardEntry{ExternalIP: "203.0.113.70", ExternalPort: fmt.Sprint(1000 + n), InternalIP: fmt.Sprintf("172.31.0.%d", 9+n), InternalPort: "80"})
		}
		entries = append(entries, cloud.ForwardEntry{ID: "fwd-1", ExternalIP: "203.0.113.70", ExternalPort: "443", InternalIP: "172.31.0.90", InternalPort: "8443"})
		sim.AddNATGateway(cloud.NATGateway{ID: "ngw-1", Entries: entries})
		sim.AddHaVip(cloud.HaVip{ID: "havip-1", Address: "172.31.0.99", Master: "i-50", Instances: []string{"i-50", "i-90"}})
		sim.AddRoute(cloud.Route{ID: "rte-1", Destination: "10.8.0.0/16", NextHopID: "i-90"})
		sim.AddScalingMember(cloud.ScalingMember{Group: "asg-1", InstanceID: "i-90"})
		sim.AddDNSRecord(cloud.DNSRecord{ID: "rec-1", Domain: "example.com", RR: "www", Value: "203.0.113.7"}) // the EIP's
		sim.AddDNSRecord(cloud.DNSRecord{ID: "rec-2", Domain: "example.com", RR: "w2", Value: "203.0.113.70"})
		h.Tags, h.PublicIPs = map[string]string{"ack.aliyun.com": "c1"}, []string{"203.0.113.7", "203.0.113.60"}
		h.Domains, h.Resolver = []string{"old.example.net"}, names{"old.example.net": "203.0.113.60"}
		found, err = c.ListPaths(t.Context(), h)
		require.NoError(t, err)
		var got []string
		for _, f := range found {
			got = append(got, f.Severity+" "+f.Kind+" "+f.ID)
			assert.NotEmpty(t, f.Evidence)
			assert.NotEmpty(t, f.Remedy)
			assert.NotContains(t, f.String(), "\n")
		}
		assert.ElementsMatch(t, []string{
			"block cluster-node i-90", "warn eip eip-1", "block dnat fwd-1", "block havip havip-1", "block route rte-1",
			"block scaling-group asg-1", "block domain rec-1", "warn public-ip 203.0.113.60", "block domain old.example.net",
		}, got)
	})
}

// TestPathsNotChecked: whatever the account may not ask is a finding that names
// the permission, one for each question, and the others are still asked.
func TestPathsNotChecked(t *testing.T) {
	for action, permission := range map[string]string{
		"vpc:DescribeEipAddresses": "vpc:DescribeEipAddresses", "vpc:DescribeNatGateways": "vpc:DescribeNatGateways",
		"vpc:DescribeHaVips": "vpc:DescribeHaVips", "vpc:DescribeRouteTableList": "vpc:DescribeRouteTableList", "ess:DescribeScalingInstances": "ess:DescribeScalingInstances",
		"alidns:DescribeDomains": "alidns:DescribeDomains",
	} {
		t.Run(action, func(t *testing.T) {
			world(t, func(t *testing.T, sim *cloud.Cloud, c *slb.Client) {
				sim.Deny(action)
				sim.AddScalingMember(cloud.ScalingMember{Group: "asg-1", InstanceID: "i-90", State: "Standby"})
				found, err := c.ListPaths(t.Context(), slb.PathHost{Server: slb.Server{InstanceID: "i-90", IPs: []string{"172.31.0.90"}}, VPC: "vpc-sim"})
				require.NoError(t, err)
				var kinds []string
				for _, f := range found {
					kinds = append(kinds, f.Kind)
					if f.Kind == slb.PathNotChecked {
						assert.Equal(t, "not checked: needs "+permission, f.Evidence)
					}
				}
				want := []string{slb.PathNotChecked, slb.PathScalingGroup}
				if action == "ess:DescribeScalingInstances" {
					want = want[:1]
				}
				assert.ElementsMatch(t, want, kinds)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // a wrong key is an error, not six findings
		sim := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
		defer sim.Close()
		c, err := slb.New(slb.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: "another secret of this test"}, slb.WithTransport(sim.Transport()))
		require.NoError(t, err)
		_, err = c.ListPaths(t.Context(), slb.PathHost{Server: slb.Server{InstanceID: "i-90", IPs: []string{"172.31.0.90"}}, VPC: "vpc-sim"})
		require.ErrorIs(t, err, slb.ErrCredentials)
	})
}

// TestHTTPProbe: the tag, the domain and the path reach the balancer.
func TestHTTPProbe(t *testing.T) {
	var got *http.Request
	rt := roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r
		return &http.Response{StatusCode: 404, Body: http.NoBody}, nil
	})
	require.NoError(t, slb.HTTPProbe("172.31.1.1", rt)(t.Context(), "abc123", slb.Listener{Port: 443, Protocol: "https", Domain: "*.example.com", URL: "/api"}))
	assert.Equal(t, "https://172.31.1.1:443/api?upgradectl-probe=abc123", got.URL.String())
	assert.Equal(t, "probe.example.com", got.Host)
	require.Error(t, slb.HTTPProbe("172.31.1.1", roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }))(t.Context(), "abc", slb.Listener{Port: 80, Protocol: "http"}))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

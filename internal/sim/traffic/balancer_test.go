package traffic

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/cookiejar"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ask asks a service for a host and path and returns who answered ("" for
// nobody).
func ask(t *testing.T, b *Balancer, c *http.Client, host, path string) string {
	t.Helper()
	at, ok := b.Endpoint("172.31.0.200:80")
	require.True(t, ok)
	req, err := http.NewRequest(http.MethodGet, "http://"+at+path, nil)
	require.NoError(t, err)
	req.Host = host
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var who struct{ Addr string }
	_ = json.NewDecoder(resp.Body).Decode(&who)
	return who.Addr
}

func TestRulesChooseTheGroup(t *testing.T) {
	n := newNetwork(t)
	addr := func(last string) []Member { return []Member{{"172.31.0." + last + ":8080", 1}} }
	for _, last := range []string{"1", "2", "3", "4", "5"} {
		n.app("172.31.0." + last + ":8080")
	}
	s := clb(80, "http", addr("1")...)
	s.Rules = CLBRules([]Rule{
		{Paths: []string{"/img*"}, Group: "img", Members: addr("2")},
		{Domains: []string{"*.example.com"}, Group: "any", Members: addr("3")},
		{Domains: []string{"shop.example.com"}, Group: "shop", Members: addr("4")},
		{Domains: []string{"shop.example.com"}, Paths: []string{"/img/big*"}, Group: "big", Members: addr("5")},
	})
	b := n.balanced(s)
	c := &http.Client{}
	defer c.CloseIdleConnections()
	for _, tt := range []struct{ host, path, want string }{
		{"other.org", "/", "172.31.0.1"},
		{"other.org", "/img/a", "172.31.0.2"},
		{"a.example.com", "/img/a", "172.31.0.3"},
		{"SHOP.example.com:80", "/", "172.31.0.4"},
		{"shop.example.com", "/img/big/1", "172.31.0.5"},
		{"shop.example.com", "/img/small", "172.31.0.4"},
		{"example.com", "/", "172.31.0.1"},
	} {
		assert.Equal(t, tt.want, ask(t, b, c, tt.host, tt.path), "%s%s", tt.host, tt.path)
	}
	// A rule that goes takes its group along; the others stay.
	s.Rules = s.Rules[1:]
	require.NoError(t, b.Set([]Service{s}))
	assert.Equal(t, "172.31.0.4", ask(t, b, c, "shop.example.com", "/img/big/1"))
	s.Rules = nil
	require.NoError(t, b.Set([]Service{s}))
	assert.Equal(t, "172.31.0.1", ask(t, b, c, "shop.example.com", "/"))
}

// A client with a cookie stays with its member, also at weight 0, until the
// cookie is too old or the member is gone; a client without one goes elsewhere.
func TestStickySessionsIgnoreWeightZero(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.1:8080")
	n.app("172.31.0.2:8080")
	s := clb(80, "http", Member{"172.31.0.1:8080", 1}, Member{"172.31.0.2:8080", 1})
	s.Sticky = time.Hour
	b := n.balanced(s)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	stuck, fresh := &http.Client{Jar: jar}, &http.Client{}
	defer stuck.CloseIdleConnections()
	defer fresh.CloseIdleConnections()
	home := ask(t, b, stuck, "x", "/")
	for i := range s.Members {
		if s.Members[i].Addr == home+":8080" {
			s.Members[i].Weight = 0
		}
	}
	require.NoError(t, b.Set([]Service{s}))
	for range 4 {
		assert.Equal(t, home, ask(t, b, stuck, "x", "/"))
		assert.NotEqual(t, home, ask(t, b, fresh, "x", "/"))
	}
	s.Sticky = time.Nanosecond
	require.NoError(t, b.Set([]Service{s}))
	assert.NotEqual(t, home, ask(t, b, stuck, "x", "/"), "its cookie is too old")
}

func TestAccessEntries(t *testing.T) {
	n := newNetwork(t)
	n.app("172.31.0.1:8080")
	var mu sync.Mutex
	var rows []AccessEntry
	b := NewBalancer(BalancerConfig{Dial: n.dial, Interval: 10 * time.Millisecond, Log: func(e AccessEntry) {
		mu.Lock()
		defer mu.Unlock()
		rows = append(rows, e)
	}})
	t.Cleanup(b.Close)
	s := Service{Addr: "172.31.0.200:80", Protocol: "http", LoadBalancerID: "lb-1", Members: []Member{{"172.31.0.1:8080", 1}}}
	require.NoError(t, b.Set([]Service{s}))
	c := &http.Client{}
	defer c.CloseIdleConnections()
	// A row is written when its request has ended, which the client may know first.
	written := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(rows) == n }, 30*time.Second, time.Millisecond)
	}
	require.Equal(t, "172.31.0.1", ask(t, b, c, "shop.example.com", "/a?b=1"))
	written(1)
	n.kill("172.31.0.1:8080")
	ask(t, b, c, "shop.example.com", "/b")
	written(2)
	s.Members[0].Weight = 0
	require.NoError(t, b.Set([]Service{s}))
	ask(t, b, c, "shop.example.com", "/c")
	written(3)
	mu.Lock()
	defer mu.Unlock()
	for i, want := range []AccessEntry{
		{URI: "/a?b=1", Status: 200, UpstreamAddr: "172.31.0.1:8080", UpstreamStatus: "200"},
		{URI: "/b", Status: 502, UpstreamAddr: "172.31.0.1:8080", UpstreamStatus: "502"},
		{URI: "/c", Status: 503, UpstreamAddr: "-", UpstreamStatus: "-"},
	} {
		got := rows[i]
		assert.Equal(t, want, AccessEntry{URI: got.URI, Status: got.Status, UpstreamAddr: got.UpstreamAddr, UpstreamStatus: got.UpstreamStatus})
		assert.Equal(t, "lb-1", got.LoadBalancerID)
		assert.Equal(t, "shop.example.com", got.Host)
		assert.Equal(t, "203.0.113.10", got.ClientIP)
		assert.Positive(t, got.Sent)
	}
}

// wlc gives new connections to the member with the fewest for its weight.
func TestLeastConnections(t *testing.T) {
	n := newNetwork(t)
	b := n.balanced(Service{Addr: "172.31.0.200:80", Protocol: "tcp", Scheduler: "wlc", Members: []Member{{"172.31.0.1:1", 30}, {"172.31.0.2:1", 10}, {"172.31.0.3:1", 0}}})
	p := b.services["172.31.0.200:80"].own
	var held []*member
	for range 40 {
		held = append(held, p.pick())
	}
	count := map[string]int{}
	for _, m := range held {
		count[m.Addr]++
	}
	assert.Equal(t, map[string]int{"172.31.0.1:1": 30, "172.31.0.2:1": 10}, count)
	for _, m := range held {
		if m.Addr == "172.31.0.2:1" {
			p.settle(m)
		}
	}
	for range 10 {
		assert.Equal(t, "172.31.0.2:1", p.pick().Addr, "it is idle")
	}
}

func TestUnknownSchedulersAreRefused(t *testing.T) {
	b := NewBalancer(BalancerConfig{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, context.Canceled }})
	defer b.Close()
	require.ErrorContains(t, b.Set([]Service{{Addr: "a:1", Protocol: "tcp", Scheduler: "sch"}}), "sch")
	require.ErrorContains(t, b.Set([]Service{{Addr: "a:1", Protocol: "tcp", Sticky: time.Second}}), "sticky")
	require.ErrorContains(t, b.Set([]Service{{Addr: "a:1", Protocol: "http", Rules: []Rule{{Scheduler: "qch"}}}}), "qch")
}

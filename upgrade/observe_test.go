package upgrade

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/slb"
)

// TestTraffic is the rule by which two samples prove requests.
func TestTraffic(t *testing.T) {
	var (
		open      = &flow{peer: "172.31.0.5", open: true}
		closed    = &flow{peer: "172.31.0.5"}
		l7        = &flow{peer: balancerPeer, open: true, check: true}
		l7closed  = &flow{peer: balancerPeer, check: true}
		l4        = &flow{peer: balancerPeer, open: true}
		l4closed  = &flow{peer: balancerPeer}
		direct    = &flow{peer: "10.1.2.3", open: true}
		goneAgain *flow
	)
	for _, c := range []struct {
		name        string
		before, now *flow
		want        bool
	}{
		{"a connection that stays open", open, open, true},
		{"a new connection", nil, open, true},
		{"a request that began and ended between two samples", nil, closed, true},
		{"the end of a connection that was counted before", open, closed, false},
		{"what is left of an old connection", closed, closed, false},
		{"a connection that is gone", open, goneAgain, false},
		{"the health check of a layer-7 balancer", nil, l7, false},
		{"its end", l7, l7closed, false},
		{"its trace alone", nil, l7closed, false},
		{"a check's port used anew", l7closed, l7, false},
		{"a layer-7 connection that lives on", l7, l7, true},
		{"a client behind a layer-4 listener", nil, l4, true},
		{"a short one", nil, l4closed, true},
		{"what is left of it", l4closed, l4closed, false},
		{"a client past nginx and balancers", nil, direct, true},
	} {
		sample := func(f *flow) map[string]flow {
			if f == nil {
				return map[string]flow{}
			}
			return map[string]flow{"x": *f}
		}
		assert.Equal(t, c.want, len(traffic(sample(c.before), sample(c.now))) == 1, c.name)
	}
	assert.Empty(t, traffic(nil, nil))
	assert.Equal(t, "10.1.2.3 1 connections, balancer 2 connections", describe(map[string]flow{"a": *l7, "b": *l4, "c": *direct}))
	assert.Equal(t, "not quiet for long enough", describe(nil))
}

func TestWhoIsWho(t *testing.T) {
	assert.Equal(t, map[int]passing{8080: {clients: true}, 9000: {clients: true}, 7000: {vpc: true}}, behindBalancers([]slb.Membership{
		{Product: slb.ALB, Backend: slb.Backend{Port: 7000}, Listeners: []slb.Listener{{Port: 80, Protocol: "http"}}},
		{Backend: slb.Backend{Port: 8080}, Listeners: []slb.Listener{{Port: 80, Protocol: "http"}, {Port: 81, Protocol: "tcp"}}},
		{Backend: slb.Backend{}, Listeners: []slb.Listener{{Port: 90, Protocol: "udp", BackendPort: 9000}, {Port: 443, Protocol: "https", BackendPort: 8443}}},
	}))
	for ip, want := range map[string]bool{"100.64.0.10": true, "100.127.255.254": true, "::ffff:100.64.0.10": true, "100.128.0.1": false, "172.31.0.5": false, "": false} {
		assert.Equal(t, want, isBalancer(ip), ip)
	}
	for ip, want := range map[string]bool{"127.0.0.1": true, "::1": true, "172.31.0.90": true, "172.31.0.5": false, "x": false} {
		assert.Equal(t, want, isLocal(ip, "172.31.0.90"), ip)
	}
	assert.Equal(t, map[int]map[int][]int{7: {80: {8081, 18081}}}, publishedPorts(&hostinv.Inventory{Containers: []hostinv.Container{
		{PID: 7, Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8081}, {Proto: "tcp", ContainerPort: 80, HostPort: 18081}, {Proto: "udp", ContainerPort: 53, HostPort: 53}}},
		{Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 81, HostPort: 8082}}},
	}}))
	for pair, want := range map[[2]string]bool{
		{"172.18.0.3", "172.18.0.2"}: true, {"172.17.0.2", "172.17.0.1"}: true,
		{"172.17.0.2", "172.31.0.5"}: false, {"172.17.0.2", "100.64.0.10"}: false, {"", "172.17.0.1"}: false,
	} {
		assert.Equal(t, want, sameBridge(pair[0], pair[1]), pair)
	}
}

// simulated gives an Env in which the simulated hosts are reached by address.
func simulated(t *testing.T, addrs ...string) (*Env, map[string]*host.Host) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	id := filepath.Join(t.TempDir(), "id")
	require.NoError(t, os.WriteFile(id, pem.EncodeToMemory(block), 0o600))
	hosts, at := map[string]*host.Host{}, map[string]string{}
	for _, addr := range addrs {
		var wg sync.WaitGroup
		h, err := host.New(host.Spec{Name: addr, Addr: addr, Users: []host.User{{Name: "root", AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}}}}, host.Options{Speed: 60})
		require.NoError(t, err)
		t.Cleanup(h.Close)
		require.NoError(t, h.Start())
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		wg.Go(func() {
			for {
				raw, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { h.ServeSSH(raw) })
			}
		})
		t.Cleanup(func() { l.Close(); wg.Wait() })
		hosts[addr], at[addr] = h, l.Addr().String()
	}
	d, err := hostinv.NewDialer(hostinv.SSHConfig{User: "root", Identities: []string{id}, KnownHosts: []string{},
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ip, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, at[ip])
		}})
	require.NoError(t, err)
	e := &Env{Dialer: d, links: map[string]*link{}}
	for addr, h := range hosts {
		require.NoError(t, d.Pin(addr, []string{h.HostKey()}))
	}
	t.Cleanup(func() {
		for _, l := range e.links {
			l.drop(nil)
		}
		assert.NoError(t, d.Close())
	})
	return e, hosts
}

// TestWhoSends reads connection tables and says of each connection whose it
// is.
func TestWhoSends(t *testing.T) {
	e, hosts := simulated(t, "172.31.0.90", "172.31.0.5")
	web, proxy := hosts["172.31.0.90"], hosts["172.31.0.5"]
	port := 40000
	track := func(h *host.Host, local string, localPort int, remote string, remotePort int) (done func()) {
		return h.Track(host.Conn{LocalIP: local, LocalPort: localPort, RemoteIP: remote, RemotePort: remotePort})
	}
	from := func(remote string, to int) (done func()) {
		port++
		return track(web, "172.31.0.90", to, remote, port)
	}
	cfg := &Config{
		Address: "172.31.0.90", Nginx: []NginxHost{{Host: "172.31.0.5"}},
		Services: []Service{{Name: "order", Kind: KindJava, Ports: []int{8080}}, {Name: "pay", Kind: KindJava, Ports: []int{8083}}},
		Pace:     Pace{Sample: 20 * time.Millisecond, Observe: 3, Timeout: 20 * time.Second},
	}
	known, err := nginxAddrs(t.Context(), cfg, e)
	require.NoError(t, err)
	w := &watch{env: e, cfg: cfg, host: e.host("172.31.0.90"), ip: "172.31.0.90", known: known, behind: map[int]passing{8083: {clients: true}}}
	peers := func(before, now map[string]flow) map[string]int {
		out := map[string]int{}
		for _, f := range traffic(before, now) {
			out[f.peer]++
		}
		return out
	}

	empty, err := w.sample(t.Context())
	require.NoError(t, err)
	assert.Empty(t, empty)
	from("172.31.0.90", 8080)                              // from itself
	from("10.9.9.9", 22)                                   // not a service
	from("100.64.0.10", 8080)                              // a layer-7 balancer: may be a check
	fromL4 := from("100.64.0.10", 8083)                    // from a balancer's own address: may be a check as well
	track(proxy, "172.31.0.5", 50000, "172.31.0.88", 8080) // nginx to another backend
	first, err := w.sample(t.Context())
	require.NoError(t, err)
	assert.Empty(t, peers(empty, first))

	endNginx := track(proxy, "172.31.0.5", 50001, "172.31.0.90", 8080)
	endClient := from("203.0.113.7", 8083) // through the layer-4 listener
	endDirect := from("10.1.2.3", 8080)
	second, err := w.sample(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"172.31.0.5": 1, balancerPeer: 3, "10.1.2.3": 1}, peers(first, second), "the balancer's two connections live on")

	for _, end := range []func(){fromL4, endNginx, endClient, endDirect} {
		end()
	}
	third, err := w.sample(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{balancerPeer: 1}, peers(second, third), "TIME_WAIT of what was seen open is no news")
	fourth, err := w.sample(t.Context())
	require.NoError(t, err)
	from("10.1.2.4", 8080)()
	fifth, err := w.sample(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{balancerPeer: 1, "10.1.2.4": 1}, peers(fourth, fifth), "a request between two samples has left its TIME_WAIT")

	arrival, err := w.waitArrival(t.Context(), nil, []string{balancerPeer})
	require.NoError(t, err)
	assert.Greater(t, arrival.Seen[balancerPeer], 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.waitSilence(ctx, nil, nil)
	require.ErrorIs(t, err, context.Canceled)
	silence, err := w.waitSilence(t.Context(), nil, func(peer string) bool { return peer != balancerPeer })
	require.NoError(t, err)
	assert.Equal(t, Silence{Host: "172.31.0.90", Samples: 4, Quiet: 3}, silence)

	cfg.Pace.Timeout = 200 * time.Millisecond
	_, err = w.waitArrival(t.Context(), nil, []string{"172.31.0.5"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "was seen from 172.31.0.5")
	for _, h := range hosts {
		assert.Empty(t, h.Refused())
	}
}

package hostinv_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// TestSimulatedHost holds the collector and the simulated host together: all
// it runs there is understood, and all there is, is found.
func TestSimulatedHost(t *testing.T) {
	id, pub := newKey(t, "id")
	h, err := host.New(host.Spec{
		Name: "web-90", Addr: "172.31.0.90",
		Users:      []host.User{{Name: "root", AuthorizedKeys: []string{pub}}, {Name: "app", UID: 1000}},
		Units:      []host.Unit{{Name: "docker", Enabled: true, Active: true}, {Name: "idle"}},
		Containers: []host.Container{{Name: "cache", Image: "redis:6", Restart: "always", Ports: []host.Port{{Host: 8082, Container: 6379}}}},
		Processes:  []host.Process{{Args: []string{"/usr/bin/java", "-Dkey.password=hunter2", "-jar", "order.jar"}, Cwd: "/srv/order one", User: "app", Ports: []int{8080}}},
	}, host.Options{Speed: 60})
	require.NoError(t, err)
	defer h.Close()
	require.NoError(t, h.Start())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { h.ServeSSH(raw) })
		}
	})
	defer wg.Wait()
	defer l.Close()
	d, err := hostinv.NewDialer(hostinv.SSHConfig{User: "root", Identities: []string{id}, KnownHosts: []string{},
		NetDial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
		}})
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, d.Pin("172.31.0.90", []string{h.HostKey()}))
	c, err := d.Dial(t.Context(), "172.31.0.90")
	require.NoError(t, err)
	defer c.Close()
	inv, err := hostinv.Collect(t.Context(), c, hostinv.Options{})
	require.NoError(t, err)
	absent := map[string]bool{hostinv.SectionSupervisor: true, hostinv.SectionNginx: true}
	for _, n := range hostinv.SectionNames() {
		s, want := inv.Sections[n], hostinv.StatusOK
		if absent[n] {
			want = hostinv.StatusAbsent
		}
		assert.Equal(t, want, s.Status, "%s: %s %s", n, s.Message, s.Unreadable)
	}
	t.Log("\n" + inv.Text(hostinv.English))
	require.Len(t, inv.Java, 1)
	j := inv.Java[0]
	assert.Equal(t, "/srv/order one", j.Cwd)
	assert.Equal(t, "app", j.User)
	assert.Equal(t, []int{8080}, j.Ports)
	require.Len(t, inv.Containers, 1)
	assert.Equal(t, "always", inv.Containers[0].RestartPolicy)
	assert.Equal(t, []hostinv.Port{{Proto: "tcp", ContainerPort: 6379, HostIP: "0.0.0.0", HostPort: 8082}}, inv.Containers[0].Ports)
	assert.Empty(t, hostinv.Diff(inv, inv, hostinv.Expect{}).Findings)
	assert.Empty(t, h.Refused())
}

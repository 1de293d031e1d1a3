package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWorld(t *testing.T) *World {
	t.Helper()
	w, err := New(t.Context(), Config{Speed: 1000, Rate: 100, StreamMax: 300 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

func requests(t *testing.T, w *World, more int64) {
	t.Helper()
	want := w.Figures().Requests + more
	require.Eventually(t, func() bool { return w.Figures().Requests >= want }, 30*time.Second, 10*time.Millisecond)
}

func finish(t *testing.T, w *World) Figures {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	f, err := w.Finish(ctx)
	require.NoError(t, err)
	return f
}

// run runs a command on a host of the world and wants it to succeed.
func run(t *testing.T, w *World, addr, cmd string) string {
	t.Helper()
	status, out, err := w.Host(addr).Run(context.Background(), cmd)
	require.NoError(t, err)
	require.Zero(t, status, "%s: %s", cmd, out)
	return string(out)
}

func TestQuietWorld(t *testing.T) {
	w := newWorld(t)
	requests(t, w, 300)
	f := finish(t, w)
	assert.GreaterOrEqual(t, f.Requests, int64(300))
	assert.Zero(t, f.Failed, "%v", f.Failures)
	assert.True(t, f.WeightsRestored)
	assert.True(t, f.NginxRestored)
	assert.Equal(t, 2, f.MinHealthy, "%v", f.MinHealthyByGroup)
	assert.Equal(t, "3.10.0-862.9.1.el7.x86_64", f.KernelBefore)
	assert.Empty(t, f.Refused)
	assert.Empty(t, f.CheckEnd("paused"))
	assert.Empty(t, f.CheckEnd("rolled-back"))
	assert.Len(t, f.CheckEnd("succeeded"), 1, "the kernel is the old one")
	web := map[string]bool{}
	for _, b := range f.Backends {
		assert.NotEmpty(t, b.BootID, b.Addr)
		if strings.HasPrefix(b.Addr, production+":") {
			web[b.Addr] = true
		}
	}
	assert.Len(t, web, 3, "order, shop and pay of web-90 all got requests: %v", f.Backends)
}

func TestKilledServiceShows(t *testing.T) {
	w := newWorld(t)
	requests(t, w, 100)
	run(t, w, production, `for p in /proc/[0-9]*; do if [ "$(readlink $p/cwd)" = /srv/order ]; then kill -KILL "${p#/proc/}"; fi; done`)
	require.Eventually(t, func() bool { return w.Figures().Failed > 0 }, 20*time.Second, 10*time.Millisecond)
	f := finish(t, w)
	require.NotEmpty(t, f.Failures)
	problems := f.CheckEnd("paused")
	require.NotEmpty(t, problems)
	assert.Contains(t, problems[0], "requests failed")
}

func TestDial(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	_, err := w.Dial(ctx, "", production+":9")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = w.Dial(ctx, "", "172.31.0.101:8080")
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	_, err = w.Dial(ctx, "", balancerAddr+":99")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	c, err := w.Dial(ctx, "172.31.0.77", production+":8080")
	require.NoError(t, err)
	assert.Regexp(t, `:1F90 [0-9A-F]*4D001FAC:`, run(t, w, production, "cat /proc/net/tcp /proc/net/tcp6"), "8080 ← 172.31.0.77")
	require.NoError(t, c.Close())
	require.NoError(t, w.Host("172.31.0.89").Stop())
	_, err = w.Dial(ctx, "", "172.31.0.89:8080")
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
}

func TestOperatorsWayIn(t *testing.T) {
	w := newWorld(t)
	op, err := w.WriteOperatorFiles(filepath.Join(t.TempDir(), "world"))
	require.NoError(t, err)
	assert.NotEmpty(t, op.AccessKeySecret)
	known, err := os.ReadFile(op.KnownHosts)
	require.NoError(t, err)
	assert.Contains(t, string(known), "172.31.0.90 ssh-ed25519 ")
	conf, err := os.ReadFile(op.Config)
	require.NoError(t, err)
	assert.Contains(t, string(conf), "endpoint: "+op.Endpoint)
	key, err := os.ReadFile(op.Identity)
	require.NoError(t, err)
	signer, err := ssh.ParsePrivateKey(key)
	require.NoError(t, err)

	bastion := client(t, w.bastion.ln.Addr().String(), nil, signer, w.bastion.key.signer.PublicKey())
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(w.Host(production).HostKey()))
	require.NoError(t, err)
	through, err := bastion.Dial("tcp", production+":22")
	require.NoError(t, err)
	web := client(t, production+":22", through, signer, hostKey)
	s, err := web.NewSession()
	require.NoError(t, err)
	out, err := s.Output("cat /proc/sys/kernel/osrelease")
	require.NoError(t, err)
	assert.Equal(t, "3.10.0-862.9.1.el7.x86_64\n", string(out))

	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return web.Dial("tcp", addr) }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+production+":8081/health", nil)
	require.NoError(t, err)
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 200, resp.StatusCode, "%s", body)

	_, err = bastion.NewSession()
	require.Error(t, err, "the bastion only forwards")
	_, err = bastion.Dial("tcp", "172.31.0.77:22")
	require.Error(t, err)
}

func client(t *testing.T, addr string, c net.Conn, signer ssh.Signer, hostKey ssh.PublicKey) *ssh.Client {
	t.Helper()
	if c == nil {
		var d net.Dialer
		var err error
		c, err = d.DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err)
	}
	conn, chans, reqs, err := ssh.NewClientConn(c, addr, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey),
	})
	require.NoError(t, err)
	cl := ssh.NewClient(conn, chans, reqs)
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func TestServeAndAttach(t *testing.T) {
	dir := t.TempDir()
	_, err := Attach(dir)
	require.ErrorIs(t, err, ErrNoWorld)
	done := make(chan error, 1)
	go func() {
		done <- Serve(t.Context(), dir, Config{Speed: 1000, Rate: 100, StreamMax: 200 * time.Millisecond}, time.Minute)
	}()
	var r *Remote
	require.Eventually(t, func() bool { r, err = Attach(dir); return err == nil }, 30*time.Second, 10*time.Millisecond)
	assert.NotEmpty(t, r.Operator.AccessKeySecret)
	require.Eventually(t, func() bool {
		f, err := r.Figures(t.Context())
		require.NoError(t, err)
		return f.Requests > 20
	}, 30*time.Second, 20*time.Millisecond)
	wrong := *r
	wrong.contact.Token = "x"
	_, err = wrong.Finish(t.Context())
	require.ErrorContains(t, err, "403")
	f, err := r.Finish(t.Context())
	require.NoError(t, err)
	assert.Zero(t, f.Failed, "%v", f.Failures)
	require.NoError(t, <-done)
	_, err = Attach(dir)
	require.ErrorIs(t, err, ErrNoWorld)
}

func TestServeEndsByItself(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Serve(t.Context(), dir, Config{Speed: 1000, Rate: 50, StreamMax: 200 * time.Millisecond}, time.Second))
	_, err := os.Stat(filepath.Join(dir, worldFile))
	require.True(t, errors.Is(err, os.ErrNotExist))
}

func TestMachines(t *testing.T) {
	w := newWorld(t)
	m := machines{w}
	run(t, w, production, "echo kept > /srv/order/mark")
	disk, err := m.Snapshot(instanceID)
	require.NoError(t, err)
	run(t, w, production, "rm /srv/order/mark")
	require.Error(t, m.Create(cloud.Machine{InstanceID: "i-clone", PrivateIP: "172.31.0.101", From: "nothing"}))
	require.NoError(t, m.Create(cloud.Machine{InstanceID: "i-clone", HostName: "web-90-transition", PrivateIP: "172.31.0.101", From: disk}))
	_, err = w.Dial(t.Context(), "", "172.31.0.101:22")
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	require.NoError(t, m.Start("i-clone"))
	status, out, err := m.RunCommand(t.Context(), "i-clone", "cat /srv/order/mark; hostname")
	require.NoError(t, err)
	assert.Zero(t, status)
	assert.Equal(t, "kept\nweb-90-transition\n", string(out))
	clone := w.Host("172.31.0.101")
	assert.NotEqual(t, w.Host(production).HostKey(), clone.HostKey())
	boot := clone.BootID()
	require.NoError(t, m.Reboot("i-clone"))
	assert.NotEqual(t, boot, clone.BootID())
	require.NoError(t, m.Stop("i-clone"))
	assert.False(t, clone.Up())
	require.NoError(t, m.Delete("i-clone"))
	assert.Nil(t, w.Host("172.31.0.101"))
	require.Error(t, m.Start("i-clone"))
	assert.Zero(t, finish(t, w).Failed, "production was never touched")
}

func TestRefusedShows(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.Host(production).Run(t.Context(), "no-such-program --now")
	require.NoError(t, err)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(func() *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.op.Endpoint+"/?Action=NoSuchAction", nil)
		require.NoError(t, err)
		return r
	}())
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	f := w.Figures()
	require.Len(t, f.Refused, 2, "%v", f.Refused)
	assert.Contains(t, f.CheckEnd("paused"), "refused: "+f.Refused[0])
}

func TestCheckEnd(t *testing.T) {
	good := Figures{
		Requests: 10, MinHealthyByGroup: map[string]int{"g": 1}, WeightsRestored: true, NginxRestored: true,
		KernelBefore: "a", KernelAfter: "b", KernelMeant: "b", KeptSnapshots: 3, Created: 5,
	}
	assert.Empty(t, good.CheckEnd("succeeded"))
	for want, spoil := range map[string]func(*Figures){
		"3 of 10 requests failed":         func(f *Figures) { f.Failed = 3 },
		"no request was sent":             func(f *Figures) { f.Requests = 0 },
		"g was without a healthy backend": func(f *Figures) { f.MinHealthyByGroup = map[string]int{"g": 0} },
		"weights are not as before: x 60 → 0; y 1 → gone; z new, 5": func(f *Figures) {
			f.WeightsRestored, f.WeightsBefore, f.WeightsAfter = false, map[string]int{"x": 60, "y": 1}, map[string]int{"x": 0, "z": 5}
		},
		"still leased: 172.31.0.90":          func(f *Figures) { f.LeasedHosts = []string{"172.31.0.90"} },
		"nginx files are not as before: f":   func(f *Figures) { f.NginxRestored, f.NginxChanged = false, []string{"f"} },
		"left behind: image m-1":             func(f *Figures) { f.Leaked, f.LeakedResources = 1, []string{"image m-1"} },
		"kernel is a and not b":              func(f *Figures) { f.KernelAfter = "a" },
		"refused: 172.31.0.90: awk: unknown": func(f *Figures) { f.Refused = []string{"172.31.0.90: awk: unknown"} },
	} {
		f := good
		spoil(&f)
		assert.Equal(t, []string{want}, f.CheckEnd("succeeded"))
	}
	assert.Equal(t, []string{"kernel is b and was a"}, good.CheckEnd("rolled-back"))
	moved := good
	moved.WeightsRestored, moved.Leaked = false, 2
	assert.Empty(t, moved.CheckEnd("parked"), "traffic is on the transition host and must stay there")
}

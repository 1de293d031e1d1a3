package host_test

import (
	"context"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// fileHost is sshHost with files.
type fileHost struct {
	sshHost
	f *sftp.Client
}

func (h fileHost) ReadFile(_ context.Context, name string) ([]byte, error) {
	f, err := h.f.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b strings.Builder
	_, err = f.WriteTo(&b)
	return []byte(b.String()), err
}

func (h fileHost) WriteFile(_ context.Context, name string, data []byte, perm fs.FileMode) error {
	f, err := h.f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Close()
}

// TestHostWork runs what the procedure does on a host: Docker, the detached
// package transaction, the reboot, the services.
func TestHostWork(t *testing.T) {
	signer, authorized := key(t)
	h := start(t, spec(authorized))
	ctx := t.Context()
	dial := func() fileHost {
		c := client(t, h, signer)
		f, err := sftp.NewClient(c)
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		return fileHost{sshHost{c}, f}
	}
	at := dial()
	direct := func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		real, _ := h.Endpoint(n)
		var d net.Dialer
		return d.DialContext(ctx, network, real)
	}
	services := []hostos.Service{
		{Name: "order", Kind: hostos.Java, Dir: "/srv/order", User: "app", Start: "./start.sh", Ports: []int{8080}, Health: "/health"},
		{Name: "shop", Kind: hostos.Compose, Dir: "/srv/shop", Ports: []int{8081}, Health: "/health"},
		{Name: "cache", Kind: hostos.Container, Container: "cache", Ports: []int{8082}},
	}
	const poll = 5 * time.Millisecond
	docker, err := hostos.GetDocker(ctx, at)
	require.NoError(t, err)
	for _, s := range services {
		require.NoError(t, hostos.StopService(ctx, at, s, hostos.ServiceOptions{Poll: poll}), s.Name)
		running, err := hostos.ServiceRunning(ctx, at, s)
		require.NoError(t, err)
		assert.False(t, running, s.Name)
	}
	job := func(key, script string) {
		require.NoError(t, hostos.StartJob(ctx, at, key, script))
		st, err := hostos.WaitJob(ctx, at, key, poll, func(context.Context) (hostos.Host, error) { return dial(), nil })
		log, _ := hostos.JobLog(ctx, at, key)
		require.NoError(t, err, log)
		require.Equal(t, hostos.JobState{Phase: hostos.JobExited}, st, log)
	}
	plan, err := hostos.PlanDocker(docker, nil, hostos.DockerOptions{})
	require.NoError(t, err)
	script, err := plan.Script("u1")
	require.NoError(t, err)
	_, err = hostos.UpgradeDocker(ctx, at, "u1", script, poll)
	require.NoError(t, err)
	job("u3", "yum -y update")
	boot, err := hostos.GetBoot(ctx, at)
	require.NoError(t, err)
	assert.Equal(t, hostos.Boot{ID: h.BootID(), Kernel: oldKernel, Release: newRelease}, boot)
	_ = hostos.StartReboot(ctx, at, boot.ID) // the host may be faster than its answer
	require.Eventually(t, func() bool { return h.Up() && h.BootID() != boot.ID }, 10*time.Second, poll)
	at = dial()
	boot, err = hostos.GetBoot(ctx, at)
	require.NoError(t, err)
	assert.Equal(t, newKernel, boot.Kernel)
	now, err := hostos.StartDocker(ctx, at, "u1", docker, false)
	require.NoError(t, err)
	_, err = hostos.StartContainers(ctx, at, docker, now, hostos.DockerOptions{}, poll)
	require.NoError(t, err)
	for _, s := range services {
		require.NoError(t, hostos.StartService(ctx, at, s, hostos.ServiceOptions{}), s.Name)
		require.NoError(t, hostos.WaitHealthy(ctx, at, direct, "172.31.0.90", s, poll, 2), s.Name)
		running, err := hostos.ServiceRunning(ctx, at, s)
		require.NoError(t, err)
		assert.True(t, running, s.Name)
	}
	assert.Empty(t, h.Refused())
}

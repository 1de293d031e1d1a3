package lab_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestLabPackages: rpm and yum of a host do with the lab's packages what they
// do on CentOS, in the cases that an upgrade has to see through.
func TestLabPackages(t *testing.T) {
	if !lab.Inside() {
		testenv.Lab(t)
		lab.NeedPackages(t)
	}
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	dir, err := l.Dir("packages")
	require.NoError(t, err)
	m, err := lab.NewMirror(ctx, filepath.Join(dir, "mirror"))
	require.NoError(t, err)
	layer := filepath.Join(dir, "layer")
	require.NoError(t, m.Layer(ctx, layer))
	stop, err := m.Serve(ctx)
	require.NoError(t, err)
	serving := true
	t.Cleanup(func() {
		if serving {
			require.NoError(t, stop())
		}
	})
	h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{Base: layer, Docker: true})
	require.NoError(t, err)
	run := func(script string) (int, string) {
		t.Helper()
		exit, out, err := h.Run(ctx, script)
		require.NoError(t, err)
		return exit, strings.TrimSpace(string(out))
	}
	must := func(script string) string {
		t.Helper()
		exit, out := run(script)
		require.Zero(t, exit, "%s: %s", script, out)
		return out
	}
	repo := func(name, place string) {
		must("cat >/etc/yum.repos.d/" + name + ".repo <<'END'\n" + lab.RepoFile(lab.MirrorURL, place) + "END")
	}

	assert.Equal(t, lab.ReleaseBefore, must("cat /etc/redhat-release"))
	assert.Equal(t, "/boot/vmlinuz-"+lab.KernelBefore, must("grubby --default-kernel"))
	assert.Equal(t, lab.KernelBefore, must("uname -r"))
	assert.Contains(t, must("lsinitrd /boot/initramfs-"+lab.KernelBefore+".img"), "virtio_blk.ko")
	exit, out := run("command -v dpkg-query")
	assert.NotZero(t, exit, "a CentOS host has no dpkg: %s", out)

	exit, _ = run("yum -q check-update")
	assert.Equal(t, 100, exit)
	must("yum -y -q update")
	assert.Equal(t, "kernel-"+lab.KernelBefore+"\nkernel-"+lab.KernelAfter, must("rpm -q kernel"), "beside the old one")
	assert.Equal(t, lab.ReleaseAfter, must("cat /etc/redhat-release"))
	assert.Equal(t, "/boot/vmlinuz-"+lab.KernelAfter, must("grubby --default-kernel"))
	assert.Equal(t, "1.1 2", must("cat /var/log/order-agent.posts"), "%post ran once")

	repo("newest", lab.RepoKernel)
	exit, out = run("yum -y update kernel 2>&1")
	assert.Zero(t, exit, "yum leaves a kernel out that it cannot install, and calls that a success")
	assert.Contains(t, out, "linux-firmware")
	assert.Equal(t, 2, len(strings.Fields(must("rpm -q kernel"))))
	must("rm /etc/yum.repos.d/newest.repo")

	repo("broken", lab.RepoBroken)
	_, out = run("yum -y update order-agent 2>&1")
	assert.Contains(t, out, "libagent.so.7")
	assert.Equal(t, "order-agent-1.1-1.x86_64", must("rpm -q order-agent"))
	must("rm /etc/yum.repos.d/broken.repo")
	repo("failing", lab.RepoFailing)
	exit, out = run("yum -y update order-agent 2>&1")
	assert.NotZero(t, exit, out)
	assert.Equal(t, "order-agent-1.1-1.x86_64", must("rpm -q order-agent"))
	must("rm /etc/yum.repos.d/failing.repo")

	must("systemctl enable --now docker")
	engine := must("docker info --format '{{.Driver}}'")
	assert.Equal(t, "overlay2", engine)
	repo("docker-ce", lab.RepoDocker)
	exit, _ = run("yum -y -q install docker-ce")
	assert.NotZero(t, exit, "docker-ce conflicts with docker")
	must("yum -y -q remove docker docker-client docker-common")
	exit, _ = run("command -v docker")
	assert.NotZero(t, exit)
	exit, _ = run("systemctl is-active docker")
	assert.NotZero(t, exit)
	must("yum -y -q install docker-ce && systemctl enable --now docker")
	assert.Equal(t, engine, must("docker info --format '{{.Driver}}'"))

	require.NoError(t, stop())
	serving = false
	exit, out = run("yum clean all >/dev/null; yum -y update 2>&1")
	assert.NotZero(t, exit, "a mirror that is dead is an error")
	assert.Contains(t, out, "Failed to download metadata")
}

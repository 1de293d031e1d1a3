package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

func TestLabHosts(t *testing.T) {
	testenv.Lab(t)
	testenv.Need(t, "nginx")
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	base, err := l.Dir("base")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(base, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(base, "etc/redhat-release"), []byte("CentOS\n"), 0o644))
	require.NoError(t, lab.BuildApp(ctx, filepath.Join(base, lab.AppBinary)))
	h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{
		Kernel: "3.10.0-862.el7.x86_64", Base: base, Enable: []string{"nginx", "cron", "supervisor"},
		Files: map[string]string{"/etc/supervisor/conf.d/idle.conf": "[program:idle]\ncommand=/bin/sleep infinity\nstartsecs=0\n",
			"/srv/app/start.sh": "#!/bin/sh\nexec " + lab.AppBinary + " app 8080\n"},
	})
	require.NoError(t, err)
	must := func(t *testing.T, h *lab.Host, script string) string {
		t.Helper()
		out, err := h.Must(ctx, script)
		require.NoError(t, err)
		return strings.TrimSpace(out)
	}

	require.NoError(t, h.WaitReady(ctx)) // sshd answers before the boot is over
	t.Run("a host of its own", func(t *testing.T) {
		assert.Equal(t, "web-1", must(t, h, "hostname"))
		assert.Equal(t, "3.10.0-862.el7.x86_64", must(t, h, "cat /proc/sys/kernel/osrelease"))
		assert.Equal(t, h.BootID(), must(t, h, "cat /proc/sys/kernel/random/boot_id"))
		assert.Contains(t, must(t, h, "nginx -t 2>&1"), "successful")
		assert.Equal(t, "CentOS", must(t, h, "cat /etc/redhat-release"), "from the layer below")
		assert.Equal(t, "active\nactive\nactive\nactive", must(t, h, "systemctl is-active ssh nginx cron supervisor"))
		assert.Regexp(t, `idle +RUNNING`, must(t, h, "until supervisorctl status; do sleep 0.1; done"))
		assert.Equal(t, "0::/lab.scope", must(t, h, "grep ^0: /proc/self/cgroup"), "what the test starts belongs to no service")
		assert.Equal(t, "1", must(t, h, "find /proc -maxdepth 1 -name '[0-9]*' -exec cat {}/comm ';' 2>/dev/null | grep -c -x systemd"), "its processes are alone")
		for _, dir := range []string{"/root/.cache", "/usr/local/bin", "/home/*", "/etc/ssh/ssh_host_rsa_key"} {
			assert.Equal(t, "no", must(t, h, "ls -d "+dir+" >/dev/null 2>&1 && echo yes || echo no"), "%s is this machine's", dir)
		}
		_, err := os.Stat("/boot/next-kernel")
		assert.ErrorIs(t, err, os.ErrNotExist, "a host wrote to this machine")
	})

	t.Run("a service", func(t *testing.T) {
		must(t, h, "cd /srv/app && setsid ./start.sh >/dev/null 2>&1 </dev/null &")
		wait, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		for {
			c, err := l.Dial(wait, lab.ClientsFrom, "172.31.0.11:8080")
			if err == nil {
				require.NoError(t, c.Close())
				break
			}
			require.NoError(t, wait.Err())
			select {
			case <-wait.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		assert.Equal(t, lab.AppBinary, must(t, h, `for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != app ] || readlink $p/exe; done`))
	})

	t.Run("a clone", func(t *testing.T) {
		must(t, h, "echo content >/srv/app/file")
		m := l.Machines()
		state, err := m.Snapshot("i-1")
		require.NoError(t, err)
		require.NoError(t, m.Create(cloud.Machine{InstanceID: "i-2", HostName: "web-2", PrivateIP: "172.31.0.12", From: state}))
		require.NoError(t, m.Start("i-2"))
		c := l.Host("i-2")
		require.NoError(t, c.WaitUp(ctx))
		assert.Equal(t, "content", must(t, c, "cat /srv/app/file"))
		assert.Equal(t, "web-2", must(t, c, "hostname"))
		assert.Equal(t, "CentOS", must(t, c, "cat /etc/redhat-release"))
		assert.NotEqual(t, must(t, h, "cat /etc/machine-id"), must(t, c, "cat /etc/machine-id"))
		key := "cat /etc/ssh/ssh_host_*_key.pub"
		assert.NotEqual(t, must(t, h, key), must(t, c, key))
		must(t, c, "rm /srv/app/file")
		assert.Equal(t, "content", must(t, h, "cat /srv/app/file"))
		require.NoError(t, m.Delete("i-2"))
		assert.Nil(t, l.Host("i-2"))
	})

	t.Run("a reboot", func(t *testing.T) {
		before, key := h.BootID(), must(t, h, "cat /etc/ssh/ssh_host_*_key.pub")
		must(t, h, "echo 3.10.0-1160.el7.x86_64 >/boot/next-kernel")
		_, _, err := h.Run(ctx, "shutdown -r now") // whether it lives to tell is a matter of luck
		require.NoError(t, err)
		wait, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		for h.BootID() == before {
			select {
			case <-wait.Done():
				t.Fatal("it does not come back")
			case <-time.After(20 * time.Millisecond):
			}
		}
		require.NoError(t, h.WaitUp(ctx))
		assert.Equal(t, 2, h.Boots())
		assert.Equal(t, "3.10.0-1160.el7.x86_64", must(t, h, "cat /proc/sys/kernel/osrelease"))
		assert.Equal(t, key, must(t, h, "cat /etc/ssh/ssh_host_*_key.pub"))
		assert.Empty(t, must(t, h, `for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != app ] || echo $p; done`), "what was started by hand is gone")
		assert.Contains(t, must(t, h, "ls -l /run/nginx.pid"), "nginx.pid", "what starts at boot is back")
	})
}

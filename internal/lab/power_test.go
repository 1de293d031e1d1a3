package lab_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// lastWords is a unit that notes on the disk that it was stopped in good
// order.
const lastWords = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c 'echo stopped >>/srv/words'\n[Install]\nWantedBy=multi-user.target\n"

// However the power goes and comes, from inside and outside.
func TestLabPower(t *testing.T) {
	testenv.Lab(t)
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	off := make(chan string, 10)
	l.PoweredOff = func(id string) { off <- id }
	since := stopwatch(t)
	h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{
		Kernel: "3.10.0-862.el7.x86_64", Enable: []string{"words.service", "cron"},
		Files: map[string]string{"/etc/systemd/system/words.service": lastWords, "/etc/systemd/system/job.timer": "[Timer]\nOnBootSec=1h\n"},
	})
	require.NoError(t, err)
	since("up")
	must := func(t *testing.T, script string) string {
		t.Helper()
		out, err := h.Must(ctx, script)
		require.NoError(t, err)
		return strings.TrimSpace(out)
	}
	require.NoError(t, h.WaitReady(ctx))
	since("ready")
	id := h.BootID()
	assert.Equal(t, id, must(t, "cat /proc/sys/kernel/random/boot_id"))
	assert.Equal(t, "active", must(t, "systemctl is-active cron"))
	assert.Contains(t, must(t, "journalctl --no-pager -b -u cron"), "Started cron")

	for _, how := range []string{"systemctl reboot", "shutdown -r now", "reboot"} {
		t.Run(how, func(t *testing.T) {
			since := stopwatch(t)
			n := h.Boots()
			must(t, "rm -f /srv/words")
			_, _, err := h.Run(ctx, how)
			require.NoError(t, err)
			require.NoError(t, h.WaitBoot(ctx, n+1))
			since("rebooted")
			assert.NotEqual(t, id, h.BootID())
			id = h.BootID()
			assert.Equal(t, "stopped", must(t, "cat /srv/words"))
			assert.Empty(t, off, "a reboot was taken for power off")
		})
	}
	for _, how := range []string{"systemctl poweroff", "shutdown -h now", "poweroff"} {
		t.Run(how, func(t *testing.T) {
			since := stopwatch(t)
			n := h.Boots()
			_, _, err := h.Run(ctx, how)
			require.NoError(t, err)
			select {
			case who := <-off:
				assert.Equal(t, "i-1", who)
			case <-time.After(5 * time.Minute):
				t.Fatal("it stays on")
			}
			since("off")
			dial, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			_, err = l.Dial(dial, "", "172.31.0.11:22")
			assert.Error(t, err, "it is off")
			assert.Equal(t, n, h.Boots())
			require.NoError(t, h.Start())
			require.NoError(t, h.WaitUp(ctx))
			since("on")
		})
	}

	t.Run("stopped from outside", func(t *testing.T) {
		must(t, "rm -f /srv/words")
		require.NoError(t, l.Machines().Reboot("i-1"))
		require.NoError(t, h.WaitUp(ctx))
		assert.Equal(t, "stopped", must(t, "cat /srv/words"))
	})
	t.Run("the power is cut", func(t *testing.T) {
		must(t, "rm -f /srv/words; echo here >/srv/file")
		require.NoError(t, h.Cut())
		require.NoError(t, h.Start())
		require.NoError(t, h.WaitUp(ctx))
		assert.Equal(t, "here", must(t, "cat /srv/file; cat /srv/words 2>/dev/null || :"), "nobody had the time to say anything")
	})
	assert.Empty(t, off, "who switches it off from outside knows")

	t.Run("the kernel of the next boot", func(t *testing.T) {
		must(t, "echo 3.10.0-1160.el7.x86_64 >/boot/next-kernel; : >/boot/vmlinuz-3.10.0-1160.el7.x86_64")
		assert.Equal(t, "3.10.0-862.el7.x86_64", must(t, "uname -r"))
		require.NoError(t, h.Cut())
		require.NoError(t, h.Start())
		require.NoError(t, h.WaitUp(ctx))
		assert.Equal(t, "3.10.0-1160.el7.x86_64", must(t, "uname -r"))
		assert.Equal(t, "3.10.0-1160.el7.x86_64", h.Kernel())
		assert.Equal(t, "3.10.0-1160.el7.x86_64", must(t, "cat /proc/sys/kernel/osrelease"))
		assert.Contains(t, must(t, "uname -a"), " 3.10.0-1160.el7.x86_64 #")
	})

	dark := func(t *testing.T) {
		t.Helper()
		n := h.Boots()
		_, _, err := h.Run(ctx, "systemctl reboot")
		require.NoError(t, err)
		require.Eventually(t, func() bool { return h.Dark() }, 5*time.Minute, 20*time.Millisecond)
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.Error(t, h.WaitUp(soon), "it does not come back")
		assert.Equal(t, n, h.Boots())
		assert.Empty(t, off, "it is on")
		require.NoError(t, h.Cut())
	}
	t.Run("it does not come back", func(t *testing.T) {
		h.Darken(true)
		dark(t)
		h.Darken(false)
		require.NoError(t, h.Start())
		require.NoError(t, h.WaitUp(ctx))
	})
	t.Run("a kernel that is not installed", func(t *testing.T) {
		must(t, "echo 3.10.0-9999.el7.x86_64 >/boot/next-kernel")
		dark(t)
	})
}

// A host that nobody reaches lives on, and a full disk is full.
func TestLabFaults(t *testing.T) {
	testenv.Lab(t)
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{Kernel: "3.10.0-862.el7.x86_64", DiskMB: 64, BootMB: 4})
	require.NoError(t, err)

	t.Run("partition", func(t *testing.T) {
		id := h.BootID()
		require.NoError(t, h.Partition(true))
		silent := func(what string) {
			t.Helper()
			dial, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			_, err := l.Dial(dial, "", "172.31.0.11:22")
			require.Error(t, err, what)
			assert.NotErrorIs(t, err, syscall.ECONNREFUSED, what)
		}
		silent("silence, not a refusal")
		out, err := h.Must(ctx, "cat /sys/class/net/eth0/carrier")
		require.NoError(t, err)
		assert.Equal(t, "1\n", out)
		require.NoError(t, h.Cut())
		require.NoError(t, h.Start())
		_, err = h.Must(ctx, "true") // it has booted
		require.NoError(t, err)
		silent("a boot does not heal the network")
		require.NoError(t, h.Partition(false))
		require.NoError(t, h.WaitUp(ctx))
		assert.NotEqual(t, id, h.BootID())
	})

	full := func(t *testing.T, script string) {
		t.Helper()
		exit, out, err := h.Run(ctx, script)
		require.NoError(t, err)
		assert.NotZero(t, exit)
		assert.Contains(t, string(out), "No space left on device")
	}
	t.Run("full disk", func(t *testing.T) {
		full(t, "head -c 100M /dev/zero >/var/big; exit $?")
		out, err := h.Must(ctx, "rm /var/big; df -m --output=size / | tail -1; df -m --output=size /boot | tail -1")
		require.NoError(t, err)
		assert.Equal(t, []string{"64", "4"}, strings.Fields(out))
		full(t, "head -c 5M /dev/zero >/boot/big; exit $?")
		require.NoError(t, h.Resize(256))
		_, err = h.Must(ctx, "head -c 100M /dev/zero >/var/big")
		require.NoError(t, err)
	})

	t.Run("a clone of it", func(t *testing.T) {
		state, err := h.Snapshot()
		require.NoError(t, err)
		c, err := l.Clone(ctx, "i-2", "web-2", "172.31.0.12", state, nil)
		require.NoError(t, err)
		require.NoError(t, c.Start())
		require.NoError(t, c.WaitUp(ctx))
		out, err := c.Must(ctx, "stat -c %s /var/big; ls /boot; df -m --output=size / | tail -1")
		require.NoError(t, err)
		assert.Equal(t, []string{"104857600", "big", "next-kernel", "256"}, strings.Fields(out))
	})
}

package pitrix

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/poll"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// sh runs a line of shell that has to succeed.
func sh(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput()
	require.NoError(t, err, "%s\n%s", line, out)
	return string(out)
}

// libvirt is a libvirtd of a test's own, in namespaces of its own.
type libvirt struct{ t *testing.T }

// start starts it as after a boot of the host: what it has noted of the running
// system is gone, its definitions are not.
func (l libvirt) start() {
	l.t.Helper()
	sh(l.t, `rm -rf /run/libvirt; virtlogd -d -p /run/virtlogd.pid && libvirtd -d -p /run/libvirtd.pid`)
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Minute)
	defer cancel()
	err := poll.Poller{Interval: 20 * time.Millisecond}.Until(ctx, "libvirtd", func(context.Context) (string, bool, error) {
		out, err := exec.Command("virsh", "-c", "qemu:///system", "list").CombinedOutput()
		return string(out), err == nil, nil
	})
	require.NoError(l.t, err)
}

// stop ends it and every VM, as a power cut does.
func (l libvirt) stop() {
	l.t.Helper()
	files, _ := filepath.Glob("/run/libvirt/qemu/*.pid")
	for _, file := range append(files, "/run/libvirtd.pid", "/run/virtlogd.pid") {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		require.NoError(l.t, err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			if syscall.Kill(pid, 0) != nil {
				break
			}
		}
	}
}

// reap ends the zombies that libvirt leaves to process 1, which we are: it waits
// a minute and more for a qemu that is dead and still there.
func reap(t *testing.T) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			files, _ := filepath.Glob("/proc/[0-9]*/stat")
			for _, file := range files {
				stat, _ := os.ReadFile(file)
				pid, rest, _ := strings.Cut(string(stat), " (")
				// Children of ours are shells and virsh, and are waited for elsewhere.
				if strings.Contains(rest, ") Z 1 ") && (strings.HasPrefix(rest, "qemu") || strings.HasPrefix(rest, "libvirtd") || strings.HasPrefix(rest, "virtlogd")) {
					var status syscall.WaitStatus
					n, _ := strconv.Atoi(pid) // the kernel wrote it
					_, _ = syscall.Wait4(n, &status, syscall.WNOHANG, nil)
				}
			}
		}
	}()
	t.Cleanup(func() { close(done); <-ended })
}

func newLibvirt(t *testing.T) libvirt {
	t.Helper()
	// libvirt asks qemu about KVM again and again where root can open it and the
	// VM's user cannot; and its files are to be ours alone.
	sh(t, `mount -t sysfs sysfs /sys && mkdir /run/dev && mount -t tmpfs tmpfs /run/dev && cd /run/dev && mkdir net pts shm &&
for n in null zero full random urandom tty net/tun; do : >$n && mount --bind /dev/$n $n || exit 1; done &&
mount --rbind /dev/pts pts && mount -t tmpfs tmpfs shm && ln -s pts/ptmx ptmx && mount --move /run/dev /dev &&
for d in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do mkdir -p $d && mount -t tmpfs tmpfs $d || exit 1; done
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\n' >/etc/libvirt/qemu.conf
: >/etc/libvirt/libvirtd.conf; : >/etc/libvirt/virtlogd.conf
ip link set lo up && ip link add br0 type bridge && ip link set br0 up`)
	l := libvirt{t}
	reap(t)
	t.Cleanup(l.stop)
	l.start()
	return l
}

// TestRealLibvirt drives a real libvirtd with real VMs (no guest runs in them)
// through what procedure B does to the old and the new one.
func TestRealLibvirt(t *testing.T) {
	testenv.Slow(t)
	for _, p := range []string{"libvirtd", "virtlogd", "virsh", "qemu-img", "qemu-system-x86_64"} {
		testenv.Need(t, p)
	}
	if !lab.Isolated(t) {
		return
	}
	l := newLibvirt(t)
	ctx := t.Context()
	root := t.TempDir()
	dir := root + "/pitrix/kernels"
	require.NoError(t, os.MkdirAll(dir, 0o755))
	h := &Hypervisor{Host: &localHost{}, Name: "host1", Root: root, Connect: "qemu:///system"}
	make := func(vm, mac string) {
		sh(t, fmt.Sprintf("cd %s && qemu-img create -q -f qcow2 -F qcow2 -b ksnode14045a.img %s.img && : >%s.Done", dir, vm, vm))
		require.NoError(t, os.WriteFile(dir+"/"+vm+".xml", fmt.Appendf(nil, vmXML, vm, dir+"/"+vm+".img", mac), 0o600))
	}
	sh(t, "cd "+dir+" && qemu-img create -q -f qcow2 ksnode14045a.img 16M")
	make("proxy0", "00:16:3e:1a:07:c1")

	d, err := h.GetDomain(ctx, "proxy0")
	require.NoError(t, err)
	require.Nil(t, d)
	for range 2 {
		require.NoError(t, h.Define(ctx, "proxy0"))
	}
	d, err = h.GetDomain(ctx, "proxy0")
	require.NoError(t, err)
	assert.Equal(t, []any{"proxy0", DomainShutOff, false, true}, []any{d.Name, d.State, d.Autostart, d.Persistent})
	assert.Equal(t, []MAC{{0, 0x16, 0x3e, 0x1a, 7, 0xc1}}, d.Definition.MACs())
	assert.Equal(t, dir+"/proxy0.img", d.Definition.Disks[0].File)
	id := d.UUID

	t.Run("define another of that name", func(t *testing.T) {
		src, err := os.ReadFile(dir + "/proxy0.xml")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(dir+"/proxy0.xml", []byte(strings.ReplaceAll(string(src), "c1'", "c2'")), 0o600))
		assert.ErrorContains(t, h.Define(ctx, "proxy0"), "is defined already")
		require.NoError(t, os.WriteFile(dir+"/proxy0.xml", src, 0o600))
	})
	t.Run("capacity", func(t *testing.T) {
		c, err := h.GetCapacity(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"br0"}, c.Bridges)
		assert.Equal(t, []string{"ksnode14045a.img", "proxy0.img"}, c.Images)
		assert.Positive(t, c.FreeKiB)
		assert.Positive(t, c.AvailableKiB)
	})

	for range 2 {
		require.NoError(t, h.Start(ctx, "proxy0", id))
	}
	require.NoError(t, h.WaitState(ctx, "proxy0", DomainRunning, 20*time.Millisecond))
	var running *RunningError
	t.Run("TestTrapUndefineRunning", func(t *testing.T) {
		require.ErrorAs(t, h.Undefine(ctx, "proxy0", id), &running)
		assert.Equal(t, DomainRunning, running.State)
		_, err := h.Park(ctx, "proxy0")
		require.ErrorAs(t, err, &running)
		v, err := h.GetFiles(ctx, "proxy0")
		require.NoError(t, err)
		assert.Equal(t, ParkLive, v.State())
		// libvirt itself accepts it, and the VM is gone with its power.
		make("doomed", "00:16:3e:1a:07:d1")
		require.NoError(t, h.Define(ctx, "doomed"))
		d, err := h.GetDomain(ctx, "doomed")
		require.NoError(t, err)
		require.NoError(t, h.Start(ctx, "doomed", d.UUID))
		sh(t, "virsh -c qemu:///system undefine doomed")
		d, err = h.GetDomain(ctx, "doomed")
		require.NoError(t, err)
		assert.Equal(t, []any{DomainRunning, false}, []any{d.State, d.Persistent})
		require.NoError(t, h.PowerOff(ctx, "doomed", d.UUID))
		d, err = h.GetDomain(ctx, "doomed")
		require.NoError(t, err)
		assert.Nil(t, d)
	})
	t.Run("another VM of that name", func(t *testing.T) {
		for _, change := range []func() error{
			func() error { return h.PowerOff(ctx, "proxy0", "11111111-2222-3333-4444-555555555555") },
			func() error { return h.Undefine(ctx, "proxy0", "11111111-2222-3333-4444-555555555555") },
			func() error { return h.SetAutostart(ctx, "proxy0", "11111111-2222-3333-4444-555555555555", false) },
		} {
			assert.ErrorContains(t, change(), "it is another one now")
		}
		assert.Error(t, h.PowerOff(ctx, "proxy0", ""))
	})
	t.Run("TestTrapAutostart", func(t *testing.T) {
		require.NoError(t, h.SetAutostart(ctx, "proxy0", id, true))
		l.stop()
		l.start() // the host has booted again
		require.NoError(t, h.WaitState(ctx, "proxy0", DomainRunning, 50*time.Millisecond), "a VM that was halted is back")
		for range 2 {
			require.NoError(t, h.SetAutostart(ctx, "proxy0", id, false))
		}
		l.stop()
		l.start()
		d, err := h.GetDomain(ctx, "proxy0")
		require.NoError(t, err)
		assert.Equal(t, []any{DomainShutOff, false}, []any{d.State, d.Autostart})
	})

	t.Run("park", func(t *testing.T) {
		for range 2 {
			v, err := h.Park(ctx, "proxy0")
			require.NoError(t, err)
			assert.Equal(t, VMFiles{PlaceParked, PlaceParked, PlaceParked, dir + "/ksnode14045a.img", ""}, v)
		}
		assert.Error(t, h.Start(ctx, "proxy0", id), "its image is not there")
		// Cut short anywhere, both ways go on.
		for _, cut := range []string{"mv old-proxy0.img proxy0.img", "mv old-proxy0.img proxy0.img; mv old-proxy0.xml proxy0.xml", "mv old-proxy0.Done proxy0.Done"} {
			sh(t, "cd "+dir+" && "+cut)
			v, err := h.GetFiles(ctx, "proxy0")
			require.NoError(t, err)
			assert.Equal(t, ParkHalf, v.State(), cut)
			_, err = h.Park(ctx, "proxy0")
			require.NoError(t, err, cut)
		}
		sh(t, "cd "+dir+" && mv old-proxy0.img proxy0.img")
		for range 2 {
			v, err := h.Unpark(ctx, "proxy0")
			require.NoError(t, err)
			assert.Equal(t, ParkLive, v.State())
		}
		require.NoError(t, h.Start(ctx, "proxy0", id), "parked and unparked, it starts")
		require.NoError(t, h.PowerOff(ctx, "proxy0", id))
		sh(t, "cd "+dir+" && cp proxy0.xml old-proxy0.xml")
		_, err := h.Park(ctx, "proxy0")
		assert.ErrorContains(t, err, "would be overwritten")
		assert.FileExists(t, dir+"/proxy0.img")
		sh(t, "cd "+dir+" && rm old-proxy0.xml")
	})
	t.Run("TestTrapOverlayBase", func(t *testing.T) {
		sh(t, "cd "+dir+" && mv ksnode14045a.img away")
		_, err := h.Park(ctx, "proxy0")
		assert.ErrorContains(t, err, "is gone")
		sh(t, "cd "+dir+" && mv away ksnode14045a.img")
		_, err = h.Park(ctx, "proxy0")
		require.NoError(t, err)
		sh(t, "cd "+dir+" && touch -d '2020-01-01' ksnode14045a.img")
		v, err := h.GetFiles(ctx, "proxy0")
		require.NoError(t, err)
		assert.Contains(t, v.BaseChanged, "its size or time is another one")
		sh(t, "cd "+dir+" && rm ksnode14045a.img")
		v, err = h.GetFiles(ctx, "proxy0")
		require.NoError(t, err)
		assert.Equal(t, "it is gone", v.BaseChanged)
		sh(t, "cd "+dir+" && qemu-img create -q -f qcow2 ksnode14045a.img 16M")
	})
	t.Run("undefine", func(t *testing.T) {
		for range 2 {
			require.NoError(t, h.Undefine(ctx, "proxy0", id))
		}
		v, err := h.GetFiles(ctx, "proxy0")
		require.NoError(t, err)
		assert.Equal(t, Parked, v.State(), "the backup stays")
	})
	t.Run("discard", func(t *testing.T) {
		make("proxy1", "00:16:3e:1a:07:e1")
		require.NoError(t, h.Define(ctx, "proxy1"))
		d, err := h.GetDomain(ctx, "proxy1")
		require.NoError(t, err)
		require.NoError(t, h.Start(ctx, "proxy1", d.UUID))
		assert.ErrorContains(t, h.Discard(ctx, "proxy1", MAC{0, 0x16, 0x3e, 1, 2, 3}, true), "not 00:16:3e:01:02:03")
		mac := MAC{0, 0x16, 0x3e, 0x1a, 7, 0xe1}
		for range 2 {
			require.NoError(t, h.Discard(ctx, "proxy1", mac, false))
		}
		all, err := h.ListDomains(ctx)
		require.NoError(t, err)
		assert.Empty(t, all)
		v, err := h.GetFiles(ctx, "proxy1")
		require.NoError(t, err)
		assert.Equal(t, ParkNone, v.State())
		// A launch that failed early leaves files of nobody.
		sh(t, ": >"+dir+"/proxy1.img")
		assert.ErrorContains(t, h.Discard(ctx, "proxy1", mac, false), "whose they are")
		require.NoError(t, h.Discard(ctx, "proxy1", mac, true))
		assert.NoFileExists(t, dir+"/proxy1.img")
		assert.FileExists(t, dir+"/old-proxy0.img")
	})
	t.Run("set aside", func(t *testing.T) {
		make("proxy2", "00:16:3e:1a:07:f1")
		setAside(t, h, dir, func() { make("proxy2", "00:16:3e:1a:07:f2") })
	})
}

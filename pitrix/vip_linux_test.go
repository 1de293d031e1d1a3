package pitrix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

// link is a network with the test itself as the firstbox, 192.0.2.2, and nodes
// that have their own network, processes and system directories.
type link struct {
	t   *testing.T
	dir string
}

func newLink(t *testing.T) *link {
	t.Helper()
	sh(t, `mkdir -p /run/netns && ip link set lo up && ip link add lab0 type bridge && ip addr add 192.0.2.2/24 dev lab0 && ip link set lab0 up`)
	return &link{t: t, dir: t.TempDir()}
}

// node makes one with an interface eth0.
func (l *link) node(name, address string, mac MAC, prepare string) *Node {
	t := l.t
	t.Helper()
	sh(t, fmt.Sprintf(`ip netns add %[1]s && ip link add v%[1]s type veth peer name eth0 netns %[1]s && ip link set v%[1]s master lab0 up &&
ip -n %[1]s link set lo up && ip -n %[1]s link set eth0 address %[3]s up && ip -n %[1]s addr add %[2]s/24 dev eth0`, name, address, mac))
	// Process 1 waits for what others leave, so that no zombie is taken for a
	// daemon that runs.
	c := exec.Command("nsenter", "--net=/run/netns/"+name, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/sh", "-c",
		`mount -t sysfs sysfs /sys && echo 0 >/proc/sys/net/ipv4/ip_forward && for d in /run /etc/systemd/system /var/lib/upgradectl /etc/cron.d /var/spool/cron /etc/haproxy; do mkdir -p $d; mount -t tmpfs -o mode=755 tmpfs $d || exit 1; done
hostname `+name+`; mkdir -p /var/spool/cron/crontabs /etc/keepalived; mount -t tmpfs tmpfs /etc/keepalived
`+prepare+`
: >/run/ready
while :; do sleep 3600; done`)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
	out, err := os.Create(filepath.Join(l.dir, name))
	require.NoError(t, err)
	c.Stdout, c.Stderr = out, out
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait(); _ = out.Close() })
	h := &localHost{}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err = poll.Poller{Interval: 10 * time.Millisecond}.Until(ctx, "node "+name, func(context.Context) (string, bool, error) {
		// nsenter becomes unshare, whose child is process 1 of the node.
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.Process.Pid, c.Process.Pid))
		pid := strings.TrimSpace(string(children))
		if pid == "" {
			return "no process", false, nil
		}
		_, err := os.Stat("/proc/" + pid + "/root/run/ready")
		h.prefix = []string{"nsenter", "-t", pid, "--net", "--mount", "--pid", "--uts"}
		said, _ := os.ReadFile(out.Name())
		return string(said), err == nil, nil
	})
	require.NoError(t, err)
	return &Node{Host: h, Name: name}
}

func (l *link) id(n *Node) Identity {
	l.t.Helper()
	id, err := n.GetIdentity(l.t.Context())
	require.NoError(l.t, err)
	return id
}

// answers reports whether something at the address answers: a port that nobody
// listens on is refused.
func answers(address string, patience time.Duration) bool {
	c, err := net.DialTimeout("tcp", address+":9", patience)
	if err == nil {
		_ = c.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNREFUSED)
}

// gap asks an address for an answer until do has ended and it answers again,
// and returns the longest time between two answers.
func gap(address string, do func()) time.Duration {
	done := make(chan struct{})
	longest := make(chan time.Duration)
	go func() {
		last, worst := time.Now(), time.Duration(0)
		for {
			ok := answers(address, 50*time.Millisecond)
			if ok {
				worst, last = max(worst, time.Since(last)), time.Now()
			}
			select {
			case <-done:
				if ok || time.Since(last) > time.Minute {
					longest <- worst
					return
				}
			default:
			}
			if ok {
				wait := time.NewTimer(5 * time.Millisecond)
				<-wait.C
			}
		}
	}()
	do()
	close(done)
	return <-longest
}

func vrrp(priority int) string {
	return fmt.Sprintf(`cat >/etc/keepalived/keepalived.conf <<'END'
global_defs {
	router_id lab
}
vrrp_instance console {
	state BACKUP
	nopreempt
	interface eth0
	virtual_router_id 60
	priority %d
	advert_int 1
	virtual_ipaddress {
		192.0.2.60/24
	}
}
END`, priority)
}

// TestRealVIP moves a VIP between two nodes with the real keepalived, as the
// switch of procedure B does; the times are logged, not asserted.
func TestRealVIP(t *testing.T) {
	testenv.Slow(t)
	for _, p := range []string{"keepalived", "arping", "ip", "nsenter"} {
		testenv.Need(t, p)
	}
	if !lab.Isolated(t) {
		return
	}
	l, ctx := newLink(t), t.Context()
	mac0, mac1 := MAC{0, 0x16, 0x3e, 0, 0, 0xa0}, MAC{0, 0x16, 0x3e, 0, 0, 0xa1}
	n0 := l.node("proxy0", "192.0.2.61", mac0, vrrp(100))
	n1 := l.node("proxy1", "192.0.2.62", mac1, vrrp(90))
	id0, id1 := l.id(n0), l.id(n1)
	require.Equal(t, []MAC{mac0}, id0.MACs)
	require.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.62")}, id1.Addresses)
	vip := netip.MustParseAddr("192.0.2.60")
	holder := func() string {
		name, _ := VIPHolder(ctx, vip, n0, n1)
		return name
	}
	holds := func(n *Node) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.NoError(t, poll.Poller{Interval: 20 * time.Millisecond}.Until(ctx, "the VIP", func(context.Context) (string, bool, error) {
			return holder(), holder() == n.Name, nil
		}))
	}

	var none *VIPError
	_, err := VIPHolder(ctx, vip, n0, n1)
	require.ErrorAs(t, err, &none)
	assert.Empty(t, none.Holders)

	require.NoError(t, n0.ReleaseKeepalived(ctx, id0))
	holds(n0)

	t.Run("held down", func(t *testing.T) {
		for range 2 {
			require.NoError(t, n1.HoldKeepalived(ctx, id1))
			k, err := n1.GetKeepalived(ctx)
			require.NoError(t, err)
			assert.Equal(t, Keepalived{Held: true}, k)
		}
		var other *IdentityError
		require.ErrorAs(t, n1.HoldKeepalived(ctx, id0), &other)
		require.NoError(t, n1.ReleaseKeepalived(ctx, id1))
		k, err := n1.GetKeepalived(ctx)
		require.NoError(t, err)
		assert.Equal(t, Keepalived{Active: true}, k)
		// While it runs, holding it down stops it too.
		require.NoError(t, n1.HoldKeepalived(ctx, id1))
		require.NoError(t, n1.ReleaseKeepalived(ctx, id1))
		assert.Equal(t, "proxy0", holder(), "the holder has kept it all the time")
	})
	// The new backup has to have heard the master before it can take over at once.
	time.Sleep(1500 * time.Millisecond)

	t.Run("TestTrapVIPGraceful", func(t *testing.T) {
		g := gap("192.0.2.60", func() {
			require.NoError(t, n0.StopKeepalived(ctx, id0))
			holds(n1)
		})
		t.Logf("VIP gap, keepalived stopped on the holder first: %v", g)
		require.NoError(t, n0.StopKeepalived(ctx, id0), "stopped already")
		require.NoError(t, n0.ReleaseKeepalived(ctx, id0))
		assert.Equal(t, "proxy1", holder(), "nopreempt")
	})
	time.Sleep(1500 * time.Millisecond)
	t.Run("TestTrapVIPPowerOff", func(t *testing.T) {
		g := gap("192.0.2.60", func() {
			sh(t, "ip link set vproxy1 down")
			holds2 := func() bool {
				dev, err := n0.AddressDevice(ctx, vip)
				return err == nil && dev != ""
			}
			for !holds2() && t.Context().Err() == nil {
			}
		})
		t.Logf("VIP gap, the holder vanishes: %v", g)
		sh(t, "ip link set vproxy1 up")
		require.NoError(t, n1.StopKeepalived(ctx, id1))
		holds(n0)
	})

	t.Run("TestTrapVIPTwoHolders", func(t *testing.T) {
		sh(t, "ip -n proxy1 addr add 192.0.2.60/24 dev eth0")
		_, err := VIPHolder(ctx, vip, n0, n1)
		var e *VIPError
		require.ErrorAs(t, err, &e)
		assert.Equal(t, []string{"proxy0", "proxy1"}, e.Holders)
		firstbox := &Node{Host: &localHost{}, Name: "firstbox"}
		macs, err := firstbox.AnsweringMACs(ctx, vip, "lab0")
		require.NoError(t, err)
		assert.Equal(t, []MAC{mac0, mac1}, macs)
		sh(t, "ip -n proxy1 addr del 192.0.2.60/24 dev eth0")
		macs, err = firstbox.ProbeAddress(ctx, vip, "lab0")
		require.NoError(t, err)
		assert.Equal(t, []MAC{mac0}, macs)
		for _, ask := range []func(context.Context, netip.Addr, string) ([]MAC, error){n1.ProbeAddress, n1.AnsweringMACs} {
			macs, err = ask(ctx, netip.MustParseAddr("192.0.2.99"), "eth0")
			require.NoError(t, err)
			assert.Empty(t, macs, "nobody has it")
		}
		_, err = n1.ProbeAddress(ctx, vip, "no-such-device")
		assert.Error(t, err)
	})

	t.Run("TestTrapStaleARP", func(t *testing.T) {
		require.NoError(t, n0.StopKeepalived(ctx, id0))
		moving := netip.MustParseAddr("192.0.2.63")
		assert.ErrorContains(t, n1.Announce(ctx, moving), "does not have it")
		sh(t, "ip -n proxy0 addr add 192.0.2.63/24 dev eth0")
		require.True(t, answers("192.0.2.63", time.Second))
		sh(t, "ip -n proxy0 addr del 192.0.2.63/24 dev eth0 && ip -n proxy1 addr add 192.0.2.63/24 dev eth0")
		assert.False(t, answers("192.0.2.63", 300*time.Millisecond), "the firstbox sends to the old MAC")
		require.NoError(t, n1.Announce(ctx, moving))
		assert.True(t, answers("192.0.2.63", time.Second))
	})

	t.Run("TestTrapPingOneLoginOther", func(t *testing.T) {
		// A stand-in for ssh that goes where the firstbox's name resolution would:
		// to the old node, which has the address in /etc/hosts by now.
		bin := t.TempDir()
		script := "#!/bin/sh\nwhile [ \"$1\" = -o ]; do shift 2; done\n[ \"$1\" = proxy0 ] || exit 255\nexec " + strings.Join(n0.Host.(*localHost).prefix, " ") + " /bin/sh -c \"$2\"\n"
		require.NoError(t, os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755))
		f := &Firstbox{Host: &localHost{env: []string{"PATH=" + bin + ":" + os.Getenv("PATH")}}}
		require.NoError(t, f.ProveName(ctx, "proxy0", id0))
		var other *IdentityError
		require.ErrorAs(t, f.ProveName(ctx, "proxy0", id1), &other)
		assert.Equal(t, []MAC{mac0}, other.Got.MACs)
		_, err := f.ReachedBy(ctx, "proxy1")
		assert.Error(t, err)
		assert.ErrorAs(t, n0.Shutdown(ctx, id1), &other)
		assert.ErrorAs(t, n0.Reboot(ctx, id1), &other)
		last := id0
		last.BootID = "00000000-0000-0000-0000-000000000000"
		assert.NoError(t, n0.Reboot(ctx, last), "it has booted since: nothing is done")
	})
}

const haproxyText = `global
	maxconn 100
defaults
	mode tcp
	timeout connect 1s
	timeout client 1s
	timeout server 1s
listen api-front
	bind 127.0.0.1:7777
	server apiserver_0 127.0.0.1:%d
`

// TestRealHAProxy changes the configuration under a real haproxy.
func TestRealHAProxy(t *testing.T) {
	testenv.Slow(t)
	for _, p := range []string{"haproxy", "ip", "nsenter"} {
		testenv.Need(t, p)
	}
	if !lab.Isolated(t) {
		return
	}
	l, ctx := newLink(t), t.Context()
	old, next := fmt.Appendf(nil, haproxyText, 9001), fmt.Appendf(nil, haproxyText, 9002)
	n := l.node("proxy0", "192.0.2.61", MAC{0, 0x16, 0x3e, 0, 0, 0xb0}, "cat >/etc/haproxy/haproxy.cfg <<'END'\n"+string(old)+"END\nchmod 640 /etc/haproxy/haproxy.cfg; service haproxy start || exit 1")
	id := l.id(n)
	local := n.Host.(*localHost)
	n.Host = &nodeFiles{local}
	workers := func() string { return strings.TrimSpace(mustOutput(t, n, "pgrep -x haproxy | sort -n | tr '\\n' ' '")) }
	before := workers()
	require.NotEmpty(t, before)

	var check *HAProxyCheckError
	require.ErrorAs(t, n.ApplyHAProxy(ctx, id, "k", old, []byte("listen x addr:80\n")), &check)
	assert.Equal(t, before, workers())
	var drift *DriftError
	require.ErrorAs(t, n.ApplyHAProxy(ctx, id, "k", []byte("something else"), next), &drift)

	for range 2 {
		require.NoError(t, n.ApplyHAProxy(ctx, id, "k", old, next))
		got, err := n.ReadHAProxy(ctx)
		require.NoError(t, err)
		assert.Equal(t, string(next), string(got))
	}
	assert.NotEqual(t, before, workers(), "it was reloaded")
	assert.Contains(t, mustOutput(t, n, "stat -c %a /etc/haproxy/haproxy.cfg"), "640")

	for range 2 {
		require.NoError(t, n.UndoHAProxy(ctx, "k", next))
		got, err := n.ReadHAProxy(ctx)
		require.NoError(t, err)
		assert.Equal(t, string(old), string(got))
	}
	require.NoError(t, n.UndoHAProxy(ctx, "never", next))
	assert.Equal(t, "haproxy.cfg", strings.TrimSpace(mustOutput(t, n, "ls -A /etc/haproxy")), "nothing is left beside it")
	mustOutput(t, n, "service haproxy stop")
}

// nodeFiles is the Host of a node with file systems of its own.
type nodeFiles struct{ *localHost }

func (h *nodeFiles) root() string { return "/proc/" + h.prefix[2] + "/root" }

func (h *nodeFiles) ReadFile(ctx context.Context, name string) ([]byte, error) {
	return h.localHost.ReadFile(ctx, h.root()+name)
}

func (h *nodeFiles) WriteFile(ctx context.Context, name string, data []byte, perm os.FileMode) error {
	return h.localHost.WriteFile(ctx, h.root()+name, data, perm)
}

func mustOutput(t *testing.T, n *Node, cmd string) string {
	t.Helper()
	out, err := output(t.Context(), n.Host, cmd)
	require.NoError(t, err)
	return out
}

// standInShutdown puts a shutdown that only writes down its arguments where a
// node has the real one, and nowhere else.
const standInShutdown = `mkdir /run/real /run/sbin && mount --bind /usr/sbin /run/real && ln -s /run/real/* /run/sbin/ && rm -f /run/sbin/shutdown &&
printf '#!/bin/sh\necho "$@" >>/run/shutdowns\n' >/run/sbin/shutdown && chmod 755 /run/sbin/shutdown && mount --bind /run/sbin /usr/sbin || exit 1
`

// TestRealCron lets a real cron take an edit back after a reboot, and reboot
// again, for which a job's PATH does not do. It waits for the next full minute,
// and costs nothing meanwhile.
func TestRealCron(t *testing.T) {
	testenv.Slow(t)
	for _, p := range []string{"cron", "ip", "nsenter"} {
		testenv.Need(t, p)
	}
	if !lab.Isolated(t) {
		return
	}
	l, ctx := newLink(t), t.Context()
	n := l.node("proxy0", "192.0.2.61", MAC{0, 0x16, 0x3e, 0, 0, 0xc0}, standInShutdown+"echo old >/run/interfaces; cron")
	n.Host = &nodeFiles{n.Host.(*localHost)}
	edit := NetworkEdit{Key: "k", Minutes: 1000, Files: []FileEdit{{"/run/interfaces", []byte("old\n"), []byte("new\n")}}}
	require.NoError(t, n.BeginEdit(ctx, edit, l.id(n)))
	assert.Equal(t, "new\n", mustOutput(t, n, "cat /run/interfaces"))
	mustOutput(t, n, "echo another-boot >/var/lib/upgradectl/net-k/boot")
	wait, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	require.NoError(t, poll.Poller{Interval: time.Second, Steady: true, Max: time.Second}.Until(wait, "the edit", func(ctx context.Context) (string, bool, error) {
		st, err := n.GetEdit(ctx, "k")
		if err == nil && st.MinutesLeft > 1 { // a job that is under way may write its own number over ours
			mustOutput(t, n, "echo 1 >/var/lib/upgradectl/net-k/left")
		}
		return string(st.Phase) + " " + strconv.Itoa(st.MinutesLeft), st.Phase == EditReverted, err
	}))
	assert.Equal(t, "old\n", mustOutput(t, n, "cat /run/interfaces"))
	assert.Eventually(t, func() bool {
		out, _ := output(ctx, n.Host, "cat /run/shutdowns") // there soon
		return strings.HasPrefix(out, "-r now\n")           // and again every minute, for it is not done
	}, time.Minute, 10*time.Millisecond)
	mustOutput(t, n, "kill $(cat /run/crond.pid)")
}

package hostinv_test

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// machine is a host whose /bin/sh is another command: a shell of this machine,
// or one in namespaces of its own.
type machine struct {
	shell []string // runs the script that comes on standard input
	env   []string
}

type machineExit struct{ *exec.ExitError }

func (e machineExit) ExitStatus() int { return e.ExitCode() }

func (m machine) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if cmd != "/bin/sh -s" {
		return fmt.Errorf("the collector runs %q", cmd)
	}
	c := exec.CommandContext(ctx, m.shell[0], m.shell[1:]...)
	c.Env = append(os.Environ(), m.env...)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	if x := (*exec.ExitError)(nil); errors.As(err, &x) {
		return machineExit{x}
	}
	return err
}

func thisMachine(t *testing.T) machine {
	if runtime.GOOS != "linux" {
		t.Skip("collects this machine, which needs Linux's /proc")
	}
	return machine{shell: []string{"/bin/sh", "-s"}}
}

// startJava runs a JVM that listens on port: the RMI registry, which every
// runtime brings, from a jar that holds nothing but its name, or by class.
func startJava(t *testing.T, dir, jar string, port int) *exec.Cmd {
	t.Helper()
	args := []string{"-Xmx24m", "-XX:+UseSerialGC", "-Dorder.password=hunter2"}
	if jar != "" {
		f, err := os.Create(filepath.Join(dir, jar))
		require.NoError(t, err)
		z := zip.NewWriter(f)
		w, err := z.Create("META-INF/MANIFEST.MF")
		require.NoError(t, err)
		fmt.Fprint(w, "Manifest-Version: 1.0\r\nMain-Class: sun.rmi.registry.RegistryImpl\r\n")
		require.NoError(t, z.Close())
		require.NoError(t, f.Close())
		args = append(args, "-jar", jar)
	} else {
		args = append(args, "sun.rmi.registry.RegistryImpl")
	}
	cmd := exec.Command(testenv.Need(t, "java"), append(args, fmt.Sprint(port))...)
	cmd.Dir = dir
	var log strings.Builder
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return cmd
		}
		select {
		case <-ctx.Done():
			t.Fatalf("java does not listen: %s", log.String())
		case <-tick.C:
		}
	}
}

// javaOf returns what an inventory says of the processes in a directory.
func javaOf(inv *hostinv.Inventory, dir string) (l []hostinv.Java) {
	for _, j := range inv.Java {
		if j.Cwd == dir {
			l = append(l, j)
		}
	}
	return l
}

// TestRealJava: real JVMs by jar and by class, twins that are counted, and
// the loss of one of them.
func TestRealJava(t *testing.T) {
	h := thisMachine(t)
	testenv.Need(t, "java")
	testenv.Slow(t) // a JVM starts for a second
	dir := filepath.Join(t.TempDir(), "srv order one")
	require.NoError(t, os.Mkdir(dir, 0o755))
	var ports []int
	var twins []*exec.Cmd
	for range 2 {
		port := testenv.FreePort(t, "tcp", "")
		ports = append(ports, port)
		twins = append(twins, startJava(t, dir, "order.jar", port))
	}
	class := testenv.FreePort(t, "tcp", "")
	startJava(t, dir, "", class)

	before, err := hostinv.Collect(t.Context(), h, hostinv.Options{})
	require.NoError(t, err)
	found := map[int]hostinv.Java{}
	for _, j := range javaOf(before, dir) {
		require.Len(t, j.Ports, 1)
		found[j.Ports[0]] = j
	}
	require.Len(t, found, 3)
	for i, port := range ports {
		assert.Equal(t, "order.jar", found[port].Jar)
		assert.Equal(t, twins[i].Process.Pid, found[port].PID)
		assert.Contains(t, found[port].Args, "-Dorder.password=[hidden]")
		assert.True(t, strings.HasSuffix(found[port].Exe, "/java"), found[port].Exe)
	}
	assert.Empty(t, found[class].Jar)
	assert.Equal(t, "sun.rmi.registry.RegistryImpl", found[class].MainClass)

	require.NoError(t, twins[1].Process.Kill())
	twins[1].Wait()
	after, err := hostinv.Collect(t.Context(), h, hostinv.Options{})
	require.NoError(t, err)
	require.Len(t, javaOf(after, dir), 2)
	areas := map[string]bool{}
	for _, f := range hostinv.Diff(before, after, hostinv.Expect{}).Losses() {
		if strings.Contains(f.Key, "order.jar") || strings.Contains(f.Key, fmt.Sprint(ports[1])) {
			areas[f.Area] = true
		}
	}
	assert.True(t, areas[hostinv.SectionJava], "one twin of two is a loss")
	assert.True(t, areas[hostinv.SectionListeners], "its port is a loss")
}

// TestRealSockets: what this process listens on is found with its name, for
// every kind of socket.
func TestRealSockets(t *testing.T) {
	h := thisMachine(t)
	type socket struct {
		network, addr, proto, want string
	}
	ports := map[int]socket{}
	for _, s := range []socket{
		{"tcp4", "0.0.0.0", "tcp", "0.0.0.0"},
		{"tcp4", "127.0.0.1", "tcp", "127.0.0.1"},
		{"tcp6", "[::]", "tcp", "::"},
		{"tcp6", "[::1]", "tcp", "::1"},
		{"udp4", "127.0.0.1", "udp", "127.0.0.1"},
		{"udp6", "[::1]", "udp", "::1"},
	} {
		port := testenv.FreePort(t, s.network, "") // a service's, not one of the kernel's choice
		for ports[port].network != "" {
			port++
		}
		if s.proto == "udp" {
			c, err := net.ListenPacket(s.network, fmt.Sprintf("%s:%d", s.addr, port))
			if err != nil {
				t.Logf("no %s %s here: %v", s.network, s.addr, err)
				continue
			}
			defer c.Close()
		} else {
			l, err := net.Listen(s.network, fmt.Sprintf("%s:%d", s.addr, port))
			if err != nil {
				t.Logf("no %s %s here: %v", s.network, s.addr, err)
				continue
			}
			defer l.Close()
		}
		ports[port] = s
	}
	inv, err := hostinv.Collect(t.Context(), h, hostinv.Options{})
	require.NoError(t, err)
	self, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	for _, l := range inv.Listeners {
		if s, ok := ports[l.Port]; ok && l.PID == os.Getpid() {
			assert.Equal(t, []string{s.proto, s.want, strings.TrimSpace(string(self))}, []string{l.Proto, l.Addr, l.Process})
			assert.Equal(t, os.Getuid(), l.UID)
			delete(ports, l.Port)
		}
	}
	assert.Empty(t, ports, "not found with its process")
}

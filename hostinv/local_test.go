package hostinv

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// edited is localHost with a changed script.
type edited struct {
	localHost
	edit *strings.Replacer
}

func (h edited) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	return h.localHost.Run(ctx, cmd, strings.NewReader(h.edit.Replace(string(text))), stdout, stderr)
}

func needLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc of this machine, which only Linux has")
	}
}

// TestNotRoot: what only root may read is named, never silently empty.
func TestNotRoot(t *testing.T) {
	needLinux(t)
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user and to have something to hide from it")
	}
	testenv.Need(t, "setpriv")
	testenv.Need(t, "dash")
	secret := exec.Command("sleep", "60") // root's process
	require.NoError(t, secret.Start())
	defer secret.Wait()
	defer secret.Process.Kill()
	inv, err := Collect(t.Context(), localHost{"setpriv --reuid=65534 --regid=65534 --clear-groups dash"}, Options{})
	require.NoError(t, err)
	assert.Equal(t, 65534, inv.UID)
	for section, what := range map[string]string{
		SectionProcesses: "program, directory, environment names and sockets of ",
		SectionOwners:    "program, directory, environment names and sockets of ",
		SectionUsers:     "/etc/sudoers",
		SectionSSH:       "/root/.ssh",
		SectionCron:      "/var/spool/cron/crontabs",
		SectionFirewall:  "iptables-save",
	} {
		s := inv.Sections[section]
		if section == SectionFirewall && s.Status == StatusAbsent || section == SectionCron && s.Status == StatusOK {
			continue // not on this machine
		}
		assert.Equal(t, StatusPartial, s.Status, "%s: %s", section, s.Message)
		assert.Contains(t, strings.Join(s.Unreadable, "\n"), what, section)
		assert.Contains(t, inv.Text(English), "not readable: ")
	}
	for _, p := range inv.Processes {
		if p.PID == secret.Process.Pid {
			assert.Equal(t, Process{PID: p.PID, PPID: os.Getpid(), Name: "sleep", Program: "sleep", User: "root", Started: p.Started, Environment: []string{}, Unit: p.Unit, args: p.args, uid: "0"}, p)
			return
		}
	}
	t.Error("a process of root's is missing: its name may be read by everybody")
}

// TestPoorUserland: a host with busybox alone gives the same processes,
// one by one where its grep and ls cannot write whole tables.
func TestPoorUserland(t *testing.T) {
	needLinux(t)
	testenv.Need(t, "busybox")
	dir := t.TempDir()
	require.NoError(t, exec.Command("busybox", "--install", "-s", dir).Run())
	t.Setenv("PATH", dir)
	plain := strings.NewReplacer("if echo | grep -z -a -q ''", "if false")
	hosts := []Host{edited{localHost{filepath.Join(dir, "sh")}, plain}}
	if testenv.RunSlow() {
		hosts = append(hosts, localHost{filepath.Join(dir, "sh")})
	}
	for _, h := range hosts {
		cmd := exec.Command(filepath.Join(dir, "sleep"), "60")
		cmd.Dir = t.TempDir()
		begin := time.Now()
		require.NoError(t, cmd.Start())
		inv, err := Collect(t.Context(), h, Options{})
		cmd.Process.Kill()
		cmd.Wait()
		require.NoError(t, err)
		var found Process
		for _, p := range inv.Processes {
			if p.PID == cmd.Process.Pid {
				found = p
			}
		}
		assert.Equal(t, cmd.Dir, found.Cwd)
		assert.Equal(t, "busybox", found.Program)
		assert.Contains(t, found.Environment, "PATH")
		assert.WithinDuration(t, begin, found.Started, 30*time.Second)
		for _, n := range []string{SectionOS, SectionKernel, SectionBoot, SectionUptime, SectionHost, SectionMounts, SectionListeners, SectionUsers, SectionSysctl, SectionDNS} {
			assert.Equal(t, StatusOK, inv.Sections[n].Status, "%s: %s", n, inv.Sections[n].Message)
		}
	}
}

// TestTimeBox: a command that hangs costs its section, not the inventory, with
// timeout and without.
func TestTimeBox(t *testing.T) {
	needLinux(t)
	testenv.Need(t, "dash")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ip"), []byte("#!/bin/sh\necho $$ >"+dir+"/pid\nexec sleep 300\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	// What does not hang has all the time that a slow machine takes.
	limit := `"$(case $1 in ip) echo 1 ;; *) echo 200 ;; esac)" `
	for name, edit := range map[string]*strings.Replacer{
		"timeout": strings.NewReplacer("timeout 20 ", "timeout "+limit),
		"watch":   strings.NewReplacer("timeout=yes", "timeout=", "sleep 20 &", "sleep "+limit+" &"),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "watch" {
				testenv.Slow(t)
			}
			begin := time.Now()
			inv, err := Collect(t.Context(), edited{localHost{"dash"}, edit}, Options{})
			require.NoError(t, err)
			assert.Less(t, time.Since(begin), 250*time.Second)
			for _, n := range []string{SectionInterfaces, SectionRoutes, SectionRules} {
				assert.Equal(t, StatusTimeout, inv.Sections[n].Status, "%s: %s", n, inv.Sections[n].Message)
			}
			assert.Equal(t, StatusOK, inv.Sections[SectionSysctl].Status, "what comes after is there")
			pid, err := os.ReadFile(filepath.Join(dir, "pid"))
			require.NoError(t, err)
			assert.Eventually(t, func() bool {
				_, err := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
				return err != nil
			}, time.Minute, 20*time.Millisecond, "the hanging command is ended")
		})
	}
}

// TestQuietHost: a host that nobody touched does not differ from itself, however
// busy it is: 100 collections with processes, connections and listeners on
// ephemeral ports coming and going. Processes and network are namespaces of
// their own, so that nobody else on this machine touches them.
func TestQuietHost(t *testing.T) {
	testenv.Slow(t)
	needLinux(t)
	if os.Getuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	for _, p := range []string{"unshare", "nsenter", "dash", "busybox", "ip"} {
		testenv.Need(t, p)
	}
	busy := exec.Command("unshare", "--fork", "--kill-child", "--pid", "--net", "--mount-proc", "sh", "-c", `
ip link set lo up
busybox httpd -f -p 127.0.0.1:8080 -h / &
while :; do
	busybox wget -q -O /dev/null http://127.0.0.1:8080/etc/hosts &
	busybox timeout 1 busybox nc -l -p $((40000 + ($$ + i) % 1000)) >/dev/null 2>&1 &
	i=$((i + 1))
	sleep 0.05
done`)
	require.NoError(t, busy.Start())
	defer busy.Wait()
	defer busy.Process.Kill()
	var inside string
	require.Eventually(t, func() bool {
		pid := strconv.Itoa(busy.Process.Pid)
		text, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		inside = strings.TrimSpace(string(text))
		return inside != ""
	}, time.Minute, 10*time.Millisecond)
	h := localHost{"nsenter -t " + inside + " --pid --net --mount dash"}
	require.Eventually(t, func() bool {
		inv, err := Collect(t.Context(), h, Options{})
		return err == nil && slices.ContainsFunc(inv.Listeners, func(l Listener) bool { return l.Port == 8080 })
	}, 2*time.Minute, 100*time.Millisecond)
	before, err := Collect(t.Context(), h, Options{})
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(before.Listeners, func(l Listener) bool { return l.Port == 8080 && l.Process == "busybox" }))
	changed := 0
	for i := range 100 {
		after, err := Collect(t.Context(), h, Options{})
		require.NoError(t, err)
		require.Empty(t, onlyKnown(Diff(before, after, Expect{}).Findings), "collection %d", i+1)
		for n, s := range before.Sections {
			require.Equal(t, s.Status, after.Sections[n].Status, "collection %d: %s: %s", i+1, n, after.Sections[n].Message)
		}
		if len(before.Processes) != len(after.Processes) || len(before.Listeners) != len(after.Listeners) || len(before.Connections) != len(after.Connections) {
			changed++
		}
	}
	assert.Greater(t, changed, 20, "the host was busy")
}

// BenchmarkParse is what a collection costs the controller besides SSH: this
// machine's own answer, read and compared with itself.
func BenchmarkParse(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Skip("reads /proc of this machine, which only Linux has")
	}
	var out bytes.Buffer
	err := localHost{"sh"}.Run(b.Context(), shellCommand, strings.NewReader(script(testMark)), &out, io.Discard)
	require.NoError(b, err)
	b.SetBytes(int64(out.Len()))
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			parseStream(out.Bytes(), testMark)
		}
	})
	inv, _ := parseStream(out.Bytes(), testMark)
	b.Run("diff", func(b *testing.B) {
		for b.Loop() {
			Diff(inv, inv, Expect{})
		}
	})
	b.Log(strconv.Itoa(out.Len()) + " bytes")
}

// TestOtherCollectors: where many collectors run on one host, their shells are
// not sent, nor the lists of files in the command lines of what they run; a
// program that shows no arguments is a process all the same.
func TestOtherCollectors(t *testing.T) {
	needLinux(t)
	testenv.Need(t, "dash")
	src, err := os.ReadFile("../internal/remote/shell.go")
	require.NoError(t, err)
	m := regexp.MustCompile("(?s)const leash = `(.*?)`").FindSubmatch(src)
	require.NotNil(t, m)
	leash := string(m[1])
	require.True(t, strings.HasPrefix(leash, `printf "%s\n" "$1"; printf "%s\n" "$1" >&2; exec 3<&0 `), "the leash has changed; change the pattern in script.sh")
	start := func(args ...string) int {
		cmd := exec.Command("dash")
		cmd.Args = args
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		return cmd.Process.Pid
	}
	const wait = "read -r x; exit"
	script := start("dash", "-c", "# upgradectl inventory collector\n"+wait, "upgradectl")
	leashed := start("dash", "-c", wait, "sh", leash)
	login := start("dash", "-c", wait, "/bin/sh -c '"+leash+"'")
	other := start("dash", "-c", wait, "sh", "# upgradectl", "/proc/1/environ", "/proc/1/maps", "kept")
	bare := start("/proc/77/fd")
	var seen bytes.Buffer
	inv, err := Collect(t.Context(), tapped{localHost{"dash"}, &seen}, Options{})
	require.NoError(t, err)
	args := map[int][]string{}
	for _, p := range inv.Processes {
		args[p.PID] = p.args
	}
	for _, pid := range []int{script, leashed, login} {
		assert.NotContains(t, args, pid)
	}
	assert.Equal(t, []string{"dash", "-c", wait, "sh", "# upgradectl", "/proc/1/maps", "kept"}, args[other])
	require.Len(t, args[bare], 1)
	assert.Contains(t, args[bare][0], "dash", "its program stands for it")
	assert.NotContains(t, seen.String(), "exec 3<&0 4>&2")
}

// tapped keeps what the host said.
type tapped struct {
	Host
	seen io.Writer
}

func (h tapped) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	return h.Host.Run(ctx, cmd, stdin, io.MultiWriter(stdout, h.seen), stderr)
}

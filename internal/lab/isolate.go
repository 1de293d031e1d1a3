package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// inside names the environment variable that holds the lab's directory; it is
// set inside the lab only.
const inside = "UPGRADECTL_LAB_DIR"

// Inside says whether this process is the inner one of [Isolated].
func Inside() bool { return os.Getenv(inside) != "" }

// Need skips a test that cannot have a lab here, and says why; where
// UPGRADECTL_REQUIRE names sshd it fails. [Isolated] does the same; a test
// calls it before it does something expensive for the lab.
func Need(t *testing.T) {
	t.Helper()
	why := ""
	switch {
	case Inside():
		return
	case runtime.GOOS != "linux":
		why = "network namespaces are Linux's"
	case os.Geteuid() != 0:
		why = "not root: hosts in namespaces of their own need it"
	}
	if why != "" {
		if testenv.Required("sshd") {
			t.Fatalf("%s (%s names sshd)", why, testenv.RequireVariable)
		}
		t.Skip(why)
	}
	for _, p := range []string{"systemd-nspawn", "systemctl", "cloud-init", "sshd", "ssh-keygen", "ip", "unshare", "nsenter", "mount", "chroot"} {
		testenv.Need(t, p)
	}
}

// Isolated runs the calling test a second time, in network, mount and process
// namespaces of its own, and gives true there and false outside, where the
// test has nothing more to do: the inner one's output is its log, its failure
// its failure. env is added to the inner environment.
//
// Nothing of the inner test touches this machine's network or file systems,
// and whatever it starts ends with it, even if it is killed: the kernel ends
// a process namespace with its first process, and that one ends when the
// outer test does. The empty control groups and the directory that a killed
// test leaves are removed by the next. A test that cannot be isolated is
// skipped: see [Need].
func Isolated(t *testing.T, env ...string) bool {
	t.Helper()
	if Inside() {
		enter(t)
		return true
	}
	Need(t)
	unshare := testenv.Need(t, "unshare")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	limit := 10 * time.Minute
	if d, ok := t.Deadline(); ok {
		limit = time.Until(d) - 10*time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, unshare, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		self, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout="+limit.String())
	if err := sweep(); err != nil {
		t.Log(err) // what others left is not this test's failure
	}
	r, err := newRun()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.remove(cgroupPatience); err != nil {
			t.Error(err)
		}
	}()
	cmd.Env = append(append(os.Environ(), inside+"="+r.dir), env...)
	cmd.WaitDelay = 10 * time.Second
	// The inner process ends when this pipe does, also when we are killed.
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.enter(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		t.Log(lines.Text())
	}
	_, _ = io.Copy(io.Discard, out) // after a line too long to keep
	if err := cmd.Wait(); err != nil {
		t.Errorf("inside the lab: %v", err)
	}
	return false
}

// enter makes the inner process ready: it ends with the outer one, and has
// file systems of its own where the lab writes.
func enter(t *testing.T) {
	t.Helper()
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // nobody writes: it returns when the outer test has ended
		fmt.Fprintln(os.Stderr, "the outer test has ended")
		os.Exit(3)
	}()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, dir := range []string{os.Getenv(inside), "/run"} {
		// Overlay file systems need their upper part on another file system
		// than "/", their lower one.
		if err := command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if left := others(5 * time.Second); len(left) > 0 {
			t.Errorf("processes are left: %s", strings.Join(left, "; "))
		}
	})
}

// others lists the other processes that are still there after some time. The
// inner test is process 1 of a namespace: what it can see is what it started.
func others(patience time.Duration) []string {
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var left []string
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			if err != nil || len(line) == 0 { // gone, or a zombie
				continue
			}
			left = append(left, e.Name()+" "+strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-end.C:
			return left
		case <-tick.C:
		}
	}
}

// command runs a program that says nothing unless it fails.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

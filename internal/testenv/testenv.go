// Package testenv decides whether a test that needs a real program can run.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// RequireVariable names the environment variable that lists, separated by
// commas, the programs that must be there: a test that needs one of them and
// does not find it fails. "all" means every program.
const RequireVariable = "UPGRADECTL_REQUIRE"

// packageOf returns the Debian package that brings a program.
func packageOf(program string) string {
	switch program {
	case "sshd":
		return "openssh-server"
	case "ssh", "scp", "sftp", "ssh-keygen", "ssh-agent", "ssh-add":
		return "openssh-client"
	case "dockerd":
		return "docker.io"
	case "docker":
		return "docker.io"
	case "virsh":
		return "libvirt-clients"
	case "libvirtd":
		return "libvirt-daemon-system"
	case "qemu-system-x86_64":
		return "qemu-system-x86"
	case "supervisord", "supervisorctl":
		return "supervisor"
	case "ss", "ip":
		return "iproute2"
	case "systemd-nspawn":
		return "systemd-container"
	case "unshare", "setsid", "runuser":
		return "util-linux"
	case "ansible", "ansible-inventory":
		return "ansible-core"
	case "ifquery":
		return "ifupdown"
	case "java":
		return "default-jre-headless"
	case "dnf":
		return "dnf"
	case "rpm":
		return "rpm"
	}
	return program
}

// Need returns the path of program. When it is missing the test is skipped with
// a reason, or fails when the environment variable UPGRADECTL_REQUIRE names it.
func Need(t testing.TB, program string) string {
	t.Helper()
	path, ok := find(program)
	if ok {
		return path
	}
	const hint = "%s is not installed; on Debian: apt-get install %s"
	if Required(program) {
		t.Fatalf(hint+" (%s names it)", program, packageOf(program), RequireVariable)
	}
	t.Skipf(hint, program, packageOf(program))
	return ""
}

// Required reports whether UPGRADECTL_REQUIRE names program.
func Required(program string) bool {
	for name := range strings.SplitSeq(os.Getenv(RequireVariable), ",") {
		if name = strings.TrimSpace(name); name == program || name == "all" {
			return true
		}
	}
	return false
}

// find looks in PATH and, because daemons live there and an ordinary user's
// PATH often lacks them, in the sbin directories.
func find(program string) (string, bool) {
	if path, err := exec.LookPath(program); err == nil {
		return path, true
	}
	if runtime.GOOS == "windows" {
		return "", false
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Directories of this machine that a host begins without what is in them, and
// their modes.
var emptied = map[string]fs.FileMode{
	"/root": 0o700, "/home": 0o755, "/opt": 0o755, "/srv": 0o755, "/mnt": 0o755, "/media": 0o755, "/boot": 0o755,
	"/usr/local":          0o755, // what was installed by hand
	"/etc/systemd/system": 0o755, // what is enabled here
	"/etc/docker":         0o755,
	"/etc/cloud":          0o755,
	"/var/lib/docker":     0o711, "/var/lib/containerd": 0o711, "/var/lib/systemd": 0o755, "/var/lib/cloud": 0o755,
	"/var/tmp": 0o777 | fs.ModeSticky, "/var/spool/cron/crontabs": 0o1730,
	"/var/log": 0o755,
}

// standard are the names at the root of a host. Whatever else this machine
// has there, the host does not see.
var standard = []string{"bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"}

// masked are units that have nothing to do on a host of the lab.
var masked = []string{
	"systemd-firstboot.service", "systemd-pstore.service", "systemd-modules-load.service", "getty.target", "console-getty.service",
	"dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
	"systemd-networkd-wait-online.service", "systemd-machine-id-commit.service",
	"modprobe@.service", "systemd-remount-fs.service", "systemd-tmpfiles-setup-dev.service", "systemd-sysusers.service",
	"user@.service", // CentOS 7 has no manager for each user
}

// uname says the release of the kernel that the host was booted with; uname(2)
// cannot.
const uname = `#!/bin/sh
# The lab's stand-in: every host runs on one kernel.
now=$(cat /proc/sys/kernel/osrelease) real=$(/usr/libexec/lab/uname -r)
/usr/libexec/lab/uname "$@" | sed "s/$real/$now/g"
`

// sshdConf joins the packaged sshd_config.
const sshdConf = `UseDNS no
PermitUserEnvironment no
AuthorizedKeysFile /etc/ssh/authorized_keys .ssh/authorized_keys
PrintMotd no
PrintLastLog no
SetEnv PATH=/usr/sbin:/usr/bin:/sbin:/bin
`

// cloudConfig is how the hosts' cloud-init is set up: it runs the boot commands
// of the user data at every boot.
const cloudConfig = `datasource_list: [NoCloud]
datasource: {NoCloud: {fs_label: null}}
network: {config: disabled}
disable_root: false
preserve_hostname: true
cloud_init_modules: [bootcmd]
cloud_config_modules: []
cloud_final_modules: []
system_info: {distro: debian}
`

// makeImage writes the layer that lies between this machine's file system and
// each host's disk: it hides what this machine is used for and configures
// what every host has.
func makeImage(dir string) error {
	for name, mode := range emptied {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		// A program may not run as its umask has it.
		if err := errors.Join(os.Chmod(at, mode), opaque(at)); err != nil {
			return fmt.Errorf("cannot hide %s: %w", name, err)
		}
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(standard, e.Name()) {
			continue
		}
		if err := whiteout(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("cannot hide /%s: %w", e.Name(), err)
		}
	}
	keys, _ := filepath.Glob("/etc/ssh/ssh_host_*") // the pattern is good
	for _, key := range keys {
		if err := os.MkdirAll(filepath.Join(dir, "etc/ssh"), 0o755); err != nil {
			return err
		}
		if err := whiteout(filepath.Join(dir, key)); err != nil {
			return fmt.Errorf("cannot hide %s: %w", key, err)
		}
	}
	files := map[string]string{
		"/etc/ssh/sshd_config.d/lab.conf":           sshdConf,
		"/etc/environment":                          "",
		"/etc/fstab":                                "",
		"/etc/machine-id":                           "",
		"/etc/hostname":                             "",
		"/etc/resolv.conf":                          "",
		"/root/.bashrc":                             "",
		"/root/.profile":                            "",
		"/usr/bin/uname":                            uname,
		"/var/log/wtmp":                             "",
		"/etc/cloud/cloud.cfg":                      cloudConfig,
		"/usr/lib/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n",
	}
	if err := writeFiles(dir, files); err != nil {
		return err
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(dir, "etc/systemd/system", unit)); err != nil {
			return err
		}
	}
	// They look at every boot for devices, images and init scripts, and for
	// which cloud this is.
	generators, err := filepath.Glob("/usr/lib/systemd/system-generators/*")
	if err != nil {
		return err
	}
	off := filepath.Join(dir, "etc/systemd/system-generators")
	if err := os.MkdirAll(off, 0o755); err != nil {
		return err
	}
	for _, g := range generators {
		if filepath.Base(g) == "systemd-fstab-generator" {
			continue
		}
		if err := os.Symlink("/dev/null", filepath.Join(off, filepath.Base(g))); err != nil {
			return err
		}
	}
	if err := os.Symlink("/usr/lib/systemd/system/multi-user.target", filepath.Join(dir, "etc/systemd/system/default.target")); err != nil {
		return err
	}
	// The directories below /var/log belong to their packages.
	return command("/bin/sh", "-ec", `mkdir -p "$1/usr/libexec/lab"
cp /usr/bin/uname "$1/usr/libexec/lab/"
cd /var/log
find . -mindepth 1 -maxdepth 3 -type d | tar -c --no-recursion -T - | tar -x -C "$1/var/log"`, "image", dir)
}

// writeFiles writes files below dir, by absolute name. Those in a bin
// directory, and *.sh, are executable.
func writeFiles(dir string, files map[string]string) error {
	for n, text := range files {
		to := filepath.Join(dir, n)
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(filepath.Dir(n), "bin") || strings.HasSuffix(n, ".sh") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, []byte(text), mode); err != nil {
			return err
		}
	}
	return nil
}

// mountOverlay mounts layers, the uppermost first, below the writable upper
// directory.
func mountOverlay(root, upper, work string, layers ...string) error {
	return command("mount", "-t", "overlay", "overlay", "-o",
		"lowerdir="+strings.Join(layers, ":")+",upperdir="+upper+",workdir="+work, root)
}

// Chroot runs a shell script as root in the tree at root, with /dev and /proc
// but no init system: what an installer does.
func Chroot(ctx context.Context, root, script string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "--uts", "/bin/sh", "-ec", `
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
root=$1
shift
exec chroot "$root" /bin/sh -eus "$@"`, "chroot", root}, args...)...)
	cmd.Env = hostEnv
	cmd.Stdin = strings.NewReader(script)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("in %s: %w: %s", root, err, strings.TrimSpace(string(out)))
	}
	return out, nil
}

// hostEnv is the environment of what the lab runs on a host.
var hostEnv = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C"}

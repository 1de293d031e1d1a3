package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Host is a machine of the lab: network, processes, control groups and host
// name of its own, and a disk that holds what it has written over this
// machine's file system. Process 1 is this machine's systemd, which runs the
// units that its disk has enabled, from the files that their Debian packages
// brought: sshd always.
type Host struct {
	ID, Name, Addr string

	lab   *Lab
	dir   string // fs, root, console
	setup Setup
	tag   string // of its names on this machine: control groups, interfaces

	power  sync.Mutex // one change of power at a time
	mu     sync.Mutex
	boot   *boot  // nil: it is off
	id     string // of the last boot
	ran    string // the kernel of the last boot
	boots  int    // that came up
	starts int
	dark   bool // its boots do not come up
	apart  bool // its network leads nowhere
}

// Setup says how a new host begins.
type Setup struct {
	// Kernel is the release of the kernel it seems to run: the content of
	// /boot/next-kernel. Empty: the disk has that file otherwise.
	Kernel string

	// Base is a directory with one more layer of an overlay file system,
	// between the machine's files and the host's disk: what several hosts have
	// in common. It must not change while they are there.
	Base string

	Files  map[string]string // on its disk, by absolute name; those in a bin directory, and *.sh, are executable
	Enable []string          // systemd units that start at every boot
	Docker bool              // /var/lib/docker is on a file system that takes overlay2; Enable has to name the units
	Script string            // run by sh as root before the first boot: in the host's tree, with nothing running

	// DiskMB is the size of its disk; 0 means 8 GiB. See [Host.Resize].
	DiskMB int
	// BootMB is the size of /boot, which is then a file system of its own.
	BootMB int

	// UserData is #cloud-config for the cloud-init of Debian, which runs its
	// bootcmd at every boot before sshd and what starts after it.
	UserData []byte
}

// nextKernel is the file on a host's disk that names the kernel of its next
// boot: the lab's boot loader.
const nextKernel = "/boot/next-kernel"

// identify gives the tree that it runs in an identity of its own.
const identify = `id=$1 name=$2 addr=$3 machine=$4 data=$5
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C "root@$name" -f /etc/ssh/ssh_host_ed25519_key
echo "$name" >/etc/hostname
echo "$machine" >/etc/machine-id
printf '127.0.0.1 localhost\n%s %s\n' "$addr" "$name" >/etc/hosts
rm -rf /var/lib/cloud/*
rm -f /etc/systemd/system/multi-user.target.wants/cloud-init.service
if [ -n "$data" ]; then
	mkdir -p /var/lib/cloud/seed/nocloud
	printf 'instance-id: %s\n' "$id" >/var/lib/cloud/seed/nocloud/meta-data
	printf %s "$data" >/var/lib/cloud/seed/nocloud/user-data
	ln -s /lib/systemd/system/cloud-init.service /etc/systemd/system/multi-user.target.wants/
fi
`

// Add makes a host and switches it on. It returns when sshd answers.
// authorized is the content of authorized_keys.
func (l *Lab) Add(ctx context.Context, id, name, addr, authorized string, s Setup) (*Host, error) {
	h, err := l.newHost(id, name, addr, s, "")
	if err != nil {
		return nil, err
	}
	files := map[string]string{"/etc/ssh/authorized_keys": authorized}
	if s.Kernel != "" {
		files[nextKernel] = s.Kernel + "\n"
	}
	for n, text := range s.Files {
		files[n] = text
	}
	// Through the overlay file system: it makes the directories above as those
	// of the layers below are.
	if err := writeFiles(h.root(), files); err != nil {
		return nil, err
	}
	if err := command("systemctl", append([]string{"--quiet", "--root=" + h.root(), "enable", "ssh.service"}, s.Enable...)...); err != nil {
		return nil, err
	}
	if err := h.identify(ctx, s.Script); err != nil {
		return nil, err
	}
	if err := h.Start(); err != nil {
		return nil, err
	}
	return h, h.WaitUp(ctx)
}

// newHost enters a host, switched off, with an empty disk or a copy of a
// snapshot's.
func (l *Lab) newHost(id, name, addr string, s Setup, snapshot string) (*Host, error) {
	ip4 := net.ParseIP(addr).To4()
	if ip4 == nil {
		return nil, fmt.Errorf("internal error: %s cannot have the address %q", name, addr)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, errors.New("the lab is closed")
	case l.hosts[id] != nil:
		return nil, fmt.Errorf("internal error: there is a host %s already", id)
	}
	l.names++
	h := &Host{ID: id, Name: name, Addr: addr, lab: l, dir: filepath.Join(l.dir, "hosts", id), setup: s, tag: "h" + strconv.Itoa(l.names)}
	for _, d := range []string{"fs", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	size := s.DiskMB
	if size == 0 {
		size = 8 << 10
	}
	if err := command("mount", "-t", "tmpfs", "-o", "mode=755,size="+strconv.Itoa(size)+"m", "disk", h.fs("")); err != nil {
		return nil, err
	}
	for _, d := range []string{"disk", "work", "docker", "boot"} {
		if err := os.Mkdir(h.fs(d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(h.fs("docker"), 0o711); err != nil {
		return nil, err
	}
	if s.BootMB > 0 {
		if err := command("mount", "-t", "tmpfs", "-o", "mode=755,size="+strconv.Itoa(s.BootMB)+"m", "boot", h.fs("boot")); err != nil {
			return nil, err
		}
	}
	if snapshot != "" {
		for _, d := range []string{"disk", "docker", "boot"} {
			if err := command("cp", "-a", "-T", filepath.Join(snapshot, d), h.fs(d)); err != nil {
				return nil, err
			}
		}
	}
	layers := []string{l.image, "/"}
	if s.Base != "" {
		layers = append([]string{s.Base}, layers...)
	}
	if err := mountOverlay(h.root(), h.fs("disk"), h.fs("work"), layers...); err != nil {
		return nil, err
	}
	if s.BootMB > 0 {
		if err := command("mount", "--bind", h.fs("boot"), h.root()+"/boot"); err != nil {
			return nil, err
		}
	}
	l.hosts[id] = h
	return h, nil
}

// fs names a part of the host's disk, and root its tree, as this machine sees
// them.
func (h *Host) fs(part string) string { return filepath.Join(h.dir, "fs", part) }
func (h *Host) root() string          { return filepath.Join(h.dir, "root") }

// Resize makes the host's disk, which holds the data of its container engine
// too, larger or smaller, but not smaller than what is on it: that is a full
// disk then.
func (h *Host) Resize(mb int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.setup.DiskMB = mb // of its clones
	return command("mount", "-o", "remount,size="+strconv.Itoa(mb)+"m", h.fs(""))
}

// identify gives the host's disk an identity of its own and runs a script in
// its tree.
func (h *Host) identify(ctx context.Context, script string) error {
	_, err := Chroot(ctx, h.root(), identify+script, h.ID, h.Name, h.Addr, strings.ReplaceAll(uuid(), "-", ""), string(h.setup.UserData))
	if err != nil {
		return fmt.Errorf("cannot set up %s: %w", h.Name, err)
	}
	return nil
}

// Run runs a shell script as root on the host, past the network, once its sshd
// has come up in this boot. What it starts lives on, in a control group of its
// own. An error means that the script could not be delivered.
func (h *Host) Run(ctx context.Context, script string) (exit int, output []byte, err error) {
	var pid int
	var groups []string
	err = poll(ctx, h.Name+" is not up", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		b := h.boot
		switch {
		case b == nil:
			return errors.New("it is off")
		case b.pid == 0:
			return errors.New("it does not boot")
		case !b.up:
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/sshd.pid", b.pid)); err != nil {
				return err
			}
			b.up = true
		}
		pid, groups = b.pid, b.groups.procs("lab.scope")
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-ec", joinGroups + `exec nsenter --target "$0" --net --pid --mount --uts --ipc --cgroup --root --wd /bin/sh -s`, strconv.Itoa(pid)}, groups...)...)
	cmd.Env = hostEnv
	cmd.Stdin = strings.NewReader(script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	var ran *exec.ExitError
	if errors.As(err, &ran) && ctx.Err() == nil {
		return ran.ExitCode(), out.Bytes(), nil
	}
	return 0, out.Bytes(), err
}

// joinGroups puts a shell into the control groups whose files are its
// arguments.
const joinGroups = `for f; do echo 0 >"$f"; done
`

// Must runs a script that has to succeed.
func (h *Host) Must(ctx context.Context, script string) (string, error) {
	exit, out, err := h.Run(ctx, script)
	if err == nil && exit != 0 {
		err = fmt.Errorf("status %d", exit)
	}
	if err != nil {
		return "", fmt.Errorf("on %s: %w: %s", h.Name, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// WaitUp blocks until sshd answers.
func (h *Host) WaitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	return poll(ctx, h.Name+" is not up", func() error {
		// What was sent before its network was there is lost.
		ask, stop := context.WithTimeout(ctx, 500*time.Millisecond)
		defer stop()
		c, err := h.lab.Dial(ask, "", net.JoinHostPort(h.Addr, "22"))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // Read says if it has failed
		hello := make([]byte, 4)
		if _, err = c.Read(hello); err == nil && string(hello) != "SSH-" {
			err = fmt.Errorf("port 22 says %q", hello)
		}
		return err
	})
}

// WaitReady blocks until every unit of the present boot has started, and says
// which have failed.
func (h *Host) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	_, err := h.Must(ctx, "state=$(systemctl is-system-running --wait) || { systemctl --no-legend --plain --failed; echo \"systemd is $state\"; exit 1; }")
	return err
}

// WaitBoot blocks until the host has been booted n times (see [Host.Boots])
// and sshd answers.
func (h *Host) WaitBoot(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	err := poll(ctx, fmt.Sprintf("%s does not boot for the %dth time", h.Name, n), func() error {
		if got := h.Boots(); got < n {
			return fmt.Errorf("%d boots", got)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.WaitUp(ctx)
}

// BootID names the present boot, or the last one of a host that is off.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id
}

// Boots says how often the host came up.
func (h *Host) Boots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boots
}

// Kernel is the release of the kernel that the host was booted with last.
func (h *Host) Kernel() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ran
}

// Console is what the host's boots have said.
func (h *Host) Console() string {
	text, _ := os.ReadFile(filepath.Join(h.dir, "console"))
	return string(text)
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

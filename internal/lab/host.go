package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Host is a machine of the lab: network, processes and host name of its
// own, and a disk that holds what it has written over this machine's file
// system. It runs the sshd of this machine, and, where its disk says so,
// nginx; both with the files that their Debian packages brought.
type Host struct {
	ID, Name, Addr string

	lab *Lab
	dir string // disk, work, root, osrelease, boot_id, java, console
	net string // name of its network namespace, and of its port on the bridge

	power sync.Mutex // one change of power at a time
	mu    sync.Mutex
	boot  *boot // nil: it is off
	id    string
	boots int
}

// A boot is one run of a host, from power on to power off.
type boot struct {
	pid  int           // of its process 1, seen from here
	gone chan struct{} // closed when all its processes are
	off  bool          // we ended it: nobody is to be told
}

// Setup says how a new host begins.
type Setup struct {
	Kernel string            // release of the kernel it seems to run
	Files  map[string]string // on its disk, by absolute name; those in a bin directory, and *.sh, are executable
	Nginx  bool              // nginx starts at every boot
	Script string            // run by sh as root during the first boot, before sshd starts
}

// nextKernel is the file on a host's disk that names the kernel of its next
// boot: the lab's boot loader.
const nextKernel = "/boot/next-kernel"

// shutdown stands for the program of that name, which on this machine would
// ask an init system that is not there.
const shutdown = `#!/bin/sh
case ${1-} in
-r) echo reboot >/run/power ;;
-h | -P) echo poweroff >/run/power ;;
*) echo "usage: shutdown -r|-h|-P now" >&2; exit 64 ;;
esac
`

// sshdConf joins the packaged sshd_config. Nothing of the machine's own
// environment belongs to a host, nor do programs in /usr/local.
const sshdConf = `UsePAM no
UseDNS no
PermitUserEnvironment no
AuthorizedKeysFile /etc/ssh/authorized_keys
SetEnv PATH=/usr/sbin:/usr/bin:/sbin:/bin
`

// Add makes a host and switches it on. It returns when sshd answers.
// authorized is the content of authorized_keys.
func (l *Lab) Add(ctx context.Context, id, name, addr, authorized string, s Setup) (*Host, error) {
	h, err := l.newHost(id, name, addr)
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"/usr/sbin/shutdown":              shutdown,
		"/etc/ssh/sshd_config.d/lab.conf": sshdConf,
		"/etc/ssh/authorized_keys":        authorized,
		"/root/.bashrc":                   "",
		"/root/.profile":                  "",
		nextKernel:                        s.Kernel + "\n",
		"/var/lib/lab/setup":              s.Script,
	}
	if s.Nginx {
		files["/var/lib/lab/nginx"] = ""
	}
	for n, text := range s.Files {
		files[n] = text
	}
	for n, text := range files {
		to := filepath.Join(h.dir, "disk", n)
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(filepath.Dir(n), "bin") || strings.HasSuffix(n, ".sh") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, []byte(text), mode); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(h.dir, "disk", "root"), 0o700); err != nil {
		return nil, err
	}
	if err := h.Start(); err != nil {
		return nil, err
	}
	return h, h.WaitUp(ctx)
}

// newHost enters a host with an empty disk, switched off, into the network.
func (l *Lab) newHost(id, name, addr string) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, errors.New("the lab is closed")
	case l.hosts[id] != nil:
		return nil, fmt.Errorf("internal error: there is a host %s already", id)
	}
	l.names++
	h := &Host{ID: id, Name: name, Addr: addr, lab: l, dir: filepath.Join(l.dir, "hosts", id), net: "lab" + strconv.Itoa(l.names)}
	for _, d := range []string{"disk", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(self, filepath.Join(h.dir, "java")); err != nil {
		return nil, err
	}
	// The hardware address follows from the address: a host that takes over
	// an address is not mistaken for the one that had it.
	last := net.ParseIP(addr).To4()
	mac := fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", last[0], last[1], last[2], last[3])
	if err := command("ip", "netns", "add", h.net); err != nil {
		return nil, err
	}
	if err := ip(fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %s", h.net, mac, h.net), "link set "+h.net+" master lab0"); err != nil {
		return nil, err
	}
	err = command("nsenter", "--net=/run/netns/"+h.net, "/bin/sh", "-ec", `ip -batch - <<END
link set lo up
addr add `+addr+`/24 dev eth0
link set eth0 up
route add default via `+Gateway+`
END`)
	if err != nil {
		return nil, err
	}
	l.hosts[id] = h
	return h, nil
}

// Start switches the host on; one that is on stays as it is. It returns when
// the host boots, long before it answers: see [Host.WaitUp].
func (h *Host) Start() error {
	h.power.Lock()
	defer h.power.Unlock()
	return h.on()
}

// on boots the host. The caller holds h.power.
func (h *Host) on() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boot != nil {
		return nil
	}
	kernel, err := os.ReadFile(filepath.Join(h.dir, "disk", nextKernel))
	if err != nil {
		return fmt.Errorf("%s has no kernel to boot: %w", h.Name, err)
	}
	h.id = uuid()
	h.boots++
	for name, text := range map[string]string{"osrelease": strings.TrimSpace(string(kernel)) + "\n", "boot_id": h.id + "\n", "init.sh": initScript} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	console, err := os.OpenFile(filepath.Join(h.dir, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()
	cmd := exec.Command("nsenter", "--net=/run/netns/"+h.net,
		"unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc",
		"/bin/sh", filepath.Join(h.dir, "init.sh"), h.dir, h.Name, h.ID, h.Addr)
	// A file, not a pipe: nobody then waits for whoever else holds it.
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C"}
	if err := ip("link set " + h.net + " up"); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b := &boot{gone: make(chan struct{})}
	go h.supervise(b, cmd)
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	children := fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid)
	err = poll(ctx, h.Name+" does not begin to boot", func() error {
		select {
		case <-b.gone:
			return nil
		default:
		}
		text, err := os.ReadFile(children)
		if err != nil {
			return err
		}
		b.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err
	})
	if err == nil && b.pid == 0 {
		err = fmt.Errorf("%s ended at once; see its console", h.Name)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-b.gone
		return err
	}
	h.boot = b
	return nil
}

// supervise waits for the end of a boot and does what its status says. When
// unshare has seen process 1 end, the kernel has ended all the others.
func (h *Host) supervise(b *boot, cmd *exec.Cmd) {
	err := cmd.Wait()
	_ = ip("link set " + h.net + " down") // the power is off, and nobody tells the peers
	close(b.gone)
	h.mu.Lock()
	if h.boot == b {
		h.boot = nil
	}
	off := b.off || b.pid == 0
	h.mu.Unlock()
	if off {
		return
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == statusRestart {
		_ = h.Start() // an error leaves it off, which will be noticed
		return
	}
	if h.lab.PoweredOff != nil {
		h.lab.PoweredOff(h.ID)
	}
}

// Stop switches the host off in good order and returns when it is off.
func (h *Host) Stop(ctx context.Context) error {
	b, err := h.ending(func(*boot) error {
		_, _, err := h.Run(ctx, "echo poweroff >/run/power")
		return err
	})
	if b == nil || err != nil {
		return err
	}
	select {
	case <-b.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is still on: %w", h.Name, ctx.Err())
	}
}

// ending ends the present boot by how, so that supervise tells nobody. It
// gives nil when the host is off.
func (h *Host) ending(how func(*boot) error) (*boot, error) {
	h.power.Lock()
	defer h.power.Unlock()
	h.mu.Lock()
	b := h.boot
	if b != nil {
		b.off = true
	}
	h.mu.Unlock()
	if b == nil {
		return nil, nil
	}
	return b, how(b)
}

// cut takes the power away at once.
func (h *Host) cut() error {
	b, err := h.ending(func(b *boot) error {
		p, err := os.FindProcess(b.pid)
		if err == nil {
			err = p.Kill()
		}
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot cut the power of %s: %w", h.Name, err)
	}
	if b != nil {
		<-b.gone
	}
	return nil
}

// Run runs a shell script as root on the host, past the network, once it has
// booted. An error means that it could not be delivered.
func (h *Host) Run(ctx context.Context, script string) (exit int, output []byte, err error) {
	var pid int
	err = poll(ctx, h.Name+" is not up", func() error {
		h.mu.Lock()
		b := h.boot
		h.mu.Unlock()
		if b == nil {
			return errors.New("it is off")
		}
		pid = b.pid
		// Before it is ready, the process's root may still be this machine's.
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/ready", pid))
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(pid), "--net", "--pid", "--mount", "--uts", "--ipc", "--root", "--wd", "/bin/sh", "-s")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C"}
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
		ask, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		c, err := h.lab.Dial(ask, "", net.JoinHostPort(h.Addr, "22"))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// BootID names the present boot, or the last one of a host that is off.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id
}

// Boots says how often the host was booted.
func (h *Host) Boots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boots
}

// Kernel is the release of the kernel that the host was booted with last.
func (h *Host) Kernel() string {
	b, _ := os.ReadFile(filepath.Join(h.dir, "osrelease"))
	return strings.TrimSpace(string(b))
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

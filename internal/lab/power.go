package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A boot is one run of a host, from power on to power off. Host.mu guards what
// changes.
type boot struct {
	net    string        // name of its network namespace, of its port on the bridge, and of its control groups
	groups *cgroups      // all its processes are in them
	pid    int           // of its process 1, seen from here; 0 before there is one
	up     bool          // its sshd was seen
	dark   bool          // nothing runs
	off    bool          // we ended it: nobody is to be told
	gone   chan struct{} // closed when all its processes are
}

// sigPowerOff asks systemd to switch off, see systemd(1). The C library, which
// counts, has SIGRTMIN at 34.
const sigPowerOff = syscall.Signal(34 + 4)

// Start switches the host on; one that is on stays as it is. It returns when
// the host boots, long before it answers: see [Host.WaitUp].
func (h *Host) Start() error {
	h.power.Lock()
	defer h.power.Unlock()
	return h.on()
}

// on boots the host. The caller holds h.power.
func (h *Host) on() error {
	h.lab.mu.Lock()
	closed := h.lab.closed
	h.lab.mu.Unlock()
	if closed {
		return nil
	}
	h.mu.Lock()
	if h.boot != nil {
		h.mu.Unlock()
		return nil
	}
	h.starts++
	b := &boot{net: fmt.Sprintf("%sb%d", h.tag, h.starts), gone: make(chan struct{})}
	kernel := h.loadKernel()
	b.dark = h.dark || kernel == ""
	h.boot = b
	h.mu.Unlock()
	if b.dark {
		return nil
	}
	cmd, err := h.spawn(b)
	if err != nil {
		h.unplug(b)
		h.mu.Lock()
		h.boot = nil
		h.mu.Unlock()
		return fmt.Errorf("cannot boot %s: %w", h.Name, err)
	}
	go h.supervise(b, cmd)
	if err := h.stage(b, cmd.Process.Pid, kernel); err != nil {
		h.mu.Lock()
		b.off = true
		h.mu.Unlock()
		_ = cmd.Process.Kill()
		<-b.gone
		return fmt.Errorf("cannot boot %s: %w", h.Name, err)
	}
	return nil
}

// spawn starts the host's systemd.
func (h *Host) spawn(b *boot) (*exec.Cmd, error) {
	var err error
	if b.groups, err = newCgroups(filepath.Join(h.lab.name, b.net)); err != nil {
		return nil, err
	}
	if err := h.plugIn(b); err != nil {
		return nil, err
	}
	console, err := os.OpenFile(filepath.Join(h.dir, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = console.Close() }()
	args := []string{
		"systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit", "--console=pipe", "--machine=" + b.net,
		"--directory=" + h.root(), "--network-namespace-path=/run/netns/" + b.net,
		// What a container engine on the host needs.
		"--capability=all", "--system-call-filter=add_key keyctl bpf",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
	}
	if h.setup.Docker {
		args = append(args, "--bind="+h.fs("docker")+":/var/lib/docker")
	}
	cmd := exec.Command("/bin/sh", append([]string{"-ec", joinGroups + "exec " + shellq.Join(args...), "join"}, b.groups.procs("")...)...)
	// A file, not a pipe: nobody then waits for whoever else holds it.
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = append([]string{"SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"}, hostEnv...) // ip_forward
	return cmd, cmd.Start()
}

// loadKernel is what the boot loader finds: the release of a kernel, or
// nothing that can be booted. A disk without any kernel image is not asked for
// the right one.
func (h *Host) loadKernel() string {
	text, err := os.ReadFile(h.root() + nextKernel)
	release := strings.TrimSpace(string(text))
	if err != nil || release == "" {
		return ""
	}
	images, _ := filepath.Glob(h.root() + "/boot/vmlinuz-*") // the pattern is good
	if len(images) == 0 {
		return release
	}
	for _, image := range images {
		if filepath.Base(image) == "vmlinuz-"+release {
			return release
		}
	}
	return ""
}

// plugIn makes the host's network for one boot.
func (h *Host) plugIn(b *boot) error {
	// The hardware address follows from the address: a host that takes over
	// an address is not mistaken for the one that had it.
	last := net.ParseIP(h.Addr).To4()
	mac := fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", last[0], last[1], last[2], last[3])
	h.lab.wires.Lock()
	err := command("ip", "netns", "add", b.net)
	h.lab.wires.Unlock()
	if err != nil {
		return err
	}
	err = ip(
		fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %s", b.net, mac, b.net),
		"link set "+b.net+" up",
	)
	if err != nil {
		return err
	}
	err = command("nsenter", "--net=/run/netns/"+b.net, "/bin/sh", "-ec", `ip -batch - <<END
link set lo up
addr add `+h.Addr+`/24 dev eth0
link set eth0 up
route add default via `+Gateway+`
END`)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return connect(b, !h.apart)
}

// connect puts the host's port on the bridge or takes it off. The host's own
// end stays up: it notices nothing but silence.
func connect(b *boot, on bool) error {
	if on {
		return ip("link set " + b.net + " master lab0")
	}
	return ip("link set " + b.net + " nomaster")
}

// Partition cuts the host off the network, or lets it in again; also across
// boots.
func (h *Host) Partition(apart bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.apart = apart
	if h.boot == nil || h.boot.pid == 0 {
		return nil
	}
	return connect(h.boot, !apart)
}

// Darken makes every later boot of the host one that does not come up: it is
// on, and nothing answers; or, with false, ends that for the next boot.
func (h *Host) Darken(dark bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dark = dark
}

// Dark says whether the host is on and its boot does not come up.
func (h *Host) Dark() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot != nil && h.boot.dark
}

// stage waits for the host's systemd and finishes what only the machine around
// it can do, while systemd looks around.
func (h *Host) stage(b *boot, nspawn int, kernel string) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	var pid int
	err := poll(ctx, "it does not begin to boot", func() error {
		select {
		case <-b.gone:
			return nil
		default:
		}
		var err error
		pid, err = systemdBelow(nspawn)
		return err
	})
	if err != nil {
		return err
	}
	if pid == 0 {
		return errors.New("it ended at once; see its console")
	}
	id, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/proc/sys/kernel/random/boot_id", pid))
	if err != nil {
		return err
	}
	// The one reading that is a stand-in is the release of the kernel: there is
	// but one. And a real host may write to its control groups.
	err = command("nsenter", "--target", strconv.Itoa(pid), "--mount", "--root", "--wd", "/bin/sh", "-ec", `
mkdir -p /run/lab
echo "$1" >/run/lab/osrelease
mount --bind /run/lab/osrelease /proc/sys/kernel/osrelease
for g in /sys/fs/cgroup /sys/fs/cgroup/*; do
	if mountpoint -q "$g"; then mount -o remount,bind,rw "$g"; fi
done`, "stage", kernel)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b.pid = pid
	h.id, h.ran = strings.TrimSpace(string(id)), kernel
	h.boots++
	return nil
}

// systemdBelow is the systemd that is process 1 below a nspawn process.
func systemdBelow(nspawn int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	if err != nil {
		return 0, err
	}
	for f := range strings.FieldsSeq(string(text)) {
		exe, err := os.Readlink("/proc/" + f + "/exe")
		if err != nil || filepath.Base(exe) != "systemd" {
			continue
		}
		return strconv.Atoi(f)
	}
	return 0, fmt.Errorf("process %d has no systemd below it", nspawn)
}

// supervise waits for the end of a boot and does what its status says. When
// nspawn has seen process 1 end, the kernel has ended all the others.
func (h *Host) supervise(b *boot, cmd *exec.Cmd) {
	err := cmd.Wait()
	h.unplug(b)
	h.mu.Lock()
	h.boot = nil
	off := b.off || b.pid == 0
	h.mu.Unlock()
	close(b.gone)
	if off {
		return
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == statusRestart {
		if err := h.Start(); err != nil {
			h.lab.complain(err) // it stays off, which will be noticed
		}
		return
	}
	if h.lab.PoweredOff != nil {
		h.lab.PoweredOff(h.ID)
	}
}

// unplug removes what a boot had on this machine. The power is off, and nobody
// tells the peers.
func (h *Host) unplug(b *boot) {
	var errs []error
	if _, err := os.Stat("/run/netns/" + b.net); err == nil {
		errs = append(errs, command("ip", "netns", "del", b.net))
	}
	// The port goes with its other end, which may take the kernel a moment.
	port := "/sys/class/net/" + b.net
	if _, err := os.Stat(port); err == nil {
		if err := ip("link del " + b.net); err != nil {
			if _, gone := os.Stat(port); gone == nil {
				errs = append(errs, err)
			}
		}
	}
	if b.groups != nil {
		errs = append(errs, b.groups.remove())
	}
	if err := errors.Join(errs...); err != nil {
		h.lab.complain(fmt.Errorf("after a boot of %s: %w", h.Name, err))
	}
}

// Stop switches the host off in good order and returns when it is off. One
// that never came up loses its power.
func (h *Host) Stop(ctx context.Context) error {
	b, err := h.end(sigPowerOff)
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

// Cut takes the power away at once.
func (h *Host) Cut() error {
	b, err := h.end(syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("cannot cut the power of %s: %w", h.Name, err)
	}
	if b != nil {
		<-b.gone
	}
	return nil
}

// end ends the present boot by a signal to its process 1, so that supervise
// tells nobody. It gives nil when the host is off.
func (h *Host) end(s syscall.Signal) (*boot, error) {
	h.power.Lock()
	defer h.power.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.boot
	if b == nil {
		return nil, nil
	}
	b.off = true
	if b.dark {
		h.boot = nil
		close(b.gone)
		return b, nil
	}
	p, err := os.FindProcess(b.pid)
	if err == nil {
		err = p.Signal(s)
	}
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return b, err
}

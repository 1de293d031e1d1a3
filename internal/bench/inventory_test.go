package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
)

const (
	sshHosts = 50
	// Here the targets share the processors: more of them at once only wait for
	// each other, and see each other's processes.
	ourForks = 10
	sshUser  = "upgradectl-bench"
)

// newKey writes a key pair and returns the file and the public line.
func newKey(b *testing.B, file string) (public string) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		b.Fatal(err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// need skips the benchmark where a program is missing: the peer cannot be
// compared with.
func need(b *testing.B, program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			b.Skipf("%s is not installed; 'make deps' installs it on Debian", program)
		}
	}
	return path
}

// sshFarm is 50 OpenSSH servers on 127.0.1.1 to 127.0.1.50, each a process
// with a key of its own.
type sshFarm struct {
	dir, identity, known string
	port                 int
}

// newSSHFarm starts the servers in a mount namespace of their own, whose
// /etc/passwd has a user of uid with /bin/sh and an empty home: neither this
// machine's users nor its shell profiles have a part in it.
func newSSHFarm(b *testing.B, uid int) *sshFarm {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		b.Skip("50 servers with a user of their own need root on Linux")
	}
	sshd, unshare := need(b, "sshd"), need(b, "unshare")
	// Not b.TempDir: the user must be able to enter it.
	dir, err := os.MkdirTemp("/tmp", "upgradectl-bench-")
	must(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	must(b, os.Chmod(dir, 0o755))
	must(b, os.MkdirAll("/run/sshd", 0o755))
	f := &sshFarm{dir: dir, identity: filepath.Join(dir, "id"), known: filepath.Join(dir, "known_hosts")}
	must(b, os.WriteFile(filepath.Join(dir, "authorized"), []byte(newKey(b, f.identity)+"\n"), 0o644))
	home := filepath.Join(dir, "home")
	must(b, os.Mkdir(home, 0o755))
	must(b, os.Chown(home, uid, uid))
	passwd, err := os.ReadFile("/etc/passwd")
	must(b, err)
	passwd = append([]byte(fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", sshUser, uid, uid, home)), passwd...)
	must(b, os.WriteFile(filepath.Join(dir, "passwd"), passwd, 0o644))
	l, err := net.Listen("tcp", "127.0.1.1:0")
	must(b, err)
	f.port = l.Addr().(*net.TCPAddr).Port
	must(b, l.Close())

	var known, script bytes.Buffer
	fmt.Fprintf(&script, "mount --bind %s/passwd /etc/passwd || exit 1\n", dir)
	for i := 1; i <= sshHosts; i++ {
		key := fmt.Sprintf("%s/host%d", dir, i)
		fmt.Fprintf(&known, "[127.0.1.%d]:%d %s\n", i, f.port, newKey(b, key))
		cfg := fmt.Sprintf("ListenAddress 127.0.1.%d:%d\nHostKey %s\nAuthorizedKeysFile %s/authorized\nPidFile none\n"+
			"UsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nLogLevel ERROR\nSubsystem sftp internal-sftp\n", i, f.port, key, dir)
		must(b, os.WriteFile(fmt.Sprintf("%s/sshd%d", dir, i), []byte(cfg), 0o600))
		fmt.Fprintf(&script, "%s -D -e -f %s/sshd%d &\n", sshd, dir, i)
	}
	must(b, os.WriteFile(f.known, known.Bytes(), 0o600))
	script.WriteString("trap 'kill $(jobs -p); wait' TERM\nwait\n")
	cmd := exec.Command(unshare, "-m", "--propagation", "private", "/bin/bash", "-c", script.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stderr = &log
	must(b, cmd.Start())
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if b.Failed() {
			b.Log(log.String())
		}
	})
	for i := 1; i <= sshHosts; i++ {
		until := time.Now().Add(20 * time.Second)
		for {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.1.%d:%d", i, f.port))
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(until) {
				b.Fatalf("server %d does not come up: %v", i, err)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	return f
}

// ours collects the inventories of all hosts anew and says what it took.
func (f *sshFarm) ours(b *testing.B) (wall, cpu time.Duration, bytes int) {
	d, err := hostinv.NewFleetDialer(hostinv.SSHConfig{User: sshUser, Identities: []string{f.identity}, KnownHosts: []string{f.known}})
	must(b, err)
	defer d.Close()
	var hosts []hostinv.FleetHost
	for i := 1; i <= sshHosts; i++ {
		hosts = append(hosts, hostinv.FleetHost{Name: fmt.Sprintf("127.0.1.%d:%d", i, f.port)})
	}
	begin, used := time.Now(), cpuTime()
	fleet := hostinv.CollectFleet(b.Context(), hosts, d.Dial, hostinv.FleetOptions{Forks: ourForks, Each: func(r hostinv.FleetResult) error {
		if r.Inventory != nil {
			for _, s := range r.Inventory.Sections {
				bytes += s.Bytes
			}
		}
		return nil
	}})
	wall, cpu = time.Since(begin), cpuTime()-used
	must(b, fleet.Err())
	if bytes == 0 {
		b.Fatal("nothing was collected")
	}
	return wall, cpu, bytes
}

// ansible collects the facts of all hosts with connections of their own.
func (f *sshFarm) ansible(b *testing.B) (wall, cpu time.Duration) {
	bin := need(b, "ansible")
	dir, err := os.MkdirTemp(f.dir, "ansible")
	must(b, err)
	var inv strings.Builder
	for i := 1; i <= sshHosts; i++ {
		fmt.Fprintf(&inv, "127.0.1.%d ansible_port=%d ansible_user=%s ansible_python_interpreter=/usr/bin/python3\n", i, f.port, sshUser)
	}
	must(b, os.WriteFile(dir+"/hosts", []byte(inv.String()), 0o600))
	must(b, os.WriteFile(dir+"/ansible.cfg", []byte(fmt.Sprintf(
		"[defaults]\nforks = 50\nprivate_key_file = %s\nlocal_tmp = %s/tmp\n[ssh_connection]\npipelining = True\ncontrol_path_dir = %s/cp\n"+
			"ssh_args = -F /dev/null -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=%s -o IdentitiesOnly=yes\n",
		f.identity, dir, dir, f.known)), 0o600))
	cmd := exec.Command(bin, "-i", dir+"/hosts", "all", "-m", "setup", "--one-line")
	cmd.Env = append(os.Environ(), "ANSIBLE_CONFIG="+dir+"/ansible.cfg", "HOME="+dir)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	begin := time.Now()
	err = cmd.Run()
	wall = time.Since(begin)
	if n := strings.Count(out.String(), "| SUCCESS"); err != nil || n != sshHosts {
		b.Fatalf("ansible: %d hosts, %v: %s", n, err, stderr.String())
	}
	// The masters of ControlPersist are nobody's children any more, but work
	// for the controller.
	masters, pids := controlMasters(dir)
	for _, p := range pids {
		syscall.Kill(p, syscall.SIGTERM)
	}
	return wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() + masters
}

// controlMasters finds the ssh processes that hold sockets in dir and the
// processor time they used.
func controlMasters(dir string) (used time.Duration, pids []int) {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range list {
		cmdline, err := os.ReadFile(name)
		if err != nil || !bytes.HasPrefix(cmdline, []byte("ssh: "+dir)) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(name), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		user, _ := strconv.Atoi(fields[11]) // in ticks of 10 ms
		system, _ := strconv.Atoi(fields[12])
		used += time.Duration(user+system) * 10 * time.Millisecond
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		pids = append(pids, pid)
	}
	return used, pids
}

// BenchmarkInventory50 collects 50 real OpenSSH servers on this machine, first
// with ansible's setup module as quick as it gets (forks=50, pipelining,
// ControlPersist), then with a full inventory by CollectFleet. Targets and
// controllers share the processors.
func BenchmarkInventory50(b *testing.B) {
	for _, u := range []struct {
		name string
		uid  int
	}{{"user", 61234}, {"root", 0}} {
		b.Run(u.name, func(b *testing.B) {
			need(b, "ansible")
			f := newSSHFarm(b, u.uid)
			var ourWall, ourCPU, theirWall, theirCPU time.Duration
			size := 0
			for b.Loop() {
				w, c := f.ansible(b)
				theirWall, theirCPU = theirWall+w, theirCPU+c
				w, c, n := f.ours(b)
				ourWall, ourCPU, size = ourWall+w, ourCPU+c, n
			}
			n := float64(b.N)
			b.ReportMetric(ourWall.Seconds()/n, "ours-s")
			b.ReportMetric(theirWall.Seconds()/n, "ansible-s")
			b.ReportMetric(100*ourWall.Seconds()/theirWall.Seconds(), "wall-%")
			b.ReportMetric(ourCPU.Seconds()*1000/n/sshHosts, "ours-cpu-ms/host")
			b.ReportMetric(theirCPU.Seconds()*1000/n/sshHosts, "ansible-cpu-ms/host")
			b.ReportMetric(theirCPU.Seconds()/ourCPU.Seconds(), "ansible-cpu/ours")
			b.ReportMetric(float64(size)/1000/sshHosts, "KB/host")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkConnect50 connects to the same servers and runs true: the floor
// under every inventory.
func BenchmarkConnect50(b *testing.B) {
	f := newSSHFarm(b, 61234)
	var cpu time.Duration
	for b.Loop() {
		d, err := hostinv.NewDialer(hostinv.SSHConfig{User: sshUser, Identities: []string{f.identity}, KnownHosts: []string{f.known}})
		must(b, err)
		used := cpuTime()
		errs := make(chan error, sshHosts)
		for i := 1; i <= sshHosts; i++ {
			go func() {
				errs <- func() error {
					c, err := d.Dial(b.Context(), fmt.Sprintf("127.0.1.%d:%d", i, f.port))
					if err != nil {
						return err
					}
					defer c.Close()
					return c.Run(context.WithoutCancel(b.Context()), "true", nil, nil, nil)
				}()
			}()
		}
		for range sshHosts {
			must(b, <-errs)
		}
		cpu += cpuTime() - used
		must(b, d.Close())
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "wall-s")
	b.ReportMetric(cpu.Seconds()*1000/float64(b.N)/sshHosts, "cpu-ms/host")
	b.ReportMetric(0, "ns/op")
}

// Package lab gives a test hosts that are as real as one machine can make
// them: each has a network, processes, a host name, a disk, an sshd and an
// nginx of its own, can be switched off, rebooted and cloned, and stands
// behind an instance of the simulated cloud. It is for tests.
//
// # Example
//
//	func TestMain(m *testing.M) { lab.Main(); os.Exit(m.Run()) }
//
//	func TestSomething(t *testing.T) {
//		if !lab.Isolated(t) {
//			return
//		}
//		l := lab.New(t)
//		h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", authorizedKeys, lab.Setup{Kernel: "3.10.0-862.el7.x86_64"})
//		...
//	}
//
// # How it works
//
// [Isolated] runs the test again in new network, mount and process
// namespaces. There a bridge joins the hosts. A host is a container of
// systemd-nspawn with a whole systemd in it, whose root is an overlay file
// system over this machine's own: what it writes is its disk, a snapshot is a
// copy of that, and a clone starts from such a copy with an identity of its
// own. The programs, their units and their configuration are those that
// Debian brought to this machine; what this machine is used for is hidden.
// Each boot has a network namespace and control groups of its own, and a new
// boot ID. What the host itself does counts: "systemctl reboot" boots it
// again, "poweroff" leaves it off. /boot/next-kernel is the boot loader: it
// names the kernel of the next boot.
//
// # Guarantees
//
//  1. Nothing is written to this machine's file system or network, and no
//     process is left (TestLabHosts; Isolated checks the processes of every test
//     that uses it).
//  2. A clone has the content of its snapshot, and host keys, host name and
//     address of its own (TestLabHosts).
//  3. A reboot ends every process, gives another boot ID and, if the disk
//     says so, another kernel release (TestLabHosts).
//
// # Limits
//
// Linux and root. There is one kernel: what /proc/sys/kernel/osrelease and
// uname(1) say is a stand-in, uname(2) is not. A kernel module cannot be
// loaded, and /proc/sys but for the network's part cannot be written.
// Memory, processors and uptime are this machine's. Addresses are there when
// a host boots, as if configured by hand. Disks are in memory.
//
// # Errors
//
// They say which host or program, and what it said. What a boot printed is in
// the log of a test that failed.
package lab

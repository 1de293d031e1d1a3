// Package lab gives a test hosts that are as real as one machine can make
// them: each has a systemd, a network, a host name and a disk of its own, can
// be switched off, rebooted and cloned, and stands behind an instance of the
// simulated cloud. It is for tests.
//
// # Example
//
//	func TestSomething(t *testing.T) {
//		if !lab.Isolated(t) {
//			return
//		}
//		l := lab.New(t)
//		h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", authorizedKeys, lab.Setup{
//			Kernel: "3.10.0-862.el7.x86_64", Enable: []string{"nginx", "cron"},
//		})
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
// A [Mirror] makes a CentOS 7 of a host, with rpm and yum of its own and real
// repositories over HTTP; a host without its layer keeps Debian's dpkg and apt,
// for which [Mirror.Publish] offers packages.
//
// # Guarantees
//
//  1. Nothing is written to this machine's file system or network, and no
//     process is left (TestLabHosts; Isolated checks the processes of every
//     test that uses it). A test that is killed leaves no process either, and
//     the next removes its directory and control groups (TestLabKilled).
//  2. A host has a systemd, units, processes, control groups and a network of
//     its own, and nothing of what this machine is used for (TestLabHosts).
//  3. A snapshot is the disk of one moment, the container engine's data
//     included; a clone has its content, and host keys, machine ID, host name
//     and address of its own (TestLabSnapshot, TestLabHosts, TestLabDocker).
//  4. The user data of a clone runs at every boot before its services start,
//     by Debian's own cloud-init (TestLabUserData).
//  5. A reboot, asked for on the host or from outside, ends every process,
//     stops units in good order, gives another boot ID and, if the disk says
//     so, another kernel release. A host that switches itself off stays off,
//     and [Lab.PoweredOff] is told; one whose power is cut says nothing to
//     anybody (TestLabPower).
//  6. A host can stay away after a reboot, be cut off the network without
//     noticing, and run out of disk (TestLabPower, TestLabFaults).
//  7. A container engine runs on a host, with overlay2 and rules of its own,
//     and its containers come back after a reboot (TestLabDocker).
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
// They say which host or program, and what it said. What the boots printed and
// the hosts' journals are in the log of a test that failed.
package lab

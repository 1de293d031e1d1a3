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
// namespaces. There a bridge joins the hosts. A host is a process namespace
// whose root is an overlay file system over this machine's own: what it
// writes is its disk, a snapshot is a copy of that, and a clone starts from
// such a copy with an identity of its own. The packaged nginx.conf and
// sshd_config are those that Debian brought to this machine. Power off is the
// end of process 1, and a reboot a new one: then the boot ID is another, and
// the kernel release that which /boot/next-kernel named. Services are
// "java": this test's own binary, see [Main].
//
// # Guarantees
//
//  1. Nothing is written to this machine's file system or network, and no
//     process is left (TestHosts; Isolated checks the processes of every test
//     that uses it).
//  2. A clone has the content of its snapshot, and host keys, host name and
//     address of its own (TestHosts).
//  3. A reboot ends every process, gives another boot ID and, if the disk
//     says so, another kernel release (TestHosts).
//
// # Limits
//
// Linux and root. There is one kernel: /proc/sys/kernel/osrelease and boot_id
// differ from host to host, uname(2) does not. No systemd: services of a host
// that start at boot are sshd and, if asked for, nginx. A snapshot of a
// running host is a copy of its files, not of one moment. The release is this
// machine's.
//
// # Errors
//
// They say which host or program, and what it said. What a boot printed is in
// the log of a test that failed.
package lab

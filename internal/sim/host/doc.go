// Package host simulates a Linux host in process: SSH and SFTP servers, a POSIX
// shell, a file tree with /proc, processes, listening services, systemd units,
// programs of supervisord, Docker containers, Compose projects, an RPM package manager, and power.
//
// # Example
//
//	h, err := host.New(host.Spec{
//		Name: "web-90", Addr: "172.31.0.90",
//		Users: []host.User{{Name: "root", AuthorizedKeys: []string{line}}},
//		Processes: []host.Process{{Args: []string{"java", "-jar", "order.jar", "--server.port=8080"}, Cwd: "/srv/order"}},
//	}, host.Options{Speed: 60})
//	…
//	defer h.Close()
//	err = h.Start()
//	go h.ServeSSH(conn)
//
// # Guarantees
//
//  1. The scripts of real hosts run unchanged, as hostinv's collector does
//     (TestInventory); what each command prints is pinned (TestCommands).
//  2. A command or flag that is not simulated never succeeds: it says so on
//     standard error, ends with status 127 or 64, and is listed by Refused
//     (TestRefused).
//  3. A reboot drops every connection, changes the boot id, runs the kernel that
//     was installed, clears /run, loses processes that no unit starts, and
//     starts enabled units (TestUpdateAndReboot, TestUnits).
//  4. A clone has the disk of its source at one moment, and its own SSH host
//     keys, host name and boot id (TestClone).
//  5. A process that gets SIGTERM stops accepting and finishes its requests, for
//     10 s at most; SIGKILL cuts them (TestJava). A port without a process has no
//     endpoint: connection refused (TestJava).
//  6. A killed yum leaves its transaction open (TestKilledYum).
//  7. After Close no goroutine and no listener is left (TestMain).
//  8. supervisorctl says what the real 4.2 says, with its exit status, and ends
//     with 0 where the packages name a 3.x (TestSupervisorAsReal,
//     TestSupervisorThree).
//
// # Limits
//
// A killed shell takes its foreground command along, as if the signal had gone to
// the whole process group. A closed connection does not end a command, which is
// what OpenSSH 7.4 does; a signal request does, which is what later ones do.
// Background jobs get /dev/null as input. File descriptors other than 0, 1 and 2
// cannot be redirected. `sh -s` reads its whole script before it runs it. Docker
// restarts a container only when the daemon starts. Connections to a published
// port are translated on their way, as Docker's NAT rules do: they show in
// /proc/PID/net/tcp of the container's first process, not in the host's table. Host.Options.Speed divides the durations of
// the world; requests, and the bound of 10 s for finishing them, are real.
//
// # Errors
//
// Functions return errors that say the host and what stands in the way; errors of
// ReadFile, WriteFile, ReadDir and Stat are *fs.PathError and satisfy errors.Is with
// fs.ErrNotExist, fs.ErrExist and fs.ErrPermission.
package host

// Package hostos does on one host what an operating-system upgrade needs:
// run the package transaction detached from the connection that started it,
// reboot with proof, bring Docker up to date, and stop and start the services
// that have to run afterwards as they ran before.
//
// It reaches the host only through the small interface Host, so a caller may
// bring an SSH connection, a container exec, or a local shell.
//
// # Example
//
//	if err := hostos.StartJob(ctx, host, key, "yum -y update\n"); err != nil { … }
//	state, err := hostos.WaitJob(ctx, host, key, 3*time.Second, nil)
//
// # Guarantees
//
//  1. A job runs at most once under its key, however often it is started, also
//     at the same time, and never a part of its script (TestJobRunsOnce,
//     TestJobCutScript).
//  2. A job outlives the connection that started it; its exit status is on
//     the host's disk (TestJobStatus, TestJobOutlivesConnection).
//  3. A job cut off by a reboot or a kill is reported as lost, never as
//     finished (TestJobLost).
//  4. A reboot counts only when the boot ID has changed, and is asked for only
//     in the boot it was meant for (TestRebootProof).
//  5. A service is stopped with SIGTERM and waited for; this package never
//     sends SIGKILL (TestStopJava).
//  6. What daemon.json says stays as it is; what comes out is JSON that dockerd
//     reads, with limits the host allows (FuzzMergeDaemonJSON, TestMergeLimits,
//     TestLabDockerComponent); a file that somebody has changed meanwhile is not
//     overwritten, and one with which the daemon or no container starts is put
//     back (TestDockerConfig, TestLabDockerComponent).
//  7. Names and directories reach the host's shell as one word each
//     (TestOddDirectories, TestInjection). Service.Start is the exception: it
//     is a command line, and run as one.
//  8. An ended wait says what was seen last (TestJobStatus, TestStopJava,
//     TestWaitHealthy).
//  9. What an upgrade would do is resolved to exact packages beforehand, and it
//     does that; another host gets the same, to the NEVRA, although its
//     repository has moved on (TestDNF, TestYum3Table, TestAptTable, FuzzTable).
//  10. The exit status of a package manager is not believed: CheckUpgraded and
//     CheckPreReboot see a kernel that was left out, is cut off, is not the
//     default, or lacks a driver (TestDNF, TestPreReboot, TestDefaultKernel,
//     TestCapturedInitramfs, TestCapturedGrub).
//     A transaction that was killed in its middle is seen, says how it is put
//     right, and gets no other one on top (TestDNFKilled,
//     TestTransactionJournal).
//  11. Assess, CheckPreReboot and VerifyUpgrade change nothing (TestUpgradeHost).
//  12. SetDefaultKernel has done it only when the boot loader says so
//     (TestSetDefaultKernel).
//  13. Pointing repositories to a vault changes nothing but where they are, and
//     can be taken back byte for byte (TestVault, FuzzVault).
//  14. No package of Docker is removed before its successor is offered and
//     nothing else would go along (TestDockerStages); a replacement that was cut
//     off goes on from where it was (TestDockerCutOff), and another host gets
//     exactly the recorded packages (TestDockerReplay).
//  15. Every container that ran runs again, none made anew that is there, and
//     none that a person had stopped, with Compose 1 and 2, a project in its
//     directory and as its owner; data root and storage driver stay
//     (TestLabDockerComponent, TestContainersComeBack, TestComposeVersions,
//     TestProjectOwner, TestSameStore, TestMergeRefusals).
//  16. A process started by hand is started again with the arguments and the
//     environment of before to the byte, its directory, user, umask, limits and
//     output, and only if it does not run (TestRestartExactly, FuzzRestart,
//     TestRestartRealJava).
//  17. What a restart needs never leaves the host: there it is root's alone, whole
//     or not there, and goes with RemoveRestart (TestRestartExactly, TestRestart,
//     TestRestartProblems). What could not be started again says why, before
//     anything is stopped (TestRestartProblems).
//  18. Services start when those they come after are warm, and stop before them
//     (TestRealSupervisor, TestServiceOrder); one that is healthy has answered as
//     often in a row as is asked for, before and after its warm-up
//     (TestWaitHealthy, TestWarmup). What supervisord has given up on is not
//     waited for (TestSupervisor, TestRealSupervisor).
//  19. A process that nobody would start again after a boot is named
//     (TestFindUnowned).
//  20. What a lost lease keeps from running is told from every exit status of a
//     command of one's own (TestFencedStatus).
//
// # Limits
//
// Package transactions are those of yum 3, dnf 4 and apt-get, or a script of the
// caller's. An initramfs is looked into where lsinitrd or lsinitramfs is there.
// Services are processes started by hand, Compose projects, single containers,
// systemd units, and programs of supervisord. Restart values need Linux's /proc
// and, on the host, xargs -0, env, setsid, chroot, and prlimit where a limit is
// not the one of a login; an output into a pipe cannot be put back. docker stop
// and systemctl stop have time-outs of their own (10 s; TimeoutStopSec), after
// which they kill. When the shell that wraps a job is killed where there is no
// systemd-run, what it had started may go on although the job is lost.
//
// # Errors
//
// A command that ran and failed keeps its ExitStatus() through errors.As; any
// other error of a Host means that the result is unknown, and the caller has
// to look before it acts again. A job that ended badly is a *JobError.
package hostos

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
//  1. A job runs at most once under its key, however often it is started
//     (TestJobRunsOnce).
//  2. A job outlives the connection that started it; its exit status is on
//     the host's disk (TestJobStatus).
//  3. A job cut off by a reboot or a kill is reported as lost, never as
//     finished (TestJobLost).
//  4. A reboot counts only when the boot ID has changed (TestRebootProof).
//  5. A service is stopped with SIGTERM and waited for; SIGKILL is never sent
//     (TestStopJava).
//
// # Limits
//
// Package transactions are yum's, or a script of the caller's. Services are
// Java processes started by hand, Compose projects (docker-compose v1),
// single containers, and systemd units.
//
// # Errors
//
// A command that ran and failed keeps its ExitStatus() through errors.As; any
// other error of a Host means that the result is unknown, and the caller has
// to look before it acts again.
package hostos

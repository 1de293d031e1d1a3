// Package hostinv reaches hosts over SSH and records what runs on them, so
// that two records can be compared: before and after an upgrade, or a host
// and its clone.
//
// # Example
//
//	d, err := hostinv.NewDialer(hostinv.SSHConfig{ConfigFile: "ssh_config", Agent: true})
//	defer d.Close()
//	c, err := d.Dial(ctx, "web-90")
//	defer c.Close()
//	before, err := hostinv.Collect(ctx, c, hostinv.Options{})
//	...
//	losses := hostinv.Diff(before, after, hostinv.Expect{KernelChanged: true}).Losses()
//
// Collect, ReadBootID and ListConnections need a host only through the Host
// interface, so a bastion or docker exec of your own fits as well.
//
// # Guarantees
//
//  1. Host keys are always verified, on every hop, against known_hosts or
//     pinned keys; there is no trust on first use (TestErrors, and the tests
//     of internal/remote).
//  2. Collect installs and changes nothing: the script uses a short list of
//     reading commands and no file is written (TestScriptCommands). It needs
//     one session, and runs under dash, bash and busybox sh, with busybox alone
//     as well (TestCollectLocal, TestPoorUserland).
//  3. What did not arrive whole is truncated, never empty, wherever the answer
//     ends (FuzzCollectStream, TestCutAnywhere); what hangs costs its own
//     section (TestTimeBox).
//  4. No process on the host can forge a part of the inventory that is not
//     about itself (TestForgery).
//  5. Values of environment variables do not leave the host, and values of
//     arguments and settings that look like secrets are not in an inventory
//     (TestRedactArgs, TestParseStream).
//  6. What the login may not read is named in its section (TestNotRoot).
//  7. Unknown is not empty: what a side could not read is a finding
//     (TestDiffUnknown). An inventory that could be read differs in nothing
//     from itself, in whatever order it is listed, and Diff is symmetric
//     (TestDiffProperties). A host that nobody touched does not differ from
//     itself, however busy it is (TestQuietHost).
//  8. A change in any section is found and named (TestPlantedChange); names with
//     quotes, line feeds and terminal codes stay data (TestAwkwardNames).
//  9. An inventory of an older schema is completed with what is unknown, or
//     refused (TestSchema).
//
// # Limits
//
// Linux hosts with /proc and a POSIX /bin/sh. docs/inventory.md lists every
// section, what it holds and how it is compared. Without root, the processes
// behind sockets of other users are unknown, and the section says so. The
// tables of sockets are those of the login's network namespace; connections
// that the kernel forwards to containers show only where ListConnections is
// given the containers' processes. Of systemd only services and timers are
// listed. A process that ends while the host is read may be missing, and the
// shells of collectors are left out (TestOtherCollectors). Connections,
// the uptime and how many workers a daemon has are recorded and not compared.
// Recognising secrets in arguments is guesswork that would rather hide too much.
// SSHConfig tells what ssh_config may say.
//
// # Errors
//
// Connecting: *UnknownHostKeyError, *HostKeyChangedError,
// *HostKeyRevokedError, *AuthError and *ConfigError are final, *DialError may
// go away. Running: *ExitError is the command's own failure; with any other
// error, *DisconnectedError among them, the result is not known. Files:
// fs.ErrNotExist, fs.ErrExist, fs.ErrPermission.
package hostinv

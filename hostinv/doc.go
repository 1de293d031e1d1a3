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
//     reading commands and no file is written (TestScriptCommands).
//  3. What did not arrive whole is truncated, never empty
//     (FuzzCollectStream, TestCutAnywhere).
//  4. No process on the host can forge a part of the inventory that is not
//     about itself (TestForgery).
//  5. Values of arguments that look like secrets, and environment variables,
//     are not in an inventory (TestRedactArgs, TestContainers).
//  6. Unknown is not empty: what a side could not read is a finding
//     (TestDiffUnknown). An inventory that could be read differs in nothing
//     from itself, and Diff is symmetric (TestDiffProperties).
//
// # Limits
//
// Linux hosts with /proc and a POSIX /bin/sh. Without root, the processes
// behind listeners of other users are unknown, and the section says so. The
// tables of sockets are those of the login's network namespace; connections
// that the kernel forwards to containers show only where ListConnections is
// given the containers' processes. Of systemd only services are listed. Recognising
// secrets in arguments is guesswork that would rather hide too much.
// Logging in works with keys only; see SSHConfig for what ssh_config may say.
//
// # Errors
//
// Connecting: *UnknownHostKeyError, *HostKeyChangedError,
// *HostKeyRevokedError, *AuthError and *ConfigError are final, *DialError may
// go away. Running: *ExitError is the command's own failure; with any other
// error, *DisconnectedError among them, the result is not known. Files:
// fs.ErrNotExist, fs.ErrExist, fs.ErrPermission.
package hostinv

// Package remote is the SSH and SFTP layer under hostinv: it connects to
// hosts, verifies their keys, runs commands and moves files.
//
// # Example
//
//	d, err := remote.NewDialer(remote.Options{ConfigFile: "ssh_config"})
//	defer d.Close()
//	c, err := d.Dial(ctx, "web-90")
//	defer c.Close()
//	err = c.Run(ctx, "cat /etc/os-release", nil, os.Stdout, os.Stderr)
//
// # Guarantees
//
//  1. A host key is accepted only if it is pinned, stands in known_hosts, or
//     has a certificate of a @cert-authority there, on every hop; there is no
//     trust on first use (TestHostKeys, TestProxyJump, TestRealCertificates).
//  2. A known_hosts file with only one type of key works with a server that
//     has others, and a bad line does not spoil a file (TestHostKeys).
//  3. A mute peer cannot hold anybody: the end of ctx and ConnectTimeout end
//     TCP connect, handshake and login, also behind jump hosts, and a
//     connection whose peer stops answering is closed (TestMuteServer,
//     TestFrozenServer, TestRealChain, TestRealBadHosts).
//  4. Run never takes a lost connection for an exit status, and no exit
//     status for a lost connection; what a login shell that does not run
//     commands prints is no result (TestRunEndings, TestRealShells).
//  5. A command whose caller gave up, or whose connection is lost, is ended
//     with its process group, also under sudo, unless it was started with
//     OnLostDetach (TestRealKill). Input that was cut off never looks whole
//     to it (TestRealTruncatedInput).
//  6. Standard output and input are byte for byte the command's, whatever the
//     login shell's start files print or read (TestRealShells).
//  7. A password is given to sudo only as the answer to its prompt, to a
//     login only once, and after a refusal never again by the same Dialer
//     (TestRealSudo, TestRealPassword). None is in an error, in what a host
//     can list of its processes, or in the audit.
//  8. A connection with a command takes nine round trips, a later command
//     two; input costs one more (TestRealRoundTrips). No 40 ms are lost to
//     delayed acknowledgements (BenchmarkRealConnect).
//  9. At most eight sessions are open on a connection at once, fewer where the
//     server allows fewer; the others wait (TestSessions,
//     TestRealMaxSessions).
//  10. Connections to jump hosts are shared, and made again when they have
//     died (TestProxyJump, TestJumpRedial); at most eight handshakes go
//     through one, or to one address, at a time.
//  11. ssh_config is read as ssh reads it (TestAsSSH), and where it cannot be,
//     ssh is asked (TestAsksSSH).
//  12. A replaced file is the old or the new one at any time, and keeps what
//     is not content (TestRealReplaceFile).
//  13. A host has rebooted when another boot than the old one answers and
//     lasts; a wrong key or a refused login ends the wait early (TestWaitBoot).
//  14. Nothing is left behind after Close (TestMain with goleak).
//
// # Limits
//
// Of ssh_config we read the keywords in config.go. Servers other than OpenSSH
// are trusted to end the commands of a closed session. A command that does
// not read 64 KiB of its input hides the loss of its connection until it does.
// Under sudo, files are moved by an sftp-server that must be installed there.
// SFTP cannot create a file with permissions: for the moment between creating
// and setting them, the empty file has those of the umask. Hardware keys work
// through an agent only.
//
// # Errors
//
// See errors.go. Host key errors, AuthError and SudoError are final, DialError
// and DisconnectedError may go away, ShellError needs somebody to look at the
// host, ExitError is the command's own.
package remote

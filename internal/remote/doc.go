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
//  1. A host key is accepted only if it is pinned or stands in known_hosts,
//     on every hop; there is no trust on first use (TestHostKeys,
//     TestProxyJump).
//  2. A known_hosts file with only one type of key works with a server that
//     has others, and a bad line does not spoil a file (TestHostKeys).
//  3. A mute peer cannot hold anybody: the end of ctx and ConnectTimeout end
//     TCP connect, handshake and login, and a connection whose peer stops
//     answering is closed (TestMuteServer, TestFrozenServer).
//  4. Run never takes a lost connection for an exit status, and no exit
//     status for a lost connection (TestRunEndings).
//  5. At most eight sessions are open on a connection at once (TestSessions).
//  6. Connections to jump hosts are shared, and made again when they have
//     died (TestProxyJump, TestJumpRedial).
//  7. Nothing is left behind after Close (TestMain with goleak).
//
// # Limits
//
// Login by public key only: no passwords. Of ssh_config the keywords in
// config.go; any other is an error. No host certificates, no SHA-1. Encrypted
// identity files only through an agent at a Unix socket. Closing a session
// does not end the remote command on OpenSSH. SFTP cannot create a file with
// permissions: for the moment between creating and setting them, the empty
// file has those of the umask.
//
// # Errors
//
// See errors.go. Host key errors and AuthError are final, DialError and
// DisconnectedError may go away, ExitError is the command's own.
package remote

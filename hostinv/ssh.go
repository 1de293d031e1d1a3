package hostinv

import (
	"context"
	"io"
	"io/fs"
	"net"
	"time"

	"github.com/upgradectl/upgradectl/internal/remote"
)

// SSHConfig says how hosts are reached over SSH. The zero value uses the
// user's ssh_config, known_hosts, default identity files and login name, and
// no agent. Host keys are always verified; there is no setting that accepts an
// unknown one.
type SSHConfig struct {
	// ConfigFile is an ssh_config file. Empty = the user's ~/.ssh/config and
	// the system's, as the user's own ssh resolves them (ssh -G); "none" =
	// no file. A file named here is parsed strictly: what cannot be honoured
	// is asked of ssh -G, and without an ssh it is an error. Names of files
	// in it are taken as ssh takes them: ~/ is the home directory, and other
	// relative ones begin at the current directory.
	ConfigFile string
	// KnownHosts are the files that hold the accepted host keys. nil = what
	// ssh_config says (UserKnownHostsFile, GlobalKnownHostsFile), else
	// ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts.
	// An empty list is no file: then only pinned keys are accepted. Files are
	// read again at every Dial.
	KnownHosts []string
	// User is the login name where neither the target nor ssh_config gives
	// one; empty = the name of the user running this program.
	User string
	// Identities are private key files, offered before those of ssh_config.
	// Where neither gives any, ~/.ssh/id_ed25519, id_ecdsa and id_rsa are
	// offered if they exist. FILE-cert.pub is offered before FILE. An
	// encrypted file needs the agent or Passphrase. At most five keys are
	// offered to a host.
	Identities []string
	// Agent offers the keys of the agent too: the one at IdentityAgent of
	// ssh_config, else at SSH_AUTH_SOCK.
	Agent bool
	// Passphrase opens an encrypted identity file; nil = nothing does. It is
	// asked once for each file.
	Passphrase func(ctx context.Context, file string) (string, error)
	// Password is the login password, used after all keys were refused, by
	// keyboard-interactive or the password method; nil = none. It is asked
	// with user@host:port, also for jump hosts, and the time that takes is
	// part of ConnectTimeout. It is given to a server once; after a refusal
	// this Dialer never gives it to that login again.
	Password func(ctx context.Context, who string) (string, error)
	// AllowProxyCommand runs ProxyCommand lines of ssh_config, which are
	// programs of its author's choice. Without it they are an error.
	AllowProxyCommand bool
	// AllowSHA1 accepts key exchanges and RSA host keys that rest on SHA-1,
	// after everything better, for servers such as OpenSSH before 7.2. Warn
	// is told where it was needed.
	AllowSHA1 bool
	// ConnectTimeout limits TCP connect, handshake and login of one hop
	// together; 0 = what ssh_config says, else 15 s.
	ConnectTimeout time.Duration
	// KeepAlive is the time between two questions whether the host is still
	// there; after three without an answer the connection is closed.
	// 0 = what ssh_config says, else 15 s.
	KeepAlive time.Duration
	// NetDial makes the TCP connection to the first hop; nil = net.Dialer.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Warn is told what was skipped, such as unreadable known_hosts lines;
	// nil = nobody. It may be called from several goroutines.
	Warn func(text string)

	// Sudo runs commands and file transfers as root through sudo, where the
	// login is not root's anyway. It needs a rule that allows /bin/sh.
	Sudo bool
	// SudoPassword gives the password sudo asks for; nil = none, then only
	// hosts with NOPASSWD rules work. It is asked once for a connection, with
	// user@host:port. The password is only ever sent as the answer to sudo's
	// prompt: a host that asks for none never sees it, and a refused one is
	// not tried again.
	SudoPassword func(ctx context.Context, who string) (string, error)
	// Audit is told about every command that was run or attempted, from the
	// goroutine that ran it; nil = nobody. File transfers are not commands.
	Audit func(AuditRecord)
}

// options gives the settings of the SSH layer.
func (c SSHConfig) options() remote.Options {
	o := remote.Options{
		ConfigFile: c.ConfigFile, KnownHosts: c.KnownHosts, User: c.User, Identities: c.Identities, Agent: c.Agent,
		ConnectTimeout: c.ConnectTimeout, KeepAlive: c.KeepAlive, NetDial: c.NetDial, Warn: c.Warn,
		Passphrase: c.Passphrase, Password: c.Password, AllowProxyCommand: c.AllowProxyCommand, AllowSHA1: c.AllowSHA1,
		Sudo: c.Sudo, SudoPassword: c.SudoPassword,
	}
	if c.Audit != nil {
		o.Audit = func(r remote.AuditRecord) {
			r.Command = redactLine(r.Command)
			r.Err = redactLine(r.Err)
			c.Audit(AuditRecord(r))
		}
	}
	return o
}

// An AuditRecord tells of one command. Values that look like secrets are
// taken out of Command and Err.
type AuditRecord struct {
	Time        time.Time     // when it was asked for
	Duration    time.Duration // until its result was known, or given up
	Target      string        // as given to Dial
	Addr        string        // host:port
	User        string        // login name
	HostKey     string        // fingerprint of the host's key, SHA256:…
	Sudo        bool          // it ran through sudo
	Command     string        // the whole command line, redacted
	Exit        int           // exit status; -1: a signal, or not known
	Signal      string        // the signal that ended it, without SIG
	Err         string        // why the result is not known; empty if it is
	BytesIn     int64         // bytes of input sent
	BytesOut    int64         // bytes of standard output received
	BytesErr    int64         // bytes of standard error received
	OutputSHA   string        // SHA-256 of the standard output received, in hex
	OutputKnown bool          // the output came whole
}

// A Dialer makes connections to hosts and owns the connections to the jump
// hosts they go through, one for each, shared. It may be used by several
// goroutines.
type Dialer struct{ d *remote.Dialer }

// NewDialer reads the ssh_config file. It connects to nothing. A file with
// problems gives a *ConfigError with all of them.
func NewDialer(cfg SSHConfig) (*Dialer, error) {
	d, err := remote.NewDialer(cfg.options())
	if err != nil {
		return nil, public(err)
	}
	return &Dialer{d: d}, nil
}

// Dial connects to a host: an alias of the ssh_config file, a host name or an
// address, as HOST, USER@HOST, USER@HOST:PORT or ssh://USER@HOST:PORT. Jump
// hosts are connected to first, or again if their connection has died.
//
// ctx ends the attempt at once; it has no influence on the connection after
// Dial returned. Errors: *UnknownHostKeyError, *HostKeyChangedError,
// *HostKeyRevokedError, *AuthError, *DialError, *ConfigError, or the error
// of ctx.
func (d *Dialer) Dial(ctx context.Context, target string) (*Conn, error) {
	c, err := d.d.Dial(ctx, target)
	if err != nil {
		return nil, public(err)
	}
	return &Conn{c: c}, nil
}

// Pin makes keys the only ones accepted for host, instead of what the
// known_hosts files say: keys that came over another way, such as the cloud's
// console. host is written as for Dial, without a user; it is compared with
// the alias, the HostKeyAlias and the HostName of a target, in this order.
// keys are lines as in authorized_keys ("ssh-ed25519 AAAA…"). Pinning again
// replaces. Connections that exist stay.
func (d *Dialer) Pin(host string, keys []string) error { return d.d.Pin(host, keys) }

// BootWait says what WaitBoot waits for.
type BootWait struct {
	From   string            // boot ID the host is leaving (/proc/sys/kernel/random/boot_id)
	Stable time.Duration     // how long the new boot must last and answer; 0 = 1 minute
	Poll   time.Duration     // between two questions; 0 = 3 s
	Note   func(text string) // is told what is seen, when it changes; nil = nobody
}

// A BootReport says what WaitBoot saw.
type BootReport struct {
	ID    string   // the boot the host stays in
	Boots []string // every new boot seen, in order; more than one = it rebooted again
}

// WaitBoot blocks until a host that was told to reboot is up again: in another
// boot than From, with its services started, and for Stable without a failed
// question or another boot. It dials anew for each question. That the host
// cannot be reached, is still in the old boot, or lets nobody in yet
// (pam_nologin) is what a reboot looks like. It ends early with an error that
// no waiting mends: another host key, or a login refused twice in a row.
// An ended ctx is its own error, which says what was seen last.
func (d *Dialer) WaitBoot(ctx context.Context, target string, w BootWait) (BootReport, error) {
	r, err := d.d.WaitBoot(ctx, target, remote.BootWait(w))
	return BootReport(r), public(err)
}

// Close closes the connections to jump hosts and thereby what goes through
// them, and ends what is being dialed. Direct connections live until their
// own Close. Dial fails afterwards.
func (d *Dialer) Close() error { return d.d.Close() }

// Dial connects to one host. Closing the connection closes what it needed;
// use a Dialer for more than one host.
func Dial(ctx context.Context, target string, cfg SSHConfig) (*Conn, error) {
	d, err := NewDialer(cfg)
	if err != nil {
		return nil, err
	}
	c, err := d.Dial(ctx, target)
	if err != nil {
		d.Close()
		return nil, err
	}
	c.owned = d
	return c, nil
}

// A Conn is one SSH connection to a host. It does not reconnect: after a
// reboot, Dial again. It may be used by several goroutines; up to eight
// commands and file transfers run at once, more wait.
type Conn struct {
	c     *remote.Conn
	owned *Dialer // of the package-level Dial
}

// Run runs a POSIX sh command line with /bin/sh on the host. stdin, stdout
// and stderr may be nil; a nil stdin is empty. Run returns when the command
// has exited and its output has been written; output of children left in the
// background is not waited for longer than a second of silence. Neither
// writer is used after Run returned; one that blocks keeps Run from
// returning. A reader that blocks does not, but is then still read from.
//
// When ctx ends or the connection is lost, the command is ended with its
// process group: TERM, and KILL two seconds later; see Exec for one that must
// go on. What made a session of its own (setsid, a unit, a container) lives.
// This needs an OpenSSH server; others are trusted to do it by themselves.
//
// Errors: *ExitError when the command ran and failed; *ShellError and
// *SudoError when it was not run; *DisconnectedError when the connection was
// lost, the error of ctx when it ended, and other errors: the result is not
// known.
func (c *Conn) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	return public(c.c.Run(ctx, cmd, stdin, stdout, stderr))
}

// OnLost says what becomes of a command when its connection is lost or its
// context ends.
type OnLost int

const (
	// OnLostKill ends it with its process group, as Run does.
	OnLostKill OnLost = OnLost(remote.OnLostKill)
	// OnLostDetach lets it go on to its end; nobody learns its result. Work
	// whose result matters later belongs into a job on the host with a log
	// and an exit status there.
	OnLostDetach OnLost = OnLost(remote.OnLostDetach)
)

// A Cmd is a command for Exec.
type Cmd struct {
	Line           string    // a POSIX sh command line
	Stdin          io.Reader // nil = empty
	Stdout, Stderr io.Writer // get the output as it comes; nil = it is kept in Result
	OnLost         OnLost
	MaxOutput      int // bytes kept of each output without a writer; 0 = 1 MiB
}

// A Result is what Exec kept of a command's output.
type Result struct {
	Stdout, Stderr []byte
	Truncated      bool   // there was more than MaxOutput; the rest was read and dropped
	Noise          string // start of what the login shell's start files printed before the command
}

// Exec is Run with more to choose. The Result is valid with an error too.
func (c *Conn) Exec(ctx context.Context, cmd Cmd) (Result, error) {
	r, err := c.c.Exec(ctx, remote.Cmd{Line: cmd.Line, Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr,
		OnLost: remote.OnLost(cmd.OnLost), MaxOutput: cmd.MaxOutput})
	return Result(r), public(err)
}

// ReadFile reads a file of up to 64 MiB. errors.Is(err, fs.ErrNotExist) if
// there is none, fs.ErrPermission if it may not be read.
func (c *Conn) ReadFile(ctx context.Context, name string) ([]byte, error) {
	b, err := c.c.ReadFile(ctx, name)
	return b, public(err)
}

// WriteFile creates a new file with these permissions and this content,
// checks its size and syncs it to the disk if the server can. It fails with
// fs.ErrExist if there is one. A file it could not finish is removed, unless
// the connection was lost or ctx ended.
func (c *Conn) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	return public(c.c.WriteFile(ctx, name, data, perm))
}

// ReplaceFile gives an existing file new content in one step: there is no
// moment with half of it or without the file. name is absolute; a symbolic
// link stays and the file it leads to is replaced. The new file has the old
// one's owner, mode, ACL and security label; where they cannot be kept, where
// the file has hard links, is immutable or is a mount of its own, it is left
// as it was and the error says so. oldSHA256 is the content that is to be
// replaced, in hex: with another one there, the error is ErrFileChanged; empty
// = whatever is there. The host needs GNU coreutils.
func (c *Conn) ReplaceFile(ctx context.Context, name string, data []byte, oldSHA256 string) error {
	return public(c.c.ReplaceFile(ctx, name, data, oldSHA256))
}

// ErrFileChanged says that a file is not the one that ReplaceFile was to
// replace.
var ErrFileChanged = remote.ErrFileChanged

// ReadDir lists a directory, sorted by name. Symbolic links are not followed.
func (c *Conn) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	l, err := c.c.ReadDir(ctx, name)
	return l, public(err)
}

// DialContext makes a TCP connection from the host to addr (host:port as the
// host sees it). Deadlines on it are not supported: close it instead.
func (c *Conn) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	n, err := c.c.DialContext(ctx, network, addr)
	if err != nil {
		return nil, public(err) // a typed nil must not become a net.Conn
	}
	return n, nil
}

// Target returns what was given to Dial.
func (c *Conn) Target() string { return c.c.Target() }

// HostKey returns the key the host proved to hold, as "TYPE BASE64".
func (c *Conn) HostKey() string { return c.c.HostKey() }

// Done is closed when the connection has ended, for whatever reason.
func (c *Conn) Done() <-chan struct{} { return c.c.Done() }

// Close ends the connection. Calling it again does nothing.
func (c *Conn) Close() error {
	err := c.c.Close()
	if c.owned != nil {
		c.owned.Close()
	}
	return err
}

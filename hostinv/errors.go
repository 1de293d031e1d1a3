package hostinv

import (
	"errors"

	"github.com/upgradectl/upgradectl/internal/remote"
)

// The error types below have the same fields as those of the SSH layer, so
// that a conversion is enough; go doc shows them whole.

// An UnknownHostKeyError reports a host whose key stands in no known_hosts
// file and was not pinned. Nothing was sent to it. It is final: trying again
// changes nothing until somebody has checked and added the key.
type UnknownHostKeyError struct {
	Host        string   // the name known_hosts was searched for: host or [host]:port
	Addr        string   // where the connection went
	KeyType     string   // type of the key offered, for instance ssh-ed25519
	Fingerprint string   // SHA256:… of the key offered
	Line        string   // the known_hosts line that would accept it
	Files       []string // the files searched
	Skipped     []string // unreadable lines of these files, as file:line: reason
}

// Error names the host, the fingerprint offered and how to add the key.
func (e *UnknownHostKeyError) Error() string { return (*remote.UnknownHostKeyError)(e).Error() }

// A HostKeyChangedError reports a host that offers another key than the one
// known or pinned for it. It is final.
type HostKeyChangedError struct {
	Host        string   // the name that was looked up
	Addr        string   // where the connection went
	KeyType     string   // type of the key offered
	Fingerprint string   // SHA256:… of the key offered
	Known       []string // the keys accepted for it, as "TYPE FINGERPRINT (source)"
}

// Error is loud on purpose.
func (e *HostKeyChangedError) Error() string { return (*remote.HostKeyChangedError)(e).Error() }

// A HostKeyRevokedError reports a host that offers a key marked @revoked. It
// is final.
type HostKeyRevokedError struct {
	Host, Addr, KeyType, Fingerprint string
	Source                           string // file:line of the @revoked entry
}

// Error says which entry forbids the key.
func (e *HostKeyRevokedError) Error() string { return (*remote.HostKeyRevokedError)(e).Error() }

// An AuthError reports a host that accepted none of our keys, or that there
// is no key to offer. Right after a boot sshd may answer before home
// directories are mounted: wait for it with a limit, never retry it blindly,
// since servers penalise failed logins.
type AuthError struct {
	Host    string   // user@host:port
	Offered []string // the identities offered, as "NAME FINGERPRINT"
	Notes   []string // identities that could not be used, and why
	Err     error    // what the SSH layer said; may be nil
}

// Error names the identities and says what to do.
func (e *AuthError) Error() string { return (*remote.AuthError)(e).Error() }

// Unwrap returns what the SSH layer said.
func (e *AuthError) Unwrap() error { return e.Err }

// A DialError reports a host that could not be reached, or whose SSH server
// did not finish its handshake. It may go away by itself.
type DialError struct {
	Host string // as the caller named it
	Addr string // host:port that was tried
	Via  string // jump host it was tried through; empty = directly
	Err  error
}

// Error names the address and the reason.
func (e *DialError) Error() string { return (*remote.DialError)(e).Error() }

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// An ExitError reports a remote command that ran and ended badly. Error shows
// the start of Stderr; decide by the fields, never by the text.
type ExitError struct {
	Host   string
	Cmd    string // start of the command line
	Status int    // exit status; -1 when a signal ended it
	Signal string // name without SIG, for instance KILL; empty when it exited
	Stderr []byte // start of what it wrote to standard error
}

// Error names the command, the host, the status and the start of Stderr.
func (e *ExitError) Error() string { return (*remote.ExitError)(e).Error() }

// ExitStatus returns Status.
func (e *ExitError) ExitStatus() int { return e.Status }

// A DisconnectedError reports that the connection was lost before the
// command's exit status arrived: whether the command ran, runs or ended is
// not known.
type DisconnectedError struct {
	Host string
	Cmd  string // start of the command line, or what was being done
	Err  error
}

// Error says that the result is not known.
func (e *DisconnectedError) Error() string { return (*remote.DisconnectedError)(e).Error() }

// Unwrap returns the cause.
func (e *DisconnectedError) Unwrap() error { return e.Err }

// A SudoError reports that commands cannot be run as root. Nothing of the
// command was run. It is final for this Dialer where a password was refused.
type SudoError struct {
	Host   string // user@host:port
	Reason string
	Said   string // what sudo or the login shell printed; may be empty
	Help   string // what to do; may be empty
}

// Error says what sudo refused and what to do.
func (e *SudoError) Error() string { return (*remote.SudoError)(e).Error() }

// A ShellError reports a login that does not run commands: a restricted
// shell, a forced command, start files that end the shell. The command did
// not run.
type ShellError struct {
	Host   string
	Status int    // exit status of what ran instead
	Said   string // start of what it printed
}

// Error quotes what the host printed.
func (e *ShellError) Error() string { return (*remote.ShellError)(e).Error() }

// A ConfigError lists every problem of an ssh_config file, or of what it
// says about one host.
type ConfigError struct {
	Problems []string // each as file:line: reason, or as a reason about a host
}

// Error gives all problems, one a line.
func (e *ConfigError) Error() string { return (*remote.ConfigError)(e).Error() }

// wrapped keeps the text of an error of the SSH layer and lets errors.As find
// our type of it.
type wrapped struct {
	text string
	err  error
}

func (w *wrapped) Error() string { return w.text }
func (w *wrapped) Unwrap() error { return w.err }

// public turns the errors of the SSH layer into those of this package.
func public(err error) error {
	if err == nil {
		return nil
	}
	var (
		unknown *remote.UnknownHostKeyError
		changed *remote.HostKeyChangedError
		revoked *remote.HostKeyRevokedError
		auth    *remote.AuthError
		dial    *remote.DialError
		exit    *remote.ExitError
		lost    *remote.DisconnectedError
		config  *remote.ConfigError
		sudo    *remote.SudoError
		shell   *remote.ShellError
		found   error
		from    error
	)
	switch {
	case errors.As(err, &unknown):
		from, found = unknown, (*UnknownHostKeyError)(unknown)
	case errors.As(err, &changed):
		from, found = changed, (*HostKeyChangedError)(changed)
	case errors.As(err, &revoked):
		from, found = revoked, (*HostKeyRevokedError)(revoked)
	case errors.As(err, &auth):
		from, found = auth, (*AuthError)(auth)
	case errors.As(err, &dial):
		from, found = dial, (*DialError)(dial)
	case errors.As(err, &exit):
		from, found = exit, (*ExitError)(exit)
	case errors.As(err, &lost):
		from, found = lost, (*DisconnectedError)(lost)
	case errors.As(err, &sudo):
		from, found = sudo, (*SudoError)(sudo)
	case errors.As(err, &shell):
		from, found = shell, (*ShellError)(shell)
	case errors.As(err, &config):
		from, found = config, (*ConfigError)(config)
	default:
		return err
	}
	if err == from {
		return found
	}
	return &wrapped{text: err.Error(), err: found}
}

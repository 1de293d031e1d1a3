package remote

import (
	"fmt"
	"strings"
)

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

func (e *UnknownHostKeyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "host key of %s (%s) is not known: it offers %s %s; ", e.Host, e.Addr, e.KeyType, e.Fingerprint)
	fmt.Fprintf(&b, "compare this fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub on its console), then add to %s the line %q",
		keyFileName(e.KeyType), oneOf(e.Files), e.Line)
	if len(e.Skipped) > 0 {
		fmt.Fprintf(&b, "; lines that could not be read: %s", strings.Join(e.Skipped, ", "))
	}
	return b.String()
}

// A HostKeyChangedError reports a host that offers another key than the one
// known or pinned for it. It is final.
type HostKeyChangedError struct {
	Host        string   // the name that was looked up
	Addr        string   // where the connection went
	KeyType     string   // type of the key offered
	Fingerprint string   // SHA256:… of the key offered
	Known       []string // the keys accepted for it, as "TYPE FINGERPRINT (source)"
}

func (e *HostKeyChangedError) Error() string {
	return fmt.Sprintf("HOST KEY OF %s HAS CHANGED: %s offers %s %s, known is %s; somebody may be in between, or the host was rebuilt: "+
		"ask who runs it, and only if the new key is confirmed replace the known one",
		e.Host, e.Addr, e.KeyType, e.Fingerprint, strings.Join(e.Known, ", "))
}

// A HostKeyRevokedError reports a host that offers a key marked @revoked. It
// is final.
type HostKeyRevokedError struct {
	Host, Addr, KeyType, Fingerprint string
	Source                           string // file:line of the @revoked entry
}

func (e *HostKeyRevokedError) Error() string {
	return fmt.Sprintf("HOST KEY OF %s IS REVOKED: %s offers %s %s, which %s forbids; do not connect, the key is in wrong hands or was withdrawn",
		e.Host, e.Addr, e.KeyType, e.Fingerprint, e.Source)
}

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

func (e *AuthError) Error() string {
	var b strings.Builder
	if len(e.Offered) == 0 {
		fmt.Fprintf(&b, "cannot log in to %s: there is no key to offer", e.Host)
	} else {
		fmt.Fprintf(&b, "cannot log in to %s: it accepted none of what was offered (%s)", e.Host, strings.Join(e.Offered, ", "))
	}
	for _, n := range e.Notes {
		fmt.Fprintf(&b, "; %s", n)
	}
	if len(e.Offered) == 0 {
		b.WriteString("; name an identity file, or start ssh-agent and ssh-add the key")
	} else {
		b.WriteString("; check the user name, and that the public key is in its authorized_keys there")
	}
	return b.String()
}

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

func (e *DialError) Error() string {
	via := ""
	if e.Via != "" {
		via = " through " + e.Via
	}
	return fmt.Sprintf("cannot connect to %s (%s%s): %v; check that the host is up, that sshd listens there and that no firewall is in between",
		e.Host, e.Addr, via, e.Err)
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// An ExitError reports a remote command that ran and ended badly.
type ExitError struct {
	Host   string
	Cmd    string // start of the command line
	Status int    // exit status; -1 when a signal ended it
	Signal string // name without SIG, for instance KILL; empty when it exited
	Stderr []byte // start of what it wrote to standard error
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Status)
	if e.Signal != "" {
		how = "ended by signal " + e.Signal
	}
	msg := fmt.Sprintf("command %q on %s: %s", e.Cmd, e.Host, how)
	if s := strings.TrimSpace(string(e.Stderr)); s != "" {
		msg += ": " + shorten(s, 300)
	}
	return msg
}

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

func (e *DisconnectedError) Error() string {
	return fmt.Sprintf("lost the connection to %s during %q, its result is not known: %v", e.Host, e.Cmd, e.Err)
}

// Unwrap returns the cause.
func (e *DisconnectedError) Unwrap() error { return e.Err }

// shorten cuts s to at most n bytes at a rune boundary.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}

func oneOf(files []string) string {
	if len(files) == 0 {
		return "a known_hosts file (none is configured)"
	}
	return strings.Join(files, " or ")
}

// keyFileName is the middle of the file name sshd keeps a key of this type in.
func keyFileName(keyType string) string {
	switch {
	case strings.HasPrefix(keyType, "ecdsa"):
		return "ecdsa"
	case keyType == "ssh-rsa":
		return "rsa"
	}
	return "ed25519"
}

// A SudoError reports that commands cannot be run as root. Nothing of the
// command was run. It is final for this Dialer where a password was refused.
type SudoError struct {
	Host   string // user@host:port
	Reason string
	Said   string // what sudo or the login shell printed; may be empty
	Help   string // what to do; may be empty
}

func (e *SudoError) Error() string {
	msg := fmt.Sprintf("cannot become root as %s: %s", e.Host, e.Reason)
	if e.Said != "" {
		msg += fmt.Sprintf(" (%q)", e.Said)
	}
	if e.Help != "" {
		msg += "; " + e.Help
	}
	return msg
}

// A ShellError reports a login that does not run commands: a restricted
// shell, a forced command, start files that end the shell. The command did
// not run.
type ShellError struct {
	Host   string
	Status int    // exit status of what ran instead
	Said   string // start of what it printed
}

func (e *ShellError) Error() string {
	return fmt.Sprintf("the login shell of %s did not run the command: it ended with status %d and printed %q; "+
		"check the login shell, its start files and forced commands on the host", e.Host, e.Status, e.Said)
}

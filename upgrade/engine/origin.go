package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/user"
	"strings"
)

// An Origin says who acts from where, as the operating system tells it; the
// name that somebody gives of himself is the actor.
type Origin struct {
	User    string `json:"user"`
	Host    string `json:"host"`
	Machine string `json:"machine"`          // names the machine for good, and tells nothing else of it
	Source  string `json:"source,omitempty"` // the address from which the user logged in over SSH
	PID     int    `json:"pid,omitempty"`
}

// String is the origin for a line of text, such as "li@jump-1 from 10.1.2.3".
func (o Origin) String() string {
	s := o.User + "@" + o.Host
	if o.Source != "" {
		s += " from " + o.Source
	}
	return s
}

// LocalOrigin is this process.
func LocalOrigin() Origin {
	host, _ := os.Hostname() // only for people
	o := Origin{User: whoami(), Host: host, PID: os.Getpid()}
	if addr, _, ok := strings.Cut(os.Getenv("SSH_CONNECTION"), " "); ok {
		o.Source = addr
	}
	// machine-id(5): it must not be shown as it is.
	id, err := os.ReadFile("/etc/machine-id")
	if id = bytes.TrimSpace(id); err != nil || len(id) == 0 {
		id = []byte(host)
	}
	sum := sha256.Sum256(append([]byte("upgradectl run "), id...))
	o.Machine = hex.EncodeToString(sum[:8])
	return o
}

// whoami is the name of the user of this process.
func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "unknown"
}

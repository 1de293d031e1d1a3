package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// noConfig as ConfigFile means no ssh_config at all.
const noConfig = "none"

const (
	systemConfig = "/etc/ssh/ssh_config"
	sshAnswer    = 10 * time.Second // for ssh -G, whose Match exec may run anything
)

// resolver says how a target is reached: from a parsed file, or by asking the
// user's ssh.
type resolver struct {
	name   string  // the file to blame
	parsed *config // nil = ask ssh
	ssh    string  // the program
	file   string  // for ssh -F; empty = the user's and the system's

	mu    sync.Mutex
	known map[string]*hop // answers of ssh
}

// newResolver reads ssh_config. A file of the user's own choice is parsed by
// us, and ssh is asked if it holds more than we understand. The user's default
// file is ssh's business wherever there is an ssh.
func newResolver(file string) (*resolver, error) {
	r := &resolver{name: file, file: file, known: map[string]*hop{}}
	r.ssh, _ = exec.LookPath("ssh") // not there: no ssh is asked
	var own string
	switch file {
	case noConfig:
		r.name, r.parsed = "ssh_config", &config{name: "ssh_config"}
		return r, nil
	case "":
		r.name = "ssh_config"
		if home, err := os.UserHomeDir(); err == nil {
			own = filepath.Join(home, ".ssh", "config")
			if _, err := os.Stat(own); err == nil && r.ssh != "" {
				r.name = own
				return r, nil
			}
		}
	}
	var err error
	if r.parsed, err = parseFiles(file, own); err == nil {
		return r, nil
	}
	var foreign *foreignError
	if errors.As(err, &foreign) && r.ssh != "" {
		return r, nil
	}
	return nil, err
}

// parseFiles reads one file, or the user's and the system's if there are any.
func parseFiles(file, own string) (*config, error) {
	if file != "" {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read ssh_config: %w", err)
		}
		return parseConfig(file, src)
	}
	p := &parser{c: &config{name: "ssh_config"}, foreign: true}
	for _, f := range []struct{ name, base string }{{own, filepath.Dir(own)}, {systemConfig, filepath.Dir(systemConfig)}} {
		if f.name == "" {
			continue
		}
		src, err := os.ReadFile(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read ssh_config: %w", err)
		}
		p.base = f.base
		p.parse(f.name, src, nil, 0)
	}
	return p.done()
}

// chain returns the hosts to go through, the target last.
func (r *resolver) chain(ctx context.Context, target string) ([]*hop, error) {
	return chainFrom(r.name, func(t string) (*hop, error) { return r.resolve(ctx, t) }, target, nil)
}

func (r *resolver) resolve(ctx context.Context, target string) (*hop, error) {
	if r.parsed != nil {
		return r.parsed.resolve(target)
	}
	r.mu.Lock()
	h := r.known[target]
	r.mu.Unlock()
	if h == nil {
		var err error
		if h, err = r.ask(ctx, target); err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.known[target] = h
		r.mu.Unlock()
	}
	c := *h // the Dialer completes it
	for _, l := range []*[]string{&c.identities, &c.knownHosts, &c.globalKnown, &c.certs} {
		*l = append([]string(nil), *l...)
	}
	return &c, nil
}

// ask lets ssh say what its files mean for a target.
func (r *resolver) ask(ctx context.Context, target string) (*hop, error) {
	login, alias, port, err := splitTarget(target)
	if err != nil {
		return nil, &ConfigError{Problems: []string{err.Error()}}
	}
	args := []string{"-G"}
	if r.file != "" {
		args = append(args, "-F", r.file)
	}
	if login != "" {
		args = append(args, "-l", login)
	}
	if port != 0 {
		args = append(args, "-p", strconv.Itoa(port))
	}
	args = append(args, "--", alias)
	limited, cancel := context.WithTimeout(ctx, sshAnswer)
	defer cancel()
	cmd := exec.CommandContext(limited, r.ssh, args...)
	cmd.WaitDelay = time.Second // what a Match exec left behind
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ConfigError{Problems: []string{fmt.Sprintf("%s: ssh -G %s: %v: %s", r.name, alias, err, shorten(strings.TrimSpace(errs.String()), 300))}}
	}
	return parseAnswer(out.String(), alias, login)
}

// defaultKeyFiles are what ssh offers when no IdentityFile is set; a listing
// of nothing else is no wish of the user's. Never written to.
var defaultKeyFiles = map[string]bool{
	"~/.ssh/id_rsa": true, "~/.ssh/id_ecdsa": true, "~/.ssh/id_ecdsa_sk": true, "~/.ssh/id_ed25519": true,
	"~/.ssh/id_ed25519_sk": true, "~/.ssh/id_xmss": true, "~/.ssh/id_dsa": true,
	"~/.ssh/id_mldsa44_ed25519": true,
}

// parseAnswer reads what ssh -G printed: one lower-case keyword and its value
// a line.
func parseAnswer(text, alias, login string) (*hop, error) {
	h := &hop{alias: alias}
	seconds := func(v string) time.Duration {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 1<<20 { // "none"
			return 0
		}
		return time.Duration(n) * time.Second
	}
	defaults := true
	for _, line := range strings.Split(text, "\n") {
		key, v, _ := strings.Cut(strings.TrimRight(line, "\r"), " ")
		switch key {
		case "hostname":
			h.host = v
		case "port":
			h.port, _ = strconv.Atoi(v)
		case "user":
			// ssh fills the local name in; whether it was asked for cannot
			// be seen, so that only another name counts as asked for.
			if login != "" || v != localUser() {
				h.user = v
			}
		case "hostkeyalias":
			h.hostKeyAlias = v
		case "identityfile":
			h.identities = append(h.identities, v)
			defaults = defaults && defaultKeyFiles[v]
		case "certificatefile":
			h.certs = append(h.certs, v)
		case "identitiesonly":
			h.idsOnly = v == "yes"
		case "identityagent":
			if v != "SSH_AUTH_SOCK" {
				h.agentSocket = v
			}
		case "userknownhostsfile":
			h.knownHosts = append([]string{}, strings.Fields(v)...)
		case "globalknownhostsfile":
			h.globalKnown = append([]string{}, strings.Fields(v)...)
		case "proxyjump":
			if v != "none" {
				h.jump = strings.Split(v, ",")
			}
		case "proxycommand":
			if v != "none" {
				h.proxyCommand = v
			}
		case "connecttimeout":
			h.timeout = seconds(v)
		case "serveraliveinterval":
			h.alive = seconds(v)
		case "serveralivecountmax":
			h.aliveCount, _ = strconv.Atoi(v)
		}
	}
	if h.host == "" || h.port < 1 || h.port > 65535 {
		return nil, &ConfigError{Problems: []string{fmt.Sprintf("ssh -G %s gave no host name and port", alias)}}
	}
	if defaults {
		h.identities = nil
	}
	if strings.HasPrefix(h.agentSocket, "$") {
		h.agentSocket = os.Getenv(strings.Trim(h.agentSocket, "${}"))
	}
	return h, nil
}

package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxOffered limits the keys shown to a server: sshd counts each one and
// drops the connection after six tries (MaxAuthTries).
const maxOffered = 5

// identity is a key that can be offered.
type identity struct {
	name   string // file, or "agent COMMENT"
	signer ssh.Signer
}

// identities are the keys to offer to one host, in order.
type identities struct {
	list  []identity
	notes []string // what could not be used
	agent net.Conn
}

func (ids *identities) close() {
	if ids.agent != nil {
		ids.agent.Close()
	}
}

func (ids *identities) offered() []string {
	var l []string
	for _, i := range ids.list {
		l = append(l, i.name+" "+ssh.FingerprintSHA256(i.signer.PublicKey()))
	}
	return l
}

// identitiesFor collects the keys for a host: identity files first, from the
// agent where it holds them, then the other keys of the agent unless only the
// files are wanted.
func (d *Dialer) identitiesFor(ctx context.Context, h *hop) *identities {
	files := append([]string{}, d.opt.Identities...)
	files = append(files, h.identities...)
	// A missing file that nobody named is nothing to talk about.
	defaults := len(files) == 0
	if defaults {
		files = defaultIdentities()
	}
	ids := &identities{}
	var held []ssh.Signer
	if d.opt.Agent && h.agentSocket != "none" {
		var err error
		if held, err = ids.dialAgent(ctx, h.agentSocket); err != nil {
			ids.notes = append(ids.notes, err.Error())
		}
	}
	seen := map[string]bool{}
	add := func(name string, s ssh.Signer) {
		k := string(s.PublicKey().Marshal())
		if seen[k] {
			return
		}
		seen[k] = true
		if len(ids.list) >= maxOffered {
			ids.notes = append(ids.notes, fmt.Sprintf("%s was not offered: servers stop after %d keys; use IdentitiesOnly", name, maxOffered))
			return
		}
		ids.list = append(ids.list, identity{name, s})
	}
	inAgent := func(k ssh.PublicKey) ssh.Signer {
		for _, s := range held {
			if k != nil && sameKey(s.PublicKey(), k) {
				return s
			}
		}
		return nil
	}
	var certs []*ssh.Certificate
	for _, f := range h.certs {
		c, ok := readPublic(f).(*ssh.Certificate)
		if !ok {
			ids.notes = append(ids.notes, fmt.Sprintf("CertificateFile %s is no certificate that can be read", f))
			continue
		}
		certs = append(certs, c)
	}
	// offer adds the certificates of a key before the key.
	offer := func(name string, s ssh.Signer) {
		for _, c := range certs {
			if sameKey(c.Key, s.PublicKey()) {
				if cs, err := ssh.NewCertSigner(c, s); err == nil {
					add("certificate "+c.KeyId, cs)
				}
			}
		}
		add(name, s)
	}
	for _, f := range files {
		s, err := d.loadIdentity(ctx, f, inAgent)
		if err != nil {
			if !defaults || !errors.Is(err, fs.ErrNotExist) {
				ids.notes = append(ids.notes, err.Error())
			}
			continue
		}
		if c := withCertificate(f, s); c != nil {
			add(f+"-cert.pub", c)
		}
		offer(f, s)
	}
	if !h.idsOnly {
		for _, s := range held {
			name := "agent"
			if k, ok := s.PublicKey().(*agent.Key); ok && k.Comment != "" {
				name = "agent " + k.Comment
			}
			offer(name, s)
		}
	}
	return ids
}

func (ids *identities) dialAgent(ctx context.Context, sock string) ([]ssh.Signer, error) {
	if sock == "" {
		sock = os.Getenv("SSH_AUTH_SOCK")
	}
	if sock == "" {
		return nil, errors.New("the agent is wanted but SSH_AUTH_SOCK is not set")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", sock)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the agent: %w", err)
	}
	ids.agent = c
	// A hanging agent must not outlive the attempt.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	held, err := agent.NewClient(c).Signers()
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys of the agent: %w", err)
	}
	return held, nil
}

// lockedFile is an encrypted private key file whose passphrase was asked for.
type lockedFile struct {
	mu     sync.Mutex
	asked  bool
	signer ssh.Signer
	err    error
}

// unlock asks for the passphrase of a file, once.
func (d *Dialer) unlock(ctx context.Context, file string, src []byte) (ssh.Signer, error) {
	d.mu.Lock()
	l := d.locked[file]
	if l == nil {
		l = &lockedFile{}
		d.locked[file] = l
	}
	d.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked {
		return l.signer, l.err
	}
	phrase, err := d.opt.Passphrase(ctx, file)
	if err != nil {
		if ctx.Err() == nil {
			l.asked, l.err = true, fmt.Errorf("cannot get the passphrase of identity %s: %w", file, err)
		}
		return nil, fmt.Errorf("cannot get the passphrase of identity %s: %w", file, err)
	}
	l.asked = true
	if l.signer, err = ssh.ParsePrivateKeyWithPassphrase(src, []byte(phrase)); err != nil {
		// The parser's text is not shown: it could quote parts of the file.
		l.signer, l.err = nil, fmt.Errorf("the passphrase given does not open identity %s", file)
	}
	return l.signer, l.err
}

// loadIdentity reads a private key file; an encrypted one, or a file that
// holds only the public key, stands for the agent's key. Without the agent
// the passphrase is asked for.
func (d *Dialer) loadIdentity(ctx context.Context, file string, inAgent func(ssh.PublicKey) ssh.Signer) (ssh.Signer, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(src)
	if err == nil {
		return signer, nil
	}
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		pub := locked.PublicKey
		if pub == nil {
			pub = readPublic(file + ".pub")
		}
		if s := inAgent(pub); s != nil {
			return s, nil
		}
		if d.opt.Passphrase != nil {
			return d.unlock(ctx, file, src)
		}
		return nil, fmt.Errorf("identity %s is encrypted and the agent does not hold it (ssh-add %s, and let the agent be used)", file, file)
	}
	if pub, _, _, _, perr := ssh.ParseAuthorizedKey(src); perr == nil {
		if s := inAgent(pub); s != nil {
			return s, nil
		}
		return nil, fmt.Errorf("identity %s is a public key and the agent does not hold it", file)
	}
	// The parser's text is not shown: it could quote parts of the file.
	return nil, fmt.Errorf("identity %s is no private key that can be read", file)
}

func readPublic(file string) ssh.PublicKey {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(src)
	if err != nil {
		return nil
	}
	return pub
}

// withCertificate returns a signer for FILE-cert.pub, nil if there is none
// that belongs to the key.
func withCertificate(file string, s ssh.Signer) ssh.Signer {
	cert, ok := readPublic(file + "-cert.pub").(*ssh.Certificate)
	if !ok {
		return nil
	}
	c, err := ssh.NewCertSigner(cert, s)
	if err != nil {
		return nil
	}
	return c
}

// defaultIdentities are the files ssh tries when none is named.
func defaultIdentities() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	var l []string
	for _, n := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		l = append(l, filepath.Join(home, ".ssh", n))
	}
	return l
}

package remote

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// knownHosts is what the known_hosts files say. One bad line does not make
// the others void: it is skipped and reported, as OpenSSH does.
type knownHosts struct {
	files   []string
	entries []knownEntry
	skipped []string // file:line: reason
}

type knownEntry struct {
	revoked  bool
	ca       bool     // @cert-authority: it signs the keys of the hosts
	patterns []string // host patterns, lower case; nil = hashed
	salt     []byte
	hash     []byte
	key      ssh.PublicKey
	source   string // file:line
}

// readKnownHosts reads the files. A missing one is empty, as for ssh.
func readKnownHosts(files []string) (*knownHosts, error) {
	k := &knownHosts{files: files}
	for _, f := range files {
		if f == "none" {
			continue
		}
		src, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			// An unreadable file may hold @revoked lines.
			return nil, fmt.Errorf("cannot read known_hosts: %w", err)
		}
		k.add(f, src)
	}
	return k, nil
}

func (k *knownHosts) add(name string, src []byte) {
	for i, line := range bytes.Split(src, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		source := fmt.Sprintf("%s:%d", name, i+1)
		e, err := parseKnown(string(line))
		if err != nil {
			k.skipped = append(k.skipped, source+": "+err.Error())
			continue
		}
		e.source = source
		k.entries = append(k.entries, e)
	}
}

func parseKnown(line string) (e knownEntry, err error) {
	f := strings.Fields(line)
	switch {
	case f[0] == "@revoked":
		e.revoked = true
		f = f[1:]
	case f[0] == "@cert-authority":
		e.ca = true
		f = f[1:]
	case f[0][0] == '@':
		return e, fmt.Errorf("marker %q is not known", f[0])
	}
	if len(f) < 3 {
		return e, errors.New("want hosts, key type and key")
	}
	raw, err := base64.StdEncoding.DecodeString(f[2])
	if err != nil {
		return e, errors.New("the key is not base64")
	}
	if e.key, err = ssh.ParsePublicKey(raw); err != nil {
		return e, fmt.Errorf("the key of type %q cannot be read", f[1])
	}
	if e.key.Type() != f[1] {
		return e, fmt.Errorf("the line says %q and the key is %q", f[1], e.key.Type())
	}
	if len(algorithmsOf(f[1])) == 0 && !e.revoked {
		return e, fmt.Errorf("keys of type %q are not supported", f[1])
	}
	if !strings.HasPrefix(f[0], "|") {
		e.patterns = strings.Split(strings.ToLower(f[0]), ",")
		return e, nil
	}
	parts := strings.Split(f[0], "|")
	if len(parts) != 4 || parts[1] != "1" {
		return e, errors.New("the hashed host name cannot be read")
	}
	e.salt, err = base64.StdEncoding.DecodeString(parts[2])
	if err == nil {
		e.hash, err = base64.StdEncoding.DecodeString(parts[3])
	}
	if err != nil || len(e.hash) != sha1.Size {
		return e, errors.New("the hashed host name cannot be read")
	}
	return e, nil
}

// matches reports whether the entry is about name: host, or [host]:port for
// another port than 22.
func (e *knownEntry) matches(name string) bool {
	if e.patterns == nil {
		mac := hmac.New(sha1.New, e.salt)
		mac.Write([]byte(name))
		return subtle.ConstantTimeCompare(mac.Sum(nil), e.hash) == 1
	}
	return matchHost(e.patterns, name)
}

// knownName is the name an entry for host and port is filed under.
func knownName(host string, port int) string {
	host = strings.ToLower(host)
	if port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// keysFor returns the accepted entries for a host, the authorities whose
// certificates it may show, and the revoked keys. If there is none for its
// port, those for the host without a port count, as in ssh.
func (k *knownHosts) keysFor(host string, port int) (known, cas, revoked []knownEntry) {
	name, plain := knownName(host, port), strings.ToLower(host)
	var fallback, fallbackCAs []knownEntry
	for _, e := range k.entries {
		exact := e.matches(name)
		if !exact && !e.matches(plain) {
			continue
		}
		switch {
		case e.revoked: // a withdrawn key is withdrawn on every port
			revoked = append(revoked, e)
		case e.ca && exact:
			cas = append(cas, e)
		case e.ca:
			fallbackCAs = append(fallbackCAs, e)
		case exact:
			known = append(known, e)
		default:
			fallback = append(fallback, e)
		}
	}
	if known == nil {
		known = fallback
	}
	if cas == nil {
		cas = fallbackCAs
	}
	return known, cas, revoked
}

// allAlgorithms are the host key algorithms we speak, best first. No SHA-1.
// Never written to.
var allAlgorithms = []string{
	ssh.KeyAlgoED25519,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// algorithmsOf returns the signature algorithms of a key type.
func algorithmsOf(keyType string) []string {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return []string{keyType}
	}
	return nil
}

// verifier decides about the key of one host.
type verifier struct {
	name      string // what was looked up
	principal string // the name a certificate must be for: without a port
	sha1      bool   // ssh-rsa is asked for as well, last
	keys      *knownHosts
	known     []knownEntry
	cas       []knownEntry
	revoked   []knownEntry

	err error // what the callback refused with
	ok  ssh.PublicKey
}

// algorithms returns the host key algorithms to ask for: those of the known
// keys, so that a file with only an ed25519 entry works with a server that
// has other keys too. The rest follow: they are never accepted, but let the
// server show its key, so that the error can name it.
func (v *verifier) algorithms() []string {
	var algos []string
	seen := map[string]bool{}
	add := func(list ...string) {
		for _, a := range list {
			if !seen[a] {
				seen[a] = true
				algos = append(algos, a)
			}
		}
	}
	if len(v.cas) > 0 {
		// Which key the authority signed is not known beforehand.
		add(ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
			ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
	}
	want := v.known
	if len(want) == 0 && len(v.cas) == 0 {
		want = v.revoked // to be able to say that it is revoked
	}
	for _, a := range allAlgorithms {
		for _, e := range want {
			for _, b := range algorithmsOf(e.key.Type()) {
				if a == b {
					add(a)
				}
			}
		}
	}
	add(allAlgorithms...)
	if v.sha1 {
		add(ssh.KeyAlgoRSA)
	}
	return algos
}

func (v *verifier) check(key ssh.PublicKey, addr string) error {
	v.err = v.verify(key, addr)
	if v.err == nil {
		if cert, ok := key.(*ssh.Certificate); ok {
			key = cert.Key
		}
		v.ok = key
	}
	return v.err
}

func (v *verifier) verify(key ssh.PublicKey, addr string) error {
	cert, _ := key.(*ssh.Certificate)
	if cert != nil {
		key = cert.Key
	}
	fp := ssh.FingerprintSHA256(key)
	for _, e := range v.revoked {
		if sameKey(e.key, key) || cert != nil && sameKey(e.key, cert.SignatureKey) {
			return &HostKeyRevokedError{Host: v.name, Addr: addr, KeyType: key.Type(), Fingerprint: fp, Source: e.source}
		}
	}
	if cert != nil {
		for _, ca := range v.cas {
			if sameKey(ca.key, cert.SignatureKey) {
				return v.checkCert(cert, addr, ca)
			}
		}
		// Signed by somebody else: the key counts as if it had none.
	}
	var known []string
	for _, e := range v.known {
		if sameKey(e.key, key) {
			return nil
		}
		known = append(known, fmt.Sprintf("%s %s (%s)", e.key.Type(), ssh.FingerprintSHA256(e.key), e.source))
	}
	if known != nil {
		return &HostKeyChangedError{Host: v.name, Addr: addr, KeyType: key.Type(), Fingerprint: fp, Known: known}
	}
	return &UnknownHostKeyError{
		Host: v.name, Addr: addr, KeyType: key.Type(), Fingerprint: fp,
		Line:  v.name + " " + keyText(key),
		Files: v.keys.files, Skipped: v.keys.skipped,
	}
}

// checkCert holds a host certificate of a known authority against its names,
// time and options. As in ssh, its names may hold wildcards.
func (v *verifier) checkCert(cert *ssh.Certificate, addr string, ca knownEntry) error {
	bad := func(why error) error {
		return &HostKeyChangedError{Host: v.name, Addr: addr, KeyType: cert.Type(), Fingerprint: ssh.FingerprintSHA256(cert.Key),
			Known: []string{fmt.Sprintf("a certificate of %s %s (%s): %v", ca.key.Type(), ssh.FingerprintSHA256(ca.key), ca.source, why)}}
	}
	if cert.CertType != ssh.HostCert {
		return bad(errors.New("the one offered is not a host's"))
	}
	name := v.principal
	for _, p := range cert.ValidPrincipals {
		if matchPattern(strings.ToLower(p), v.principal) {
			name = p
		}
	}
	if err := (&ssh.CertChecker{}).CheckCert(name, cert); err != nil {
		return bad(err)
	}
	return nil
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// keyText is a key as "TYPE BASE64".
func keyText(k ssh.PublicKey) string {
	return k.Type() + " " + base64.StdEncoding.EncodeToString(k.Marshal())
}

// parseKeys reads authorized_keys lines.
func parseKeys(host string, lines []string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		k, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(l))
		if err != nil || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("cannot pin the host key of %s: %q is no public key line", host, shorten(l, 60))
		}
		keys = append(keys, k)
	}
	if keys == nil {
		return nil, fmt.Errorf("cannot pin the host key of %s: no key given", host)
	}
	return keys, nil
}

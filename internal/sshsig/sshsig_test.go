package sshsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

const ns = "gate@upgradectl"

func signer(t testing.TB, key any) ssh.Signer {
	s, err := ssh.NewSignerFromKey(key)
	require.NoError(t, err)
	return s
}

// keys are one of each kind.
func keys(t testing.TB) map[string]any {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return map[string]any{"ed25519": ed, "ecdsa": ec, "rsa": r}
}

// TestKeygenJudges: ssh-keygen accepts ours, we accept its, and both refuse the
// same.
func TestKeygenJudges(t *testing.T) {
	keygen := testenv.Need(t, "ssh-keygen")
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := func(n string) string { return filepath.Join(dir, n) }
			block, err := ssh.MarshalPrivateKey(key, "test")
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path("key"), pem.EncodeToMemory(block), 0o600))
			s := signer(t, key)
			allowed := "li@example.com,li namespaces=\"file,gate@upgradectl\" " + string(ssh.MarshalAuthorizedKey(s.PublicKey()))
			require.NoError(t, os.WriteFile(path("signers"), []byte(allowed), 0o600))
			list, err := ParseSigners([]byte(allowed))
			require.NoError(t, err)
			message := []byte("run r1\n")

			require.NoError(t, os.WriteFile(path("m"), message, 0o600))
			out, err := exec.Command(keygen, "-Y", "sign", "-f", path("key"), "-n", ns, path("m")).CombinedOutput()
			require.NoError(t, err, "%s", out)
			theirs, err := os.ReadFile(path("m.sig"))
			require.NoError(t, err)
			got, err := Verify(theirs, ns, message)
			require.NoError(t, err)
			who, err := list.Who(got, ns, time.Now())
			require.NoError(t, err)
			assert.Equal(t, "li@example.com", who)

			ours, err := Sign(s, ns, message)
			require.NoError(t, err)
			if name == "ed25519" { // no random part: the same bytes
				assert.Equal(t, string(theirs), string(ours))
			}
			require.NoError(t, os.WriteFile(path("ours.sig"), ours, 0o600))
			verify := func(namespace string, m []byte) error {
				c := exec.Command(keygen, "-Y", "verify", "-f", path("signers"), "-I", "li", "-n", namespace, "-s", path("ours.sig"))
				c.Stdin = bytes.NewReader(m)
				return c.Run()
			}
			for _, row := range []struct {
				namespace string
				message   string
			}{{ns, "run r1\n"}, {ns, "run r2\n"}, {"file", "run r1\n"}, {"git", "run r1\n"}} {
				theirs := verify(row.namespace, []byte(row.message))
				key, err := Verify(ours, row.namespace, []byte(row.message))
				if err == nil {
					_, err = list.Who(key, row.namespace, time.Now())
				}
				assert.Equal(t, theirs == nil, err == nil, "%v: ssh-keygen says %v, we say %v", row, theirs, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	ks := keys(t)
	s := signer(t, ks["ed25519"])
	good, err := Sign(s, ns, []byte("m"))
	require.NoError(t, err)
	_, err = Verify(good, ns, []byte("m"))
	require.NoError(t, err)
	_, err = Sign(s, "", []byte("m"))
	require.ErrorContains(t, err, "no namespace")

	sha1, err := signer(t, ks["rsa"]).(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte("x"), ssh.KeyAlgoRSA)
	require.NoError(t, err)
	old := blob{Version: 1, PublicKey: signer(t, ks["rsa"]).PublicKey().Marshal(), Namespace: ns, Hash: "sha512", Signature: ssh.Marshal(sha1)}
	edit := func(f func(*blob)) []byte {
		b := blob{Version: 1, PublicKey: s.PublicKey().Marshal(), Namespace: ns, Hash: "sha512"}
		f(&b)
		return armour(append([]byte(magic), ssh.Marshal(b)...))
	}
	for want, sig := range map[string][]byte{
		"it is no SSH signature": []byte("hello"),
		"the magic is missing":   armour([]byte("SSHSIX\x00\x00")),
		"has version 2":          edit(func(b *blob) { b.Version = 2 }),
		"is for namespace":       edit(func(b *blob) { b.Namespace = "file" }),
		"cannot read the key":    edit(func(b *blob) { b.PublicKey = []byte("x") }),
		"uses ssh-rsa":           armour(append([]byte(magic), ssh.Marshal(old)...)),
		`uses the hash "md5"`:    edit(func(b *blob) { b.Hash = "md5"; b.Signature = ssh.Marshal(&ssh.Signature{Format: "ssh-ed25519"}) }),
		"signature has":          bytes.Repeat([]byte("x"), maxArmored+1),
		"does not fit what was signed": edit(func(b *blob) {
			b.Signature = ssh.Marshal(&ssh.Signature{Format: "ssh-ed25519", Blob: make([]byte, 64)})
		}),
		"cannot read the signature: ssh": edit(func(b *blob) { b.Signature = []byte{1} }),
	} {
		_, err := Verify(sig, ns, []byte("m"))
		require.ErrorContains(t, err, want)
	}
	_, err = Verify(append(good, "more"...), ns, []byte("m"))
	require.Error(t, err)
}

func TestSigners(t *testing.T) {
	key := signer(t, keys(t)["ed25519"]).PublicKey()
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	for text, want := range map[string]string{
		"*@example.com " + line:                       "is a pattern",
		"!li " + line:                                 "is a pattern",
		"li cert-authority " + line:                   `option "cert-authority" is not supported`,
		"li namespaces=\"g*\" " + line:                "is a pattern",
		"li valid-before=\"tomorrow\" " + line:        "is no time",
		"li,, " + line:                                "a principal is empty",
		"li":                                          "want PRINCIPALS",
		"li ssh-ed25519 AAAA":                         "cannot read the key",
		"\n# nobody\nli x y\nzhao z\n":                "line 4:",
		`"li zhang`:                                   "want PRINCIPALS",
		"li sk-nonsense@openssh.com AAAAC3NzaC1lZDI1": "cannot read the key",
	} {
		_, err := ParseSigners([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
	list, err := ParseSigners([]byte("# approvers\r\n\"Li Wei\" valid-after=\"20260101Z\",valid-before=\"202612312359Z\" " + line + " comment\r\n"))
	require.NoError(t, err)
	assert.Equal(t, []string{"Li Wei"}, list.People())
	for at, want := range map[string]string{
		"2026-06-01T00:00:00Z": "", "2025-12-31T23:59:59Z": "is valid from", "2026-12-31T23:59:00Z": "was valid until",
	} {
		when, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		who, err := list.Who(key, ns, when)
		if want == "" {
			require.NoError(t, err)
			assert.Equal(t, "Li Wei", who)
			continue
		}
		require.ErrorContains(t, err, want)
	}
	_, err = list.Who(signer(t, keys(t)["ed25519"]).PublicKey(), ns, time.Now())
	require.ErrorContains(t, err, "is not in the list")
}

// FuzzVerify: no input panics, and no patched signature counts for the message.
func FuzzVerify(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	s := signer(f, key)
	good, err := Sign(s, ns, []byte("m"))
	require.NoError(f, err)
	f.Add(good, []byte("m"), []byte("li ssh-ed25519 AAAA"))
	f.Fuzz(func(t *testing.T, sig, message, list []byte) {
		got, err := Verify(sig, ns, message)
		if err == nil && bytes.Equal(got.Marshal(), s.PublicKey().Marshal()) && string(message) != "m" {
			t.Fatal("a signature of m counts for something else")
		}
		_, _ = ParseSigners(list)
	})
}

package sshsig

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

const (
	magic   = "SSHSIG"
	pemType = "SSH SIGNATURE"
	// maxArmored bounds what Parse looks at; a signature by RSA with 16384
	// bits has about 6 KB.
	maxArmored = 16 << 10
)

// blob is the inside of the armour, after the magic.
type blob struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// signed is what the key signs, after the magic.
type signed struct {
	Namespace string
	Reserved  string
	Hash      string
	Digest    []byte
}

func (b *blob) message(message []byte) ([]byte, error) {
	var digest []byte
	switch b.Hash {
	case "sha512":
		d := sha512.Sum512(message)
		digest = d[:]
	case "sha256":
		d := sha256.Sum256(message)
		digest = d[:]
	default:
		return nil, fmt.Errorf("signature uses the hash %q; sha512 and sha256 are allowed", b.Hash)
	}
	return append([]byte(magic), ssh.Marshal(signed{b.Namespace, b.Reserved, b.Hash, digest})...), nil
}

// Sign signs message for namespace; the result is what ssh-keygen -Y sign
// writes to a .sig file.
func Sign(signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	if namespace == "" {
		return nil, errors.New("cannot sign for no namespace")
	}
	b := blob{Version: 1, PublicKey: signer.PublicKey().Marshal(), Namespace: namespace, Hash: "sha512"}
	data, err := b.message(message)
	if err != nil {
		return nil, err
	}
	var sig *ssh.Signature
	if as, ok := signer.(ssh.AlgorithmSigner); ok && signer.PublicKey().Type() == ssh.KeyAlgoRSA {
		sig, err = as.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
	} else {
		sig, err = signer.Sign(rand.Reader, data)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot sign with key %s: %w", ssh.FingerprintSHA256(signer.PublicKey()), err)
	}
	b.Signature = ssh.Marshal(sig)
	return armour(append([]byte(magic), ssh.Marshal(b)...)), nil
}

// armour writes lines of 70 characters, as ssh-keygen does.
func armour(data []byte) []byte {
	var out bytes.Buffer
	out.WriteString("-----BEGIN " + pemType + "-----\n")
	text := base64.StdEncoding.EncodeToString(data)
	for line := range slices.Chunk([]byte(text), 70) {
		out.Write(line)
		out.WriteByte('\n')
	}
	out.WriteString("-----END " + pemType + "-----\n")
	return out.Bytes()
}

// Verify checks an armoured signature of message for namespace and returns the
// key that made it. Whose key that is, is another question.
func Verify(armoured []byte, namespace string, message []byte) (ssh.PublicKey, error) {
	if len(armoured) > maxArmored {
		return nil, fmt.Errorf("signature has %d bytes, at most %d", len(armoured), maxArmored)
	}
	block, rest := pem.Decode(bytes.TrimSpace(armoured))
	if block == nil || block.Type != pemType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is no SSH signature as ssh-keygen -Y sign makes it")
	}
	raw, ok := bytes.CutPrefix(block.Bytes, []byte(magic))
	if !ok {
		return nil, errors.New("it is no SSH signature: the magic is missing")
	}
	var b blob
	if err := ssh.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	if b.Version != 1 {
		return nil, fmt.Errorf("SSH signature has version %d, this program knows 1", b.Version)
	}
	if namespace == "" || b.Namespace != namespace {
		return nil, fmt.Errorf("signature is for namespace %q, not for %q", b.Namespace, namespace)
	}
	key, err := ssh.ParsePublicKey(b.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the signature: %w", err)
	}
	if _, cert := key.(*ssh.Certificate); cert {
		return nil, errors.New("signature is by a certificate; sign with the key itself")
	}
	var sig struct {
		Format string
		Blob   []byte
		Rest   []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(b.Signature, &sig); err != nil {
		return nil, fmt.Errorf("cannot read the signature: %w", err)
	}
	if key.Type() == ssh.KeyAlgoRSA && sig.Format != ssh.KeyAlgoRSASHA512 && sig.Format != ssh.KeyAlgoRSASHA256 {
		return nil, fmt.Errorf("signature uses %s; rsa-sha2-512 and rsa-sha2-256 are allowed", sig.Format)
	}
	data, err := b.message(message)
	if err != nil {
		return nil, err
	}
	if err := key.Verify(data, &ssh.Signature{Format: sig.Format, Blob: sig.Blob, Rest: sig.Rest}); err != nil {
		return nil, fmt.Errorf("signature by key %s does not fit what was signed: %w", ssh.FingerprintSHA256(key), err)
	}
	return key, nil
}

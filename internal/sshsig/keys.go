package sshsig

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// A Key can sign.
type Key = ssh.Signer

// Fingerprint names a key as ssh-keygen -l does.
func Fingerprint(key ssh.PublicKey) string { return ssh.FingerprintSHA256(key) }

// ReadKey reads a private key file that has no passphrase.
func ReadKey(file string) (Key, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	k, err := ssh.ParsePrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, fmt.Errorf("key %s has a passphrase: add it to the agent (ssh-add) and sign with that, or sign with ssh-keygen -Y sign", file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key %s: %w", file, err)
	}
	return k, nil
}

// AgentKeys are the keys of the agent at socket, in its order. They can be used
// until end is called.
func AgentKeys(socket string) (keys []Key, end func() error, err error) {
	if socket == "" {
		return nil, nil, errors.New("there is no SSH agent: SSH_AUTH_SOCK is not set")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot reach the SSH agent: %w", err)
	}
	if keys, err = agent.NewClient(conn).Signers(); err != nil {
		_ = conn.Close() // the first error matters
		return nil, nil, fmt.Errorf("cannot list the keys of the SSH agent: %w", err)
	}
	return keys, conn.Close, nil
}

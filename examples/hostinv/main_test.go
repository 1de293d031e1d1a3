package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
)

// host is a small SSH server that answers the collector as a host without
// /proc would: it finds the mark in the script and frames three sections.
func host(t *testing.T, accept ssh.PublicKey) (addr string, key ssh.PublicKey) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), accept.Marshal()) {
			return nil, fmt.Errorf("not this key")
		}
		return nil, nil
	}}
	cfg.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(raw, cfg) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String(), signer.PublicKey()
}

func serve(raw net.Conn, cfg *ssh.ServerConfig) {
	defer raw.Close()
	_, chans, reqs, err := ssh.NewServerConn(raw, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for n := range chans {
		ch, reqs, err := n.Accept()
		if err != nil {
			continue
		}
		for r := range reqs {
			r.Reply(r.Type == "exec", nil)
			if r.Type == "exec" {
				answer(ch)
				break
			}
		}
		go ssh.DiscardRequests(reqs)
		ch.Close()
	}
}

func answer(ch ssh.Channel) {
	script, _ := io.ReadAll(ch)
	_, rest, _ := strings.Cut(string(script), "mark='")
	mark, _, _ := strings.Cut(rest, "'")
	for _, s := range [][2]string{{"kernel", "3.10.0-862.9.1.el7.x86_64"}, {"boot", "d2cf5a55-550f-4407-adf6-1110d73a4fac"}} {
		fmt.Fprintf(ch, "\n%s B %s\n%s\n\n%s R 0\n\n%s E %s\n", mark, s[0], s[1], mark, mark, s[0])
	}
	fmt.Fprintf(ch, "\n%s Z\n", mark)
	ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
}

func TestExample(t *testing.T) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	dir := t.TempDir()
	id, known := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
	require.NoError(t, os.WriteFile(id, pem.EncodeToMemory(block), 0o600))
	key, err := ssh.NewPublicKey(pub)
	require.NoError(t, err)
	addr, hostKey := host(t, key)
	require.NoError(t, os.WriteFile(known, []byte("127.0.0.1 "+string(ssh.MarshalAuthorizedKey(hostKey))), 0o600))

	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-known-hosts", known, "-identity", id, addr}, &out))
	assert.Contains(t, out.String(), "kernel    3.10.0-862.9.1.el7.x86_64\n")
	assert.Contains(t, out.String(), "! listeners is truncated", "what did not come is said")

	out.Reset()
	require.NoError(t, run(t.Context(), []string{"-json", "-known-hosts", known, "-identity", id, addr}, &out))
	var inv hostinv.Inventory
	require.NoError(t, json.Unmarshal(out.Bytes(), &inv))
	assert.Equal(t, "d2cf5a55-550f-4407-adf6-1110d73a4fac", inv.BootID)

	require.NoError(t, os.WriteFile(known, nil, 0o600))
	err = run(t.Context(), []string{"-known-hosts", known, "-identity", id, addr}, &out)
	var unknown *hostinv.UnknownHostKeyError
	assert.ErrorAs(t, err, &unknown)
	assert.Error(t, run(t.Context(), nil, &out))
}

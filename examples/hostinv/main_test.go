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
	"regexp"
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
				answer(ch, string(r.Payload))
				break
			}
		}
		go ssh.DiscardRequests(reqs)
		ch.Close()
	}
}

func answer(ch ssh.Channel, script string) {
	if !strings.Contains(script, "mark=") { // it comes on standard input
		data, _ := io.ReadAll(ch)
		script = string(data)
	}
	mark := regexp.MustCompile("[0-9a-f]{32}").FindString(script)
	const uuid = "0b2f7f5e-6f0e-4a5e-9c53-2a1c2d8e5f10" // the host's own part of the mark
	fmt.Fprintf(ch, "\n%s K %s\n", mark, uuid)
	mark += uuid
	for _, s := range [][2]string{{"kernel", "\n" + mark + " I release\n3.10.0-862.9.1.el7.x86_64"}, {"boot", "d2cf5a55-550f-4407-adf6-1110d73a4fac"}} {
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
	assert.Contains(t, out.String(), "kernel     3.10.0-862.9.1.el7.x86_64\n")
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

	// Many: one that is not known does not keep the other from being printed.
	require.NoError(t, os.WriteFile(known, []byte("127.0.0.1 "+string(ssh.MarshalAuthorizedKey(hostKey))), 0o600))
	ini := filepath.Join(dir, "hosts.ini")
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(ini, []byte("[web]\nweb-90 ansible_host=127.0.0.1 ansible_port="+port+"\nweb-91 ansible_host=127.0.0.2 ansible_port="+port+"\n"), 0o600))
	out.Reset()
	err = run(t.Context(), []string{"-known-hosts", known, "-identity", id, "-ansible", ini, "-limit", "web"}, &out)
	assert.ErrorContains(t, err, "web-91: ")
	assert.Contains(t, out.String(), "== web-90\n")
	assert.Contains(t, out.String(), "3.10.0-862.9.1.el7.x86_64")
}

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// hostsKey finds the simulated hosts of a script.
type hostsKey struct{}

// simHosts are the simulated hosts of one script, all behind one address, each
// at a port of its own.
type simHosts struct {
	hosts     map[string]*host.Host
	speed     float64
	listeners []net.Listener
	wg        sync.WaitGroup
}

func (s *simHosts) close() {
	for _, l := range s.listeners {
		l.Close()
	}
	for _, h := range s.hosts {
		h.Close()
	}
	s.wg.Wait()
}

// TestInventoryScript runs the scenarios of testdata/script/inventory, with
// these commands besides testscript's:
//
//	exits STATUS upgradectl …  the command ends with exactly this status
//	simhosts NAME...           starts simulated hosts and writes ssh_config,
//	                           known_hosts, id, ports (NAME=PORT a line)
//	simhost NAME down|kernel|service  the host refuses connections, has
//	                           another kernel, loses its service
//	mode FILE PERM             the file has exactly these permissions
func TestInventoryScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script/inventory",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s := &simHosts{hosts: map[string]*host.Host{}, speed: 2}
			env.Defer(s.close)
			env.Values[hostsKey{}] = s
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("USERPROFILE", env.WorkDir)
			env.Setenv("LANG", "C")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"simhosts": cmdSimHosts,
			"simhost":  cmdSimHost,
			"mode":     cmdMode,
		},
	})
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE PERM")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func cmdSimHosts(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(hostsKey{}).(*simHosts)
	if neg || len(args) == 0 || len(s.hosts) > 0 {
		ts.Fatalf("usage, once in a script: simhosts NAME...")
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	block, err := ssh.MarshalPrivateKey(key, "")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("id"), pem.EncodeToMemory(block), 0o600))
	public, err := ssh.NewPublicKey(pub)
	ts.Check(err)
	var config, known, ports strings.Builder
	for i, name := range args {
		h, err := host.New(simHostSpec(name, i, string(ssh.MarshalAuthorizedKey(public))), host.Options{Speed: s.speed})
		ts.Check(err)
		h.Forward = func(ctx context.Context, addr string) (net.Conn, error) { return dialSelf(ctx, h, addr) }
		ts.Check(h.Start())
		s.hosts[name] = h
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		s.listeners = append(s.listeners, l)
		s.wg.Go(func() {
			for {
				raw, err := l.Accept()
				if err != nil {
					return
				}
				s.wg.Go(func() { h.ServeSSH(raw) })
			}
		})
		port := l.Addr().(*net.TCPAddr).Port
		fmt.Fprintf(&config, "Host %s\n  HostName 127.0.0.1\n  Port %d\n", name, port)
		fmt.Fprintf(&known, "[127.0.0.1]:%d %s\n", port, h.HostKey())
		fmt.Fprintf(&ports, "%s=%d\n", name, port)
		ts.Setenv("PORT_"+strings.ReplaceAll(name, "-", "_"), strconv.Itoa(port))
	}
	fmt.Fprintf(&config, "Host *\n  User root\n  IdentityFile %s\n  UserKnownHostsFile %s\n", ts.MkAbs("id"), ts.MkAbs("known_hosts"))
	ts.Check(os.WriteFile(ts.MkAbs("ssh_config"), []byte(config.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("known_hosts"), []byte(known.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("ports"), []byte(ports.String()), 0o600))
}

// dialSelf connects a simulated host with a port of its own.
func dialSelf(ctx context.Context, h *host.Host, addr string) (net.Conn, error) {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return nil, err
	}
	real, ok := h.Endpoint(port)
	if !ok {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", real)
}

func simHostSpec(name string, i int, authorized string) host.Spec {
	return host.Spec{
		Name: name, Addr: fmt.Sprintf("172.31.0.%d", 90+i), Hostname: name,
		Release: "CentOS Linux release 7.5.1804 (Core)", Kernel: "3.10.0-862.9.1.el7.x86_64",
		UpdateRelease: "CentOS Linux release 7.9.2009 (Core)", UpdateKernel: "3.10.0-1160.6.1.el7.x86_64",
		Users:      []host.User{{Name: "root", AuthorizedKeys: []string{strings.TrimSpace(authorized)}}, {Name: "app", UID: 1000}},
		Units:      []host.Unit{{Name: "docker", Enabled: true, Active: true}, {Name: "idle"}},
		Containers: []host.Container{{Name: "cache", Image: "redis:6", Restart: "always", Ports: []host.Port{{Host: 8082, Container: 6379}}}},
		Processes:  []host.Process{{Args: []string{"/usr/bin/java", "-jar", "order.jar"}, Cwd: "/srv/order", User: "app", Ports: []int{8080}}},
	}
}

func cmdSimHost(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(hostsKey{}).(*simHosts)
	if neg || len(args) != 2 || s.hosts[args[0]] == nil {
		ts.Fatalf("usage: simhost NAME down")
	}
	switch args[1] {
	case "down":
		s.hosts[args[0]].Close()
	default:
		ts.Fatalf("simhost knows no %s", args[1])
	}
}

package firstbox

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// options reads the flags that stand before operands: values lists the letters
// that take a value.
func options(args []string, plain, values string) (is map[byte]string, rest []string, bad string) {
	is = map[byte]string{}
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			return is, append(rest, args...), ""
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		for i := 1; i < len(a); i++ {
			switch {
			case strings.IndexByte(values, a[i]) >= 0:
				v := a[i+1:]
				if v == "" {
					if len(args) == 0 {
						return is, rest, a
					}
					v, args = args[0], args[1:]
				}
				is[a[i]] = v
				i = len(a)
			case strings.IndexByte(plain, a[i]) >= 0:
				is[a[i]] = "yes"
			default:
				return is, rest, a
			}
		}
	}
	return is, rest, ""
}

func seconds(s string, otherwise float64) time.Duration {
	if s == "" {
		return time.Duration(otherwise * float64(time.Second))
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < 0 {
		return 0
	}
	return time.Duration(f * float64(time.Second))
}

// cmdArping is iputils' arping: -D asks who else has an address (status 1:
// somebody), -U and -A tell everybody who has it.
func (s *Site) cmdArping(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	is, rest, bad := options(p.Args[1:], "DUAqfb", "cwIsi")
	if bad != "" || len(rest) != 1 {
		return p.Refusef("option %s", bad)
	}
	ip, err := netip.ParseAddr(rest[0])
	if err != nil {
		return p.Failf(2, "unknown host %s", rest[0])
	}
	dev := is['I']
	if dev == "" {
		dev = "eth0"
	}
	s.mu.Lock()
	n := m.nic(dev)
	var macs []string
	sent := false
	if n != nil {
		macs = s.probe(m, dev, ip)
		if is['U'] != "" || is['A'] != "" {
			src := ip
			if is['s'] != "" {
				if src, err = netip.ParseAddr(is['s']); err != nil {
					s.mu.Unlock()
					return p.Failf(2, "bad source %s", is['s'])
				}
			}
			if sent = n.has(src); sent {
				s.announce(n.segment, src, n.mac)
			}
		}
	}
	s.mu.Unlock()
	if n == nil {
		return p.Failf(2, "Interface %q not found", dev)
	}
	fmt.Fprintf(p.Stdout, "ARPING %s from %s %s\n", ip, "0.0.0.0", dev)
	if is['U'] != "" || is['A'] != "" {
		if !sent {
			return p.Failf(2, "bind: Cannot assign requested address")
		}
		fmt.Fprintf(p.Stdout, "Sent 1 probes (1 broadcast(s))\nReceived 0 response(s)\n")
		return 0
	}
	if len(macs) == 0 {
		if p.Host.Sleep(ctx, min(seconds(is['w'], 2), 5*time.Second)) != nil {
			return 143
		}
	}
	for _, mac := range macs {
		fmt.Fprintf(p.Stdout, "Unicast reply from %s [%s]  0.800ms\n", ip, strings.ToUpper(mac))
	}
	fmt.Fprintf(p.Stdout, "Sent 1 probes (1 broadcast(s))\nReceived %d response(s)\n", len(macs))
	if is['D'] != "" {
		return b2i(len(macs) > 0)
	}
	return b2i(len(macs) == 0)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// cmdPing is ping -c N [-w S] [-W S] [-q] HOST.
func (s *Site) cmdPing(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	is, rest, bad := options(p.Args[1:], "qn", "cwWIi")
	if bad != "" || len(rest) != 1 || is['c'] == "" {
		return p.Refusef("only ping -c N [-w S] [-W S] [-q] [-n] [-I X] HOST")
	}
	ip, err := s.lookup(m, rest[0])
	if err != nil {
		return p.Failf(2, "unknown host %s", rest[0])
	}
	fmt.Fprintf(p.Stdout, "PING %s (%s) 56(84) bytes of data.\n", rest[0], ip)
	if s.ping(m, ip) {
		fmt.Fprintf(p.Stdout, "64 bytes from %s: icmp_seq=1 ttl=64 time=0.300 ms\n\n--- %s ping statistics ---\n1 packets transmitted, 1 received, 0%% packet loss, time 0ms\n", ip, rest[0])
		return 0
	}
	if p.Host.Sleep(ctx, min(seconds(is['w']+is['W'], 1), 10*time.Second)) != nil {
		return 143
	}
	fmt.Fprintf(p.Stdout, "\n--- %s ping statistics ---\n1 packets transmitted, 0 received, 100%% packet loss, time 0ms\n", rest[0])
	return 1
}

// ping asks once.
func (s *Site) ping(m *Machine, ip netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	far, err := s.reach(m, ip)
	return err == nil && !slices.Contains(s.cfg.Faults.Unreachable, far.Name)
}

// cmdGetent is getent hosts NAME, and ahosts.
func (s *Site) cmdGetent(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 3 || p.Args[1] != "hosts" && p.Args[1] != "ahosts" && p.Args[1] != "ahostsv4" {
		return p.Refusef("only getent hosts NAME")
	}
	ip, err := s.lookup(s.of(p), p.Args[2])
	if err != nil {
		return 2
	}
	fmt.Fprintf(p.Stdout, "%-15s %s\n", ip, p.Args[2])
	return 0
}

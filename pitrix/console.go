package pitrix

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// A ConsoleHost is a name under which the installation serves its pages, and
// the address behind it.
type ConsoleHost struct {
	Address netip.Addr `json:"address"`
	Name    string     `json:"name"`
}

// ParseDumpHosts reads the output of dump_hosts.py: lines of an address and
// names, as a hosts file has them.
func ParseDumpHosts(out []byte) ([]ConsoleHost, error) {
	var hosts []ConsoleHost
	for line := range strings.SplitSeq(string(out), "\n") {
		text, _, _ := strings.Cut(line, "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil || len(words) == 1 {
			return nil, fmt.Errorf("cannot read the line %q of dump_hosts.py; it should be an address and names", firstBytes(line, 100))
		}
		for _, name := range words[1:] {
			hosts = append(hosts, ConsoleHost{a, name})
		}
	}
	if len(hosts) == 0 {
		return nil, errors.New("dump_hosts.py names no page")
	}
	return hosts, nil
}

// Console asks the firstbox for the names of the pages.
func (f *Firstbox) Console(ctx context.Context, scripts Scripts) ([]ConsoleHost, error) {
	out, err := output(ctx, f.Host, scripts.DumpHosts())
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the names of the console: %w", err)
	}
	return ParseDumpHosts([]byte(out))
}

// A ConsoleProbe is one request for the front page of a ConsoleHost.
type ConsoleProbe struct {
	Host   ConsoleHost   `json:"host"`
	Status int           `json:"status"` // of HTTP; 0: no answer
	Err    string        `json:"error,omitempty"`
	Took   time.Duration `json:"took_ns"`
}

// OK reports whether a page or a redirection came. A 5xx is haproxy's word for
// no server behind it, and a 404 that of a wrong one.
func (p ConsoleProbe) OK() bool { return p.Status >= 200 && p.Status < 400 }

const probeTimeout = 10 * time.Second

// ProbeConsole asks every host for its front page, one after the other, at its
// address and under its name, each for ten seconds at most. scheme is "http"
// or "https"; dial makes the connections, such as those of an SSH connection
// to the firstbox, and nil makes them from here. Redirections are not followed.
func ProbeConsole(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), scheme string, hosts []ConsoleHost) []ConsoleProbe {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	probes := make([]ConsoleProbe, 0, len(hosts))
	for _, h := range hosts {
		probes = append(probes, probe(ctx, dial, scheme, h))
	}
	return probes
}

func probe(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), scheme string, h ConsoleHost) ConsoleProbe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return dial(ctx, network, net.JoinHostPort(h.Address.String(), port))
		},
		// Nothing is sent that has to be kept secret, and consoles have
		// certificates of their own making; the question is who answers at all.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: h.Name},
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	p := ConsoleProbe{Host: h}
	start := time.Now()
	defer func() { p.Took = time.Since(start) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+h.Name+"/", nil)
	if err != nil {
		p.Err = err.Error()
		return p
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		p.Err = err.Error()
		return p
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		p.Err = err.Error()
		return p
	}
	p.Status = res.StatusCode
	return p
}

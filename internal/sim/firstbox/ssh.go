package firstbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// changedKey is what ssh says of a host key that is not the known one.
const changedKey = `@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Add correct host key in /root/.ssh/known_hosts to get rid of this message.
`

const knownHostsFile = "/root/.ssh/known_hosts"

// knownKeys are the keys that a file has for a host.
func knownKeys(text, name string) []string {
	var out []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 3 && slices.Contains(strings.Split(f[0], ","), name) {
			out = append(out, f[1]+" "+f[2])
		}
	}
	return out
}

// login is what the ssh client of a machine does up to the command: it
// resolves the name, connects, compares the host key with its known_hosts, and
// offers root's key.
func (s *Site) login(m *Machine, name string) (*Machine, string, error) {
	ip, err := s.lookup(m, name)
	if err != nil {
		return nil, fmt.Sprintf("ssh: Could not resolve hostname %s: Name or service not known\n", name), err
	}
	s.mu.Lock()
	far, err := s.reach(m, ip)
	s.mu.Unlock()
	if err != nil || far.Host == nil || !far.Host.Up() {
		why := "No route to host"
		if err == nil {
			err, why = errors.New("connection refused"), "Connection refused"
		}
		return nil, fmt.Sprintf("ssh: connect to host %s port 22: %s\n", name, why), err
	}
	if slices.Contains(s.cfg.Faults.SSH255, far.Name) {
		return nil, "ssh_exchange_identification: Connection closed by remote host\n", errors.New("connection closed")
	}
	data, _ := m.Host.ReadFile(knownHostsFile)
	key := far.Host.HostKey()
	for _, id := range slices.Compact([]string{name, ip.String()}) {
		known := knownKeys(string(data), id)
		switch {
		case len(known) > 0 && !slices.Contains(known, key):
			return nil, changedKey + "Host key verification failed.\n", fmt.Errorf("the host key of %s has changed", id)
		case len(known) == 0 && id == name:
			// StrictHostKeyChecking no is in the installer's ssh_config: a new
			// key is taken, a changed one is not.
			_ = m.Host.Append(knownHostsFile, []byte(name+","+ip.String()+" "+key+"\n"))
		}
	}
	own, err := m.Host.ReadFile("/root/.ssh/id_rsa.pub")
	allowed, _ := far.Host.ReadFile("/root/.ssh/authorized_keys")
	if err != nil || !strings.Contains(string(allowed), strings.TrimSpace(string(own))) {
		return nil, fmt.Sprintf("root@%s: Permission denied (publickey,password).\n", name), errors.New("permission denied")
	}
	return far, "", nil
}

// remote runs a command over ssh; its output comes merged, as a terminal shows
// it.
func (s *Site) remote(ctx context.Context, m *Machine, name, command string) (status int, out []byte, far *Machine) {
	far, said, err := s.login(m, name)
	if err != nil {
		return 255, []byte(said), nil
	}
	status, out, err = far.Host.Run(ctx, command)
	if err != nil {
		return 255, append(out, fmt.Sprintf("Connection to %s closed by remote host.\n", name)...), far
	}
	return status, out, far
}

// cmdSSH is ssh [-o X]… [-n] [-q] [-T] [root@]HOST COMMAND.
func (s *Site) cmdSSH(ctx context.Context, p *host.Proc) int {
	args := p.Args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch {
		case args[0] == "-o" && len(args) > 1:
			args = args[1:]
		case slices.Contains([]string{"-n", "-q", "-T", "-4", "-x"}, args[0]), strings.HasPrefix(args[0], "-o"):
		default:
			return p.Refusef("option %s", args[0])
		}
		args = args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) < 2 {
		return p.Refusef("ssh without a command")
	}
	if args[1] == "--" {
		args = slices.Delete(args, 1, 2)
	}
	name := strings.TrimPrefix(args[0], "root@")
	status, out, far := s.remote(ctx, s.of(p), name, strings.Join(args[1:], " "))
	if far == nil {
		_, _ = p.Stderr.Write(out)
	} else {
		_, _ = p.Stdout.Write(out)
	}
	return status
}

// cmdSSHKeygen is ssh-keygen -R, -F and -l of known_hosts, as version 9
// answers: -R says "not found" with status 0, and a missing file is 255.
func (s *Site) cmdSSHKeygen(_ context.Context, p *host.Proc) int {
	is, rest, bad := options(p.Args[1:], "lHq", "fRFE")
	if bad != "" || len(rest) > 0 {
		return p.Refusef("option %s", bad)
	}
	file := is['f']
	if file == "" {
		file = knownHostsFile
	}
	file = p.Path(file)
	data, err := p.Host.ReadFile(file)
	if is['l'] != "" {
		return p.Refusef("-l")
	}
	name := is['R'] + is['F']
	if (is['R'] == "") == (is['F'] == "") {
		return p.Refusef("only -R NAME and -F NAME")
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "Cannot stat %s: No such file or directory\n", file)
		return 255
	}
	var kept strings.Builder
	found := 0
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) >= 3 && slices.Contains(strings.Split(f[0], ","), name) {
			found++
			fmt.Fprintf(p.Stdout, "# Host %s found: line %d\n", name, found)
			if is['F'] != "" {
				fmt.Fprint(p.Stdout, line)
			}
			continue
		}
		kept.WriteString(line)
	}
	if is['F'] != "" {
		return b2i(found == 0)
	}
	if found == 0 {
		fmt.Fprintf(p.Stderr, "Host %s not found in %s\n", name, file)
		return 0
	}
	_ = p.Host.WriteFile(file+".old", data, 0o600)
	_ = p.Host.WriteFile(file, []byte(kept.String()), 0o600)
	fmt.Fprintf(p.Stdout, "%s updated.\nOriginal contents retained as %s.old\n", file, file)
	return 0
}

// cmdSSHKeyscan is ssh-keyscan [-t TYPE] [-T S] [-p 22] HOST….
func (s *Site) cmdSSHKeyscan(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	is, rest, bad := options(p.Args[1:], "H", "tTp")
	if bad != "" || is['p'] != "" && is['p'] != "22" || is['H'] != "" {
		return p.Refusef("option %s", bad)
	}
	for _, name := range rest {
		ip, err := s.lookup(m, name)
		if err != nil {
			fmt.Fprintf(p.Stderr, "getaddrinfo %s: Name or service not known\n", name)
			continue
		}
		s.mu.Lock()
		far, err := s.reach(m, ip)
		s.mu.Unlock()
		if err == nil && far.Host != nil && far.Host.Up() {
			fmt.Fprintf(p.Stdout, "%s %s\n", name, far.Host.HostKey())
		}
	}
	return 0
}

// cmdCurl is curl over plain HTTP inside the site.
func (s *Site) cmdCurl(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	limit, format, out, url := 30*time.Second, "", "", ""
	args := p.Args[1:]
	fail, head := false, false
	header := http.Header{}
	resolve := map[string]string{}
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		value := func() string {
			if len(args) == 0 {
				return ""
			}
			v := args[0]
			args = args[1:]
			return v
		}
		switch a {
		case "-s", "-S", "-sS", "-L", "-k", "-sk", "--silent", "--show-error":
		case "-f", "-fsS", "-sf", "-fs", "--fail":
			fail = true
		case "-I", "-sI":
			head = true
		case "-m", "--max-time", "--connect-timeout":
			limit = seconds(value(), 30)
		case "-o", "--output":
			out = value()
		case "-w", "--write-out":
			format = value()
		case "-H":
			k, v, _ := strings.Cut(value(), ":")
			header.Set(k, strings.TrimSpace(v))
		case "--resolve":
			f := strings.SplitN(value(), ":", 3)
			if len(f) == 3 {
				resolve[f[0]+":"+f[1]] = net.JoinHostPort(f[2], f[1])
			}
		default:
			if strings.HasPrefix(a, "-") || url != "" {
				return p.Refusef("option %s", a)
			}
			url = a
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil || req.URL.Scheme != "http" {
		return p.Refusef("url %s", url)
	}
	req.Header = header
	if h := header.Get("Host"); h != "" {
		req.Host = h
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		if to := resolve[addr]; to != "" {
			addr = to
		}
		return s.Dial(ctx, m, addr)
	}}
	code, status := 0, 0
	resp, err := tr.RoundTrip(req)
	if err != nil {
		fmt.Fprintf(p.Stderr, "curl: (7) Failed to connect: %v\n", err)
		status = 7
	} else {
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		code = resp.StatusCode
		if fail && code >= 400 {
			fmt.Fprintf(p.Stderr, "curl: (22) The requested URL returned error: %d\n", code)
			status = 22
		} else if out == "" {
			_, _ = p.Stdout.Write(body)
		} else if out != "/dev/null" {
			_ = p.Host.WriteFile(p.Path(out), body, 0o644)
		}
	}
	if format != "" {
		fmt.Fprint(p.Stdout, strings.NewReplacer("%{http_code}", fmt.Sprintf("%03d", code), `\n`, "\n").Replace(format))
	}
	return status
}

var firstboxAddr = netip.MustParseAddr("192.0.2.2")

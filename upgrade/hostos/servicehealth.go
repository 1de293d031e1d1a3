package hostos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// Dial opens a connection as the host that will use the service would:
// DialContext of *hostinv.Conn goes through that host.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// probeTime bounds one question to a service.
const probeTime = 5 * time.Second

// Probe asks every port of s at ip once: an HTTP GET of s.Health has to answer
// with an expected status, or, without s.Health, a TCP connection has to open.
// A redirection is not followed. It says nothing about a service without ports.
func Probe(ctx context.Context, dial Dial, ip string, s Service) error {
	for _, port := range s.Ports {
		if err := ask(ctx, dial, ip, port, s, s.Health); err != nil {
			return err
		}
	}
	return nil
}

// ask asks one port once; path "" = a connection.
func ask(ctx context.Context, dial Dial, ip string, port int, s Service, path string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	addr := net.JoinHostPort(ip, strconv.Itoa(port))
	var err error
	if path == "" {
		var c net.Conn
		if c, err = dial(ctx, "tcp", addr); err == nil {
			err = c.Close()
		}
	} else {
		err = get(ctx, dial, addr, path, s.Expect)
	}
	if err != nil {
		return fmt.Errorf("service %s does not answer on %s: %w", s.Name, addr, err)
	}
	return nil
}

func get(ctx context.Context, dial Dial, addr, path string, expect []StatusRange) error {
	tr := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "upgradectl-probe")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxOutput)); err != nil {
		return err
	}
	if !expected(resp.StatusCode, expect) {
		return fmt.Errorf("GET %s answered %s", path, resp.Status)
	}
	return nil
}

func expected(status int, expect []StatusRange) bool {
	if len(expect) == 0 {
		return status/100 == 2
	}
	for _, r := range expect {
		if status >= r.From && status <= r.To {
			return true
		}
	}
	return false
}

// CheckService looks once whether s is healthy: Probe, its HealthCommand on the
// host, and, where it has neither, that it runs.
func CheckService(ctx context.Context, h Host, dial Dial, ip string, s Service) error {
	err := Probe(ctx, dial, ip, s)
	if err == nil && s.HealthCommand != "" {
		ctx, cancel := context.WithTimeout(ctx, 4*probeTime)
		defer cancel()
		if _, err = output(ctx, h, asUser(s, s.HealthCommand), nil); err != nil {
			err = fmt.Errorf("service %s is not healthy: its health command: %w", s.Name, err)
		}
	}
	asked := len(s.Ports) > 0 || s.HealthCommand != ""
	if s.Kind == Supervisor && h != nil && (err != nil || !asked) {
		// Why a program does not answer is known to supervisord.
		if why := checkPrograms(ctx, h, s); why != nil && (err == nil || errors.Is(why, errGaveUp)) {
			return why
		}
		return err
	}
	if err != nil || asked {
		return err
	}
	up, err := ServiceRunning(ctx, h, s)
	if err == nil && !up {
		err = fmt.Errorf("service %s does not run", s.Name)
	}
	return err
}

// asUser is the command line that runs cmd in the service's directory as its
// user.
func asUser(s Service, cmd string) string {
	if s.Dir != "" {
		cmd = "cd " + shellq.Quote(s.Dir) + " || exit\n" + cmd
	}
	if s.User != "" && s.User != "root" {
		return "su -s /bin/sh " + shellq.Quote(s.User) + " -c " + shellq.Quote(cmd)
	}
	return cmd
}

// WaitHealthy blocks until CheckService has succeeded need times in a row,
// asking every poll (0: 3 seconds). The error of an ended wait says what the
// service answered last. A program that supervisord has given up on (FATAL) ends
// it at once: it does not come back by itself. h may be nil for a service that has ports and no
// HealthCommand.
func WaitHealthy(ctx context.Context, h Host, dial Dial, ip string, s Service, poll time.Duration, need int) error {
	t := newTicker(poll)
	defer t.Stop()
	var last error
	for ok := 0; ; {
		err := CheckService(ctx, h, dial, ip, s)
		if err == nil {
			if ok++; ok >= need {
				return nil
			}
		} else if errors.Is(err, errGaveUp) {
			return err
		} else {
			if ok = 0; ctx.Err() == nil {
				last = err
			}
		}
		select {
		case <-ctx.Done():
			if last == nil {
				last = errors.New("it had just begun to answer")
			}
			return fmt.Errorf("service %s not healthy: %w (%v)", s.Name, context.Cause(ctx), last)
		case <-t.C:
		}
	}
}

// WaitWarm blocks until s may have traffic: after its StartGrace it is healthy,
// has had its warm-up, and still is healthy. Its StartTimeout bounds all of it.
func WaitWarm(ctx context.Context, h Host, dial Dial, ip string, s Service, o ServiceOptions) error {
	ctx, cancel := within(ctx, s.StartTimeout)
	defer cancel()
	if err := pause(ctx, s.StartGrace); err != nil {
		return fmt.Errorf("service %s not healthy: %w", s.Name, err)
	}
	need := s.Healthy
	if need == 0 {
		need = o.Healthy
	}
	if need == 0 {
		need = 3
	}
	if err := WaitHealthy(ctx, h, dial, ip, s, o.Poll, need); err != nil {
		return err
	}
	if len(s.Warmup.Paths) == 0 && s.Warmup.Duration == 0 {
		return nil
	}
	n, err := warm(ctx, dial, ip, s, o)
	if err != nil {
		return fmt.Errorf("service %s not warm after %d requests: %w", s.Name, n, err)
	}
	o.say("%s had %d requests to warm up", s.Name, n)
	return WaitHealthy(ctx, h, dial, ip, s, o.Poll, need)
}

// warm sends the warm-up and counts its requests. A bad answer is what a cold
// service may give: the same request is made again after a poll.
func warm(ctx context.Context, dial Dial, ip string, s Service, o ServiceOptions) (n int, err error) {
	end := time.Now().Add(s.Warmup.Duration)
	if len(s.Warmup.Paths) == 0 {
		return 0, pause(ctx, s.Warmup.Duration)
	}
	t := newTicker(o.Poll)
	defer t.Stop()
	for round := 0; round < max(s.Warmup.Count, 1) || time.Now().Before(end); round++ {
		for _, port := range s.Ports {
			for _, path := range s.Warmup.Paths {
				for {
					n++
					err := ask(ctx, dial, ip, port, s, path)
					if err == nil {
						break
					}
					select {
					case <-ctx.Done():
						return n, fmt.Errorf("%w (%v)", context.Cause(ctx), err)
					case <-t.C:
					}
				}
			}
		}
		if round+1 >= max(s.Warmup.Count, 1) && s.Warmup.Duration > 0 {
			// The counted rounds are over: the rest is spread over the time.
			select {
			case <-ctx.Done():
				return n, context.Cause(ctx)
			case <-t.C:
			}
		}
	}
	return n, nil
}

// pause waits d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// listed joins words for a message, at most n of them.
func listed(words []string, n int) string {
	if len(words) > n {
		return strings.Join(words[:n], ", ") + fmt.Sprintf(" and %d more", len(words)-n)
	}
	return strings.Join(words, ", ")
}

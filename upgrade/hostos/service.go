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

// A ServiceKind says how a service is run on its host.
type ServiceKind string

// The kinds of service.
const (
	Java      ServiceKind = "java"      // a Java process started by hand in its directory
	Compose   ServiceKind = "compose"   // a docker-compose project in its directory
	Container ServiceKind = "container" // one container, by name
	Unit      ServiceKind = "unit"      // a systemd unit
)

// A Service is something that has to run after an upgrade as it ran before.
type Service struct {
	Name      string      `json:"name"`
	Kind      ServiceKind `json:"kind"`
	Dir       string      `json:"dir,omitempty"`       // working directory (java, compose)
	User      string      `json:"user,omitempty"`      // who runs it (java); "" = root
	Container string      `json:"container,omitempty"` // name (container)
	Unit      string      `json:"unit,omitempty"`      // name (unit)
	Start     string      `json:"start,omitempty"`     // command line run in Dir as User (java)
	Ports     []int       `json:"ports,omitempty"`     // TCP ports it serves
	Health    string      `json:"health,omitempty"`    // path of an HTTP GET on each port; "" = a TCP connection is enough
}

// ServiceRunning tells whether s runs on h: for Java, a java process whose
// working directory is s.Dir; for Compose, all containers of the project, at
// least one.
func ServiceRunning(ctx context.Context, h Host, s Service) (bool, error) {
	var err error
	switch s.Kind {
	case Java:
		pids, err := javaPIDs(ctx, h, s.Dir)
		return len(pids) > 0, err
	case Compose:
		var out string
		// -q gives the IDs of all containers of the project, also of stopped ones.
		out, err = output(ctx, h, "cd "+shellq.Quote(s.Dir)+` && ids=$(docker-compose ps -q) && [ -n "$ids" ] && docker inspect --format '{{.State.Status}}' $ids`, nil)
		if err == nil {
			return allLines(out, "running"), nil
		}
	case Container:
		var out string
		out, err = output(ctx, h, "docker inspect --format '{{.State.Status}}' "+shellq.Quote(s.Container), nil)
		if err == nil {
			return strings.TrimSpace(out) == "running", nil
		}
	case Unit:
		_, err = output(ctx, h, "systemctl is-active "+shellq.Quote(s.Unit)+" >/dev/null", nil)
		if err == nil {
			return true, nil
		}
	default:
		return false, fmt.Errorf("cannot look at service %s: unknown kind %q", s.Name, s.Kind)
	}
	if _, ran := exitStatus(err); ran {
		return false, nil // the command's way of saying no
	}
	return false, fmt.Errorf("cannot look at service %s: %w", s.Name, err)
}

// StartService starts s where it does not run yet. It returns when the start
// command has returned; use WaitHealthy for the service itself.
func StartService(ctx context.Context, h Host, s Service) error {
	up, err := ServiceRunning(ctx, h, s)
	if err != nil || up {
		return err
	}
	var cmd string
	switch s.Kind {
	case Java:
		// Everything is redirected, so that the process keeps no handle of our
		// session, and setsid takes it out of the session's process group.
		inner := "cd " + shellq.Quote(s.Dir) + " && setsid " + s.Start + " >/dev/null 2>&1 </dev/null &"
		cmd = inner
		if s.User != "" && s.User != "root" {
			cmd = "su -s /bin/sh " + shellq.Quote(s.User) + " -c " + shellq.Quote(inner)
		}
	case Compose:
		cmd = "cd " + shellq.Quote(s.Dir) + " && docker-compose up -d"
	case Container:
		cmd = "docker start " + shellq.Quote(s.Container)
	case Unit:
		cmd = "systemctl start " + shellq.Quote(s.Unit)
	}
	if _, err := output(ctx, h, cmd, nil); err != nil {
		return fmt.Errorf("cannot start service %s: %w", s.Name, err)
	}
	return nil
}

// StopService stops s and waits until it is gone, asking every poll. A
// process that ignores SIGTERM until ctx ends is an error: killing it would
// cut what it is still serving, and that is a person's decision.
func StopService(ctx context.Context, h Host, s Service, poll time.Duration) error {
	var cmd string
	switch s.Kind {
	case Java:
		pids, err := javaPIDs(ctx, h, s.Dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		cmd = "kill " + strings.Join(pids, " ")
	case Compose:
		cmd = "cd " + shellq.Quote(s.Dir) + " && docker-compose stop"
	case Container:
		cmd = "docker stop " + shellq.Quote(s.Container)
	case Unit:
		cmd = "systemctl stop " + shellq.Quote(s.Unit)
	default:
		return fmt.Errorf("cannot stop service %s: unknown kind %q", s.Name, s.Kind)
	}
	if _, err := output(ctx, h, cmd, nil); err != nil {
		return fmt.Errorf("cannot stop service %s: %w", s.Name, err)
	}
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		up, err := ServiceRunning(ctx, h, s)
		if err != nil {
			return err
		}
		if !up {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("service %s still runs after it was asked to stop: %w", s.Name, ctx.Err())
		case <-t.C:
		}
	}
}

// Dial opens a connection as the host that will use the service would:
// DialContext of *hostinv.Conn goes through that host.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Probe asks every port of s at ip once: an HTTP GET of s.Health has to
// answer 2xx, or, without s.Health, a TCP connection has to open.
func Probe(ctx context.Context, dial Dial, ip string, s Service) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, port := range s.Ports {
		addr := net.JoinHostPort(ip, strconv.Itoa(port))
		if err := probe(ctx, dial, addr, s.Health); err != nil {
			return fmt.Errorf("service %s does not answer on %s: %w", s.Name, addr, err)
		}
	}
	return nil
}

func probe(ctx context.Context, dial Dial, addr, path string) error {
	if path == "" {
		c, err := dial(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
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
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("GET %s answered %s", path, resp.Status)
	}
	return nil
}

// WaitHealthy blocks until Probe has succeeded need times in a row, asking
// every poll. The error of an ended wait says what the service answered last.
func WaitHealthy(ctx context.Context, dial Dial, ip string, s Service, poll time.Duration, need int) error {
	t := time.NewTicker(poll)
	defer t.Stop()
	var last error
	for ok := 0; ; {
		err := Probe(ctx, dial, ip, s)
		if err == nil {
			if ok++; ok >= need {
				return nil
			}
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
			return fmt.Errorf("service %s not healthy: %w (%v)", s.Name, ctx.Err(), last)
		case <-t.C:
		}
	}
}

// javaPIDs gives the IDs of the java processes whose working directory is
// dir. It reads /proc itself: ps and pgrep differ between releases, and lose
// directories with blanks.
func javaPIDs(ctx context.Context, h Host, dir string) ([]string, error) {
	out, err := output(ctx, h, `for p in /proc/[0-9]*; do
	c=$(readlink "$p/cwd" 2>/dev/null) || continue
	[ "$c" = `+shellq.Quote(dir)+` ] || continue
	a=$(tr '\000' '\n' <"$p/cmdline" 2>/dev/null | head -n 1)
	case "${a##*/}" in java) echo "${p#/proc/}";; esac
done
exit 0`, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot list java processes in %s: %w", dir, err)
	}
	pids := strings.Fields(out)
	for _, p := range pids {
		if n, err := strconv.Atoi(p); err != nil || n < 2 {
			return nil, fmt.Errorf("cannot list java processes in %s: unexpected answer %q", dir, firstBytes(out, 80))
		}
	}
	return pids, nil
}

func allLines(out, want string) bool {
	l := strings.Fields(out)
	for _, s := range l {
		if s != want {
			return false
		}
	}
	return len(l) > 0
}

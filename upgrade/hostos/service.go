package hostos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
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
	Start     string      `json:"start,omitempty"`     // /bin/sh command line, run in Dir as User, detached (java); no login files are read
	Ports     []int       `json:"ports,omitempty"`     // TCP ports it serves
	Health    string      `json:"health,omitempty"`    // path of an HTTP GET on each port; "" = a TCP connection is enough
}

// check refuses what could not be meant, or what a program would take for an
// option.
func (s Service) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("service %s: %s", s.Name, fmt.Sprintf(format, args...))
	}
	for _, v := range []string{s.Dir, s.User, s.Container, s.Unit, s.Start} {
		if !shellq.Valid(v) {
			return bad("%q holds a NUL byte", v)
		}
	}
	switch s.Kind {
	case Java, Compose:
		if !path.IsAbs(s.Dir) {
			return bad("directory %q is not absolute", s.Dir)
		}
		if strings.HasPrefix(s.User, "-") {
			return bad("%q is no user", s.User)
		}
	case Container:
		if s.Container == "" || strings.HasPrefix(s.Container, "-") {
			return bad("%q is no container", s.Container)
		}
	case Unit:
		if s.Unit == "" || strings.HasPrefix(s.Unit, "-") {
			return bad("%q is no unit", s.Unit)
		}
	default:
		return bad("unknown kind %q", s.Kind)
	}
	return nil
}

// A runState says how much of a service runs: a Compose project may run in
// part, a unit may be on its way.
type runState int

const (
	gone runState = iota
	partly
	running
)

// state looks at s. A command that ran and failed is its way of saying no.
func state(ctx context.Context, h Host, s Service) (runState, error) {
	if err := s.check(); err != nil {
		return gone, err
	}
	const status = "docker inspect --format '{{.State.Status}}' "
	var out string
	var err error
	switch s.Kind {
	case Java:
		pids, err := javaPIDs(ctx, h, s.Dir, false)
		if err != nil {
			return gone, fmt.Errorf("cannot look at service %s: %w", s.Name, err)
		}
		if len(pids) > 0 {
			return running, nil
		}
		return gone, nil
	case Compose:
		// -q gives the IDs of all containers of the project, also of stopped ones.
		out, err = output(ctx, h, "cd "+shellq.Quote(s.Dir)+` && ids=$(docker-compose ps -q) && [ -n "$ids" ] && `+status+"$ids", nil)
	case Container:
		out, err = output(ctx, h, status+shellq.Quote(s.Container), nil)
	case Unit:
		// It fails for every state but active; the state is what counts.
		out, err = output(ctx, h, "systemctl is-active "+shellq.Quote(s.Unit)+" || exit 0", nil)
	}
	if err != nil {
		if _, ran := exitStatus(err); ran {
			return gone, nil
		}
		return gone, fmt.Errorf("cannot look at service %s: %w", s.Name, err)
	}
	return sum(strings.Fields(out)), nil
}

// sum makes one state of those of containers or of a unit.
func sum(states []string) runState {
	up, down := 0, 0
	for _, s := range states {
		switch s {
		case "running", "active", "reloading":
			up++
		case "created", "exited", "dead", "inactive", "failed", "unknown":
			down++
		}
	}
	switch {
	case len(states) > 0 && up == len(states):
		return running
	case down == len(states):
		return gone
	}
	return partly
}

// ServiceRunning tells whether s runs on h: for Java, a java process of the
// host itself whose working directory is s.Dir; for Compose, all containers of
// the project, at least one.
func ServiceRunning(ctx context.Context, h Host, s Service) (bool, error) {
	st, err := state(ctx, h, s)
	return st == running, err
}

// StartService starts s where it does not run yet. It returns when the start
// command has returned, for Java when it is launched; use WaitHealthy for the
// service itself.
func StartService(ctx context.Context, h Host, s Service) error {
	up, err := ServiceRunning(ctx, h, s)
	if err != nil || up {
		return err
	}
	var cmd string
	switch s.Kind {
	case Java:
		if strings.TrimSpace(s.Start) == "" {
			return fmt.Errorf("cannot start service %s: it has no start command", s.Name)
		}
		// Everything is redirected, so that the process keeps no handle of our
		// session, and setsid takes it out of the session's process group. The
		// directory is entered outside the background job: that it is missing
		// must be seen.
		cmd = "cd " + shellq.Quote(s.Dir) + " || exit\nsetsid /bin/sh -c " + shellq.Quote(s.Start) + " >/dev/null 2>&1 </dev/null &"
		if s.User != "" && s.User != "root" {
			cmd = "su -s /bin/sh " + shellq.Quote(s.User) + " -c " + shellq.Quote(cmd)
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

// StopService stops s and waits until it is gone, asking every poll (0: 3
// seconds). A process that ignores SIGTERM until ctx ends is an error: killing
// it would cut what it is still serving, and that is a person's decision.
func StopService(ctx context.Context, h Host, s Service, poll time.Duration) error {
	st, err := state(ctx, h, s)
	if err != nil {
		return err
	}
	switch {
	case s.Kind == Java:
		_, err = javaPIDs(ctx, h, s.Dir, true)
	case st == gone:
		return nil
	case s.Kind == Compose:
		_, err = output(ctx, h, "cd "+shellq.Quote(s.Dir)+" && docker-compose stop", nil)
	case s.Kind == Container:
		_, err = output(ctx, h, "docker stop "+shellq.Quote(s.Container), nil)
	case s.Kind == Unit:
		_, err = output(ctx, h, "systemctl stop "+shellq.Quote(s.Unit), nil)
	}
	if err != nil {
		return fmt.Errorf("cannot stop service %s: %w", s.Name, err)
	}
	t := newTicker(poll)
	defer t.Stop()
	for {
		st, err := state(ctx, h, s)
		if err == nil && st == gone {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
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

func probe(ctx context.Context, dial Dial, addr, name string) error {
	if name == "" {
		c, err := dial(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	tr := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+name, nil)
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
		return fmt.Errorf("GET %s answered %s", name, resp.Status)
	}
	return nil
}

// WaitHealthy blocks until Probe has succeeded need times in a row, asking
// every poll (0: 3 seconds). The error of an ended wait says what the service
// answered last.
func WaitHealthy(ctx context.Context, dial Dial, ip string, s Service, poll time.Duration, need int) error {
	t := newTicker(poll)
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
// dir, and sends each SIGTERM when term is true. It reads /proc itself: ps and
// pgrep differ between releases, and lose directories with blanks. The first
// look is the shell's own, so that a host with thousands of processes is not
// made to start thousands more. A process in a container has a directory of
// the container's; it is not meant.
func javaPIDs(ctx context.Context, h Host, dir string, term bool) ([]string, error) {
	do, what := ":", "list"
	if term {
		// Listed and signalled in one go: an ID is not given anew in between.
		do, what = `kill "${p#/proc/}" || [ ! -e "$p" ] || s=1`, "terminate"
	}
	out, err := output(ctx, h, `s=0
for p in /proc/[0-9]*; do
	a=
	{ read -r a <"$p/cmdline"; } 2>/dev/null
	case "$a" in *java*) ;; *) continue;; esac
	[ "$(readlink "$p/cwd" 2>/dev/null)" = `+shellq.Quote(dir)+` ] || continue
	a=$({ tr '\000' '\n' <"$p/cmdline" | head -n 1; } 2>/dev/null)
	[ "${a##*/}" = java ] || continue
	case "$(cat "$p/cgroup" 2>/dev/null)" in */docker/*|*/docker-*|*/kubepods*|*/libpod*|*/containerd*) continue;; esac
	echo "${p#/proc/}"
	`+do+`
done
exit $s`, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot %s java processes in %s: %w", what, dir, err)
	}
	pids := strings.Fields(out)
	for _, p := range pids {
		if n, err := strconv.Atoi(p); err != nil || n < 2 {
			return nil, fmt.Errorf("cannot %s java processes in %s: unexpected answer %q", what, dir, firstBytes(out, 80))
		}
	}
	return pids, nil
}

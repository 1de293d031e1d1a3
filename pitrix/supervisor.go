package pitrix

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/poll"
)

// A Program is one line of supervisorctl status.
type Program struct {
	Name   string `json:"name"`   // GROUP:NAME where a group has several
	State  string `json:"state"`  // RUNNING, STARTING, STOPPED, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN
	Detail string `json:"detail"` // "pid 412, uptime 0:04:59", or why it does not run
	PID    int    `json:"pid,omitempty"`
}

// A Supervisor is what supervisord says of its programs.
type Supervisor struct {
	Programs []Program `json:"programs"`
}

// ErrNoSupervisor says that supervisord does not run or does not answer.
var ErrNoSupervisor = errors.New("supervisord does not answer")

var (
	programLine   = regexp.MustCompile(`^(\S+)\s+(RUNNING|STARTING|STOPPED|BACKOFF|STOPPING|EXITED|FATAL|UNKNOWN)(?:\s+(.*))?$`)
	programPID    = regexp.MustCompile(`^pid (\d+), uptime `)
	supervisorOut = regexp.MustCompile(`(?m)^(unix://.*|http://.*|error: .*|.*no such file|.*refused connection)$`)
)

// ParseSupervisor reads the output of supervisorctl status and its exit status,
// of supervisor 3 and 4. The status decides nothing: 3.x ends with 0 whatever
// the programs do, 4.x with 3 when one does not run. A supervisord that is not
// there gives ErrNoSupervisor, any other line that is no program's an error.
func ParseSupervisor(out []byte, rc int) (Supervisor, error) {
	s := Supervisor{Programs: []Program{}}
	for line := range strings.SplitSeq(string(out), "\n") {
		line = strings.TrimRight(line, " \r")
		if line == "" {
			continue
		}
		m := programLine.FindStringSubmatch(line)
		if m == nil {
			if supervisorOut.MatchString(line) {
				return s, fmt.Errorf("%w: %s", ErrNoSupervisor, firstBytes(line, 200))
			}
			return s, fmt.Errorf("cannot read the line %q of supervisorctl status", firstBytes(line, 200))
		}
		p := Program{Name: m[1], State: m[2], Detail: m[3]}
		if pid := programPID.FindStringSubmatch(p.Detail); pid != nil {
			p.PID, _ = strconv.Atoi(pid[1]) // digits
		}
		s.Programs = append(s.Programs, p)
	}
	if rc != 0 && rc != 3 {
		return s, fmt.Errorf("%w: supervisorctl status ended with status %d", ErrNoSupervisor, rc)
	}
	return s, nil
}

// A Verdict says what the programs of a node amount to.
type Verdict string

const (
	VerdictRunning  Verdict = "running"  // every program runs
	VerdictSettling Verdict = "settling" // some are starting or stopping, and none is broken
	VerdictStopped  Verdict = "stopped"  // none runs, and none is broken
	VerdictPartial  Verdict = "partial"  // some run and some were stopped or have ended
	VerdictBroken   Verdict = "broken"   // one is FATAL, BACKOFF or UNKNOWN: repair it first
	VerdictEmpty    Verdict = "empty"    // there is no program at all
)

// Verdict judges the programs as the operators' documents do: RUNNING is good;
// FATAL and BACKOFF are repaired before anything else is done.
func (s Supervisor) Verdict() Verdict {
	count := map[string]int{}
	for _, p := range s.Programs {
		switch p.State {
		case "FATAL", "BACKOFF", "UNKNOWN":
			return VerdictBroken
		case "STARTING", "STOPPING":
			count["moving"]++
		case "RUNNING":
			count["running"]++
		default:
			count["stopped"]++
		}
	}
	switch n := len(s.Programs); {
	case n == 0:
		return VerdictEmpty
	case count["moving"] > 0:
		return VerdictSettling
	case count["running"] == n:
		return VerdictRunning
	case count["stopped"] == n:
		return VerdictStopped
	}
	return VerdictPartial
}

// String names the programs that do not run.
func (s Supervisor) String() string {
	var bad []string
	for _, p := range s.Programs {
		if p.State != "RUNNING" {
			bad = append(bad, strings.TrimSpace(p.Name+" "+p.State+" "+p.Detail))
		}
	}
	if len(bad) == 0 {
		return fmt.Sprintf("%d of %d programs run", len(s.Programs), len(s.Programs))
	}
	return fmt.Sprintf("%d of %d programs run; %s", len(s.Programs)-len(bad), len(s.Programs), strings.Join(bad, "; "))
}

// SupervisorStatus asks for the programs of the node.
func (n *Node) SupervisorStatus(ctx context.Context) (Supervisor, error) {
	out, status, err := both(ctx, n.Host, "supervisorctl status </dev/null")
	if err != nil {
		return Supervisor{}, fmt.Errorf("cannot ask for the programs of %s: %w", n.Name, err)
	}
	s, err := ParseSupervisor(out, status)
	if err != nil {
		return s, fmt.Errorf("programs of %s: %w", n.Name, err)
	}
	return s, nil
}

// supervisorStarts is how long a supervisord that does not answer may be one that
// is about to start: behind a boot it is the last one to do so, by /etc/rc.local,
// after sshd and whatever that waits for.
const supervisorStarts = 5 * time.Minute

// WaitPrograms waits until every program of the node runs. A program that is
// FATAL ends it at once: supervisord has given up on it. A supervisord that does
// not answer is waited for, five minutes long at most.
func (n *Node) WaitPrograms(ctx context.Context, interval time.Duration) (Supervisor, error) {
	var last Supervisor
	began := time.Now()
	p := poll.Poller{Interval: interval, Retryable: func(error) bool { return true }}
	err := p.Until(ctx, "the programs of "+n.Name, func(ctx context.Context) (string, bool, error) {
		s, err := n.SupervisorStatus(ctx)
		switch {
		case errors.Is(err, ErrNoSupervisor) && time.Since(began) < supervisorStarts:
			return err.Error(), false, nil
		case errors.Is(err, ErrNoSupervisor):
			return "", false, poll.Stop(err)
		case err != nil:
			return "", false, err
		}
		last = s
		if slices.ContainsFunc(s.Programs, func(p Program) bool { return p.State == "FATAL" }) {
			return "", false, poll.Stop(fmt.Errorf("programs of %s: %s; repair them first", n.Name, s))
		}
		return s.String(), s.Verdict() == VerdictRunning, nil
	})
	return last, err
}

// StopPrograms stops every program of the node, if it is want, and looks
// whether they have stopped: supervisorctl stop ends with 0 either way.
// haproxy, keepalived and what else the system starts go on.
func (n *Node) StopPrograms(ctx context.Context, want Identity) error {
	return n.programs(ctx, want, "stop", VerdictStopped)
}

// StartPrograms starts every program of the node, if it is want. Whether they
// come up is asked of WaitPrograms.
func (n *Node) StartPrograms(ctx context.Context, want Identity) error {
	return n.programs(ctx, want, "start", "")
}

func (n *Node) programs(ctx context.Context, want Identity, verb string, end Verdict) error {
	if _, err := n.run(ctx, want, verb+" the programs of", "supervisorctl "+verb+" all </dev/null >&2 || [ $? -lt 4 ]"); err != nil {
		return err
	}
	if end == "" {
		return nil
	}
	s, err := n.SupervisorStatus(ctx)
	if err != nil {
		return err
	}
	for _, p := range s.Programs {
		if p.State == "RUNNING" || p.State == "STARTING" || p.State == "STOPPING" || p.State == "BACKOFF" {
			return fmt.Errorf("the programs of %s were told to stop, but %s is %s", n.Name, p.Name, p.State)
		}
	}
	return nil
}

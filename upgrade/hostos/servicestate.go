package hostos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/pitrix"
)

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
	if err := s.Check(); err != nil {
		return gone, err
	}
	var words []string
	var err error
	switch s.Kind {
	case Java, Process:
		ids, err := servicePIDs(ctx, h, s, false)
		if err != nil || len(ids) == 0 {
			return gone, err
		}
		return running, nil
	case Compose:
		words, err = composeStates(ctx, h, s.Dir)
	case Container:
		words, err = containerStates(ctx, h, s.Container)
	case Unit:
		// It fails for every state but active; the state is what counts.
		words, err = fields(ctx, h, "systemctl is-active "+shellq.Quote(s.Unit)+" || exit 0")
	case Supervisor:
		words, err = programStates(ctx, h, s.Program)
	}
	if err != nil {
		if _, ran := exitStatus(err); ran {
			return gone, nil
		}
		return gone, fmt.Errorf("cannot look at service %s: %w", s.Name, err)
	}
	return sum(words), nil
}

func fields(ctx context.Context, h Host, cmd string) ([]string, error) {
	out, err := output(ctx, h, cmd, nil)
	return strings.Fields(out), err
}

const containerStatus = "docker inspect --format '{{.State.Status}}' "

// compose is a command line of Compose in the directory of a project: of version
// 1 where the host has it, else of the plugin that came after it.
func compose(dir, args, second string) string {
	return "cd " + shellq.Quote(dir) + " && if command -v docker-compose >/dev/null; then docker-compose " + args + "; else docker compose " + second + "; fi"
}

func composeStates(ctx context.Context, h Host, dir string) ([]string, error) {
	// The IDs of all containers of the project, also of stopped ones, which version
	// 2 leaves out unless it is asked for all.
	return fields(ctx, h, "ids=$("+compose(dir, "ps -q", "ps -a -q")+`) && [ -n "$ids" ] && `+containerStatus+"$ids")
}

func containerStates(ctx context.Context, h Host, name string) ([]string, error) {
	return fields(ctx, h, containerStatus+shellq.Quote(name))
}

// errGaveUp says that supervisord does not start a program again by itself.
var errGaveUp = errors.New("supervisord has given up on it")

// listPrograms asks supervisord for a program or a group of programs.
// supervisorctl of 3.x ends with 0 whatever they do, of 4.x with 3 when one does
// not run, and with 4 when there is no such program; its output decides.
func listPrograms(ctx context.Context, h Host, program string) ([]pitrix.Program, error) {
	out, err := output(ctx, h, "supervisorctl status "+shellq.Quote(program)+" </dev/null 2>&1", nil)
	status, ran := exitStatus(err)
	if err != nil && !ran {
		return nil, err
	}
	if strings.Contains(out, "no such process") || strings.Contains(out, "no such group") {
		return nil, fmt.Errorf("supervisord has no program %s: %w", program, errNoProgram)
	}
	sup, perr := pitrix.ParseSupervisor([]byte(out), status)
	if perr != nil {
		return nil, errors.New(perr.Error() + "; start supervisord, or enable its unit")
	}
	return sup.Programs, nil
}

func programStates(ctx context.Context, h Host, program string) (words []string, err error) {
	list, err := listPrograms(ctx, h, program)
	for _, p := range list {
		words = append(words, p.State)
	}
	return words, err
}

// checkPrograms says which programs of a service do not run, and why; errGaveUp
// where waiting for one is in vain.
func checkPrograms(ctx context.Context, h Host, s Service) error {
	list, err := listPrograms(ctx, h, s.Program)
	if err != nil {
		return fmt.Errorf("cannot look at service %s: %w", s.Name, err)
	}
	fatal := false
	for _, p := range list {
		fatal = fatal || p.State == "FATAL"
	}
	switch what := (pitrix.Supervisor{Programs: list}).String(); {
	case fatal:
		return fmt.Errorf("service %s: %s: %w; see its log, mend what it ends of, and start it with supervisorctl start %s", s.Name, what, errGaveUp, s.Program)
	case len(list) == 0 || slices.ContainsFunc(list, func(p pitrix.Program) bool { return p.State != "RUNNING" }):
		return fmt.Errorf("service %s does not run: %s", s.Name, what)
	}
	return nil
}

// sum makes one state of those of containers, of a unit or of programs.
func sum(states []string) runState {
	up, down := 0, 0
	for _, s := range states {
		switch s {
		case "running", "active", "reloading", "RUNNING":
			up++
		case "created", "exited", "dead", "inactive", "failed", "unknown", "STOPPED", "EXITED", "FATAL":
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

// ServiceRunning tells whether s runs on h: for Java and Process, at least one
// process; for Compose and a group of supervisord's, all containers or programs,
// at least one.
func ServiceRunning(ctx context.Context, h Host, s Service) (bool, error) {
	st, err := state(ctx, h, s)
	return st == running, err
}

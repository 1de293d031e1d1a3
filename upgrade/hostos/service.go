package hostos

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A ServiceKind says how a service is run on its host.
type ServiceKind string

// The kinds of service.
const (
	Java       ServiceKind = "java"       // Java processes started by hand in their directory
	Process    ServiceKind = "process"    // processes of any other program, started by hand in their directory
	Compose    ServiceKind = "compose"    // a Compose project in its directory
	Container  ServiceKind = "container"  // one container, by name
	Unit       ServiceKind = "unit"       // a systemd unit
	Supervisor ServiceKind = "supervisor" // a program of supervisord, or a group of programs
)

// A Service is something that has to run after an upgrade as it ran before.
type Service struct {
	Name      string      `json:"name"`
	Kind      ServiceKind `json:"kind"`
	Dir       string      `json:"dir,omitempty"`       // working directory (java, process, compose)
	User      string      `json:"user,omitempty"`      // who runs Start, Stop and HealthCommand; "" = root
	Program   string      `json:"program,omitempty"`   // base name of the program (process); NAME, GROUP:NAME or GROUP:* (supervisor)
	Match     string      `json:"match,omitempty"`     // an argument that tells the processes from others in Dir (java, process)
	Container string      `json:"container,omitempty"` // name (container)
	Unit      string      `json:"unit,omitempty"`      // name (unit)
	Ports     []int       `json:"ports,omitempty"`     // TCP ports it serves

	// Start and Stop are /bin/sh command lines, run in Dir as User; no login
	// files are read. Start runs detached (java, process); without one the
	// processes are started again from what CaptureRestart kept. Stop takes the
	// place of SIGTERM (java, process).
	Start string `json:"start,omitempty"`
	Stop  string `json:"stop,omitempty"`

	// Health is the path of an HTTP GET on each port that has to answer with a
	// status in Expect; "" = a TCP connection is enough.
	Health        string        `json:"health,omitempty"`
	Expect        []StatusRange `json:"expect,omitempty"`         // none = 200-299
	HealthCommand string        `json:"health_command,omitempty"` // has to end with status 0 on the host, in addition
	Healthy       int           `json:"healthy,omitempty"`        // good answers in a row that are needed; 0 = what the caller says
	Warmup        Warmup        `json:"warmup,omitzero"`

	StartGrace   time.Duration `json:"start_grace,omitempty"`   // nothing is asked for so long after a start
	StartTimeout time.Duration `json:"start_timeout,omitempty"` // from the start to warm; 0 = until ctx ends
	StopTimeout  time.Duration `json:"stop_timeout,omitempty"`  // from being asked to stop to gone; 0 = until ctx ends
	After        []string      `json:"after,omitempty"`         // names of services that have to be warm before this one starts
}

// A StatusRange is a range of HTTP statuses, both ends included.
type StatusRange struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// String gives the range as 200 or 200-299.
func (r StatusRange) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// A Warmup is what a healthy service gets before it may have traffic: Count
// GETs of each path on each port, and again until Duration is over. Their
// answers have to be expected ones, or the service is not healthy yet.
type Warmup struct {
	Paths    []string      `json:"paths,omitempty"`
	Count    int           `json:"count,omitempty"`    // of each path; 0 = 1
	Duration time.Duration `json:"duration,omitempty"` // at least so long; without paths, just waits so long
}

// ByHand tells whether nothing but a person, or a program like this one,
// starts the service: it is not there after a boot.
func (s Service) ByHand() bool { return s.Kind == Java || s.Kind == Process }

// kept tells whether the service is started from kept restart values.
func (s Service) kept() bool { return s.ByHand() && strings.TrimSpace(s.Start) == "" }

var (
	// serviceName keeps the names of services harmless in paths on the host.
	serviceName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	programOfGroup = regexp.MustCompile(`^[^\s:*'"-][^\s:*'"]*(:([^\s:*'"]+|\*))?$`)
)

// Check refuses what could not be meant, or what a program would take for an
// option.
func (s Service) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("service %s: %s", s.Name, fmt.Sprintf(format, args...))
	}
	for _, v := range []string{s.Dir, s.User, s.Program, s.Match, s.Container, s.Unit, s.Start, s.Stop, s.HealthCommand} {
		if !shellq.Valid(v) {
			return bad("%q holds a NUL byte", v)
		}
	}
	if !serviceName.MatchString(s.Name) {
		return fmt.Errorf("%q is no name of a service: letters, digits, dot, hyphen and underscore", s.Name)
	}
	if strings.HasPrefix(s.User, "-") {
		return bad("%q is no user", s.User)
	}
	switch s.Kind {
	case Java, Process, Compose:
		if !path.IsAbs(s.Dir) {
			return bad("directory %q is not absolute", s.Dir)
		}
		if s.Kind == Process && (s.Program == "" || strings.ContainsAny(s.Program, "/\n")) {
			return bad("%q is no name of a program", s.Program)
		}
		if strings.ContainsAny(s.Match, "\n") {
			return bad("%q has a line break", s.Match)
		}
	case Container:
		if s.Container == "" || strings.HasPrefix(s.Container, "-") {
			return bad("%q is no container", s.Container)
		}
	case Unit:
		if s.Unit == "" || strings.HasPrefix(s.Unit, "-") {
			return bad("%q is no unit", s.Unit)
		}
	case Supervisor:
		if !programOfGroup.MatchString(s.Program) {
			return bad("%q is no program of supervisord: NAME, GROUP:NAME or GROUP:*", s.Program)
		}
	default:
		return bad("unknown kind %q", s.Kind)
	}
	for _, r := range s.Expect {
		if r.From < 100 || r.To > 599 || r.From > r.To {
			return bad("%s is no range of HTTP statuses", r)
		}
	}
	return nil
}

// OrderServices sorts services into waves: those of a wave may start at the
// same time, each after everything that its After names. Inside a wave the
// given order stays. Services stop in the reverse order. It refuses a service
// that Check refuses, two of one name, an After that nothing has, and a circle.
func OrderServices(all []Service) ([][]Service, error) {
	names := map[string]bool{}
	for _, s := range all {
		if err := s.Check(); err != nil {
			return nil, err
		}
		if names[s.Name] {
			return nil, fmt.Errorf("two services are called %s", s.Name)
		}
		names[s.Name] = true
	}
	for _, s := range all {
		for _, a := range s.After {
			if !names[a] {
				return nil, fmt.Errorf("service %s starts after %q, which is no service", s.Name, a)
			}
		}
	}
	var waves [][]Service
	done := map[string]bool{}
	for left := all; len(left) > 0; {
		var wave, rest []Service
		for _, s := range left {
			if slices.ContainsFunc(s.After, func(a string) bool { return !done[a] }) {
				rest = append(rest, s)
			} else {
				wave = append(wave, s)
			}
		}
		if len(wave) == 0 {
			var in []string
			for _, s := range rest {
				in = append(in, s.Name)
			}
			return nil, fmt.Errorf("services %s wait for each other", strings.Join(in, ", "))
		}
		for _, s := range wave {
			done[s.Name] = true
		}
		waves, left = append(waves, wave), rest
	}
	return waves, nil
}

// ServiceOptions say how services are started and stopped.
type ServiceOptions struct {
	// Restart are the keys under which CaptureRestart may have kept what
	// processes without a start command are started from; the first that has
	// something about a service counts.
	Restart []string
	// Poll is the time between two looks; 0 = 3 seconds.
	Poll time.Duration
	// Healthy is how many good answers in a row are needed of a service that
	// does not say so itself; 0 = 3.
	Healthy int
	// Progress, when not nil, is told what is done, a line at a time.
	Progress func(line string)
}

func (o ServiceOptions) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// StartServices starts those of all that do not run, in the order of
// OrderServices, and waits until each is healthy and warm. Health is asked at
// ip through dial, commands run on h. It may be called again at any point: what
// runs is not started twice. It waits first until the host has booted, so that
// what starts by itself has started, and supervisord answers.
func StartServices(ctx context.Context, h Host, dial Dial, ip string, all []Service, o ServiceOptions) error {
	waves, err := OrderServices(all)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(s Service) bool { return s.ByHand() || s.Kind == Supervisor }) {
		if err := waitBooted(ctx, h, o); err != nil {
			return err
		}
	}
	for _, wave := range waves {
		for _, s := range wave {
			o.say("starting %s", s.Name)
			if err := StartService(ctx, h, s, o); err != nil {
				return err
			}
		}
		for _, s := range wave {
			if err := WaitWarm(ctx, h, dial, ip, s, o); err != nil {
				return err
			}
			if s.kept() {
				if err := checkTwice(ctx, h, s, o); err != nil {
					return err
				}
			}
			o.say("%s is healthy", s.Name)
		}
	}
	return nil
}

// StopServices stops all in the reverse order of OrderServices and waits until
// each is gone. What a restart of a process without a start command needs must
// have been kept before (CaptureRestart).
func StopServices(ctx context.Context, h Host, all []Service, o ServiceOptions) error {
	waves, err := OrderServices(all)
	if err != nil {
		return err
	}
	for _, wave := range slices.Backward(waves) {
		for _, s := range slices.Backward(wave) {
			o.say("stopping %s", s.Name)
			if err := StopService(ctx, h, s, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// within is ctx with a time limit of its own; 0 = none.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%w: %s are over", context.DeadlineExceeded, d))
}

var errNoProgram = errors.New("there is no such program")

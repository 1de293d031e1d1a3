package upgrade

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// What the steps do on one host can be done alone, without a plan and without
// a cloud: the same functions of hostos, under the same lease, each job
// detached on the host under a key.

// StrategyConfig says how one host is upgraded; see hostos.StrategyConfig.
type StrategyConfig = hostos.StrategyConfig

// HostStrategies lists the names that StrategyConfig.Strategy may have.
func HostStrategies() []string {
	var out []string
	for _, s := range hostos.Strategies() {
		out = append(out, string(s))
	}
	return out
}

// NewHostEnv is an Env for work on hosts alone: it knows no cloud.
func NewHostEnv(ssh hostinv.SSHConfig) (*Env, error) {
	d, err := hostinv.NewDialer(ssh)
	if err != nil {
		return nil, &AccessError{err}
	}
	dial := ssh.NetDial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &Env{Dialer: d, netDial: dial, links: map[string]*link{}}, nil
}

// HostJobOptions say how work on one host is identified and waited for.
type HostJobOptions struct {
	// Key names the work on the host ([a-z0-9-], up to 64). What has been done
	// under a key is not done again. Empty: derived from what is asked for, and a
	// new one once its result was reported (ReportHostJob).
	Key      string
	Actor    string        // who asks; empty: the user of the process
	Poll     time.Duration // between two questions; 0: 3 s
	Timeout  time.Duration // longest wait for the work, and again for a reboot; 0: 2 h
	Progress func(string)  // nil: nobody
}

func (o HostJobOptions) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

func (o HostJobOptions) timeout() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return 2 * time.Hour
}

func (o HostJobOptions) poll() time.Duration {
	if o.Poll > 0 {
		return o.Poll
	}
	return 3 * time.Second
}

var hostKey = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

const hostJobs = "/var/lib/upgradectl" // as package hostos has it

// hostJobKey gives the key of work that args describe: o.Key, or the first one
// derived from args whose result nobody has seen yet.
func (l *link) hostJobKey(ctx context.Context, word string, o HostJobOptions, args any) (string, error) {
	if o.Key != "" {
		if !hostKey.MatchString(o.Key) {
			return "", engine.Invalid("the key %q is not 1 to 64 of a-z, 0-9 and -", o.Key)
		}
		return o.Key, nil
	}
	b, err := json.Marshal(args)
	if err != nil {
		return "", fmt.Errorf("internal error: %w", err)
	}
	sum := sha256.Sum256(b)
	base := "host-" + word + "-" + hex.EncodeToString(sum[:6])
	out, err := l.text(ctx, "n=1\nwhile [ -e "+hostJobs+"/"+base+"-$n/reported ]; do n=$((n+1)); done\necho $n")
	if err != nil {
		return "", err
	}
	if n, err := strconv.Atoi(out); err != nil || n < 1 {
		return "", fmt.Errorf("host %s: unexpected answer %q to which jobs were done", l.target, out)
	}
	return base + "-" + out, nil
}

// text runs a command that only reads, and gives what it prints.
func (l *link) text(ctx context.Context, cmd string) (string, error) {
	var out, stderr bytes.Buffer
	if err := l.Run(ctx, cmd, nil, &out, &stderr); err != nil {
		if said := strings.TrimSpace(stderr.String()); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return "", fmt.Errorf("host %s: %w", l.target, err)
	}
	return strings.TrimSpace(out.String()), nil
}

// reported tells whether the result of a job was seen.
func (l *link) reported(ctx context.Context, key string) (bool, error) {
	out, err := l.text(ctx, "if [ -e "+hostJobs+"/"+key+"/reported ]; then echo yes; else echo no; fi")
	return out == "yes", err
}

// ReportHostJob notes on the host that the result of a job was seen: asked for
// once more without a key, the work is done anew.
func ReportHostJob(ctx context.Context, e *Env, target, key string) error {
	if !hostKey.MatchString(key) {
		return fmt.Errorf("internal error: job key %q", key)
	}
	d := shellq.Quote(hostJobs + "/" + key)
	_, err := e.host(target).text(ctx, "if [ -d "+d+" ]; then : >"+d+"/reported; fi")
	return err
}

// record keeps what a job began with, beside it on the host: whoever asks for
// its result later judges by it. A record that is there stays.
func (l *link) record(ctx context.Context, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	d := shellq.Quote(hostJobs + "/" + key)
	cmd := "set -eu\numask 077\nmkdir -p " + d + "\nif [ -e " + d + "/before ]; then exit 0; fi\ncat >" + d + "/before.$$\nmv -f " + d + "/before.$$ " + d + "/before"
	var stderr bytes.Buffer
	if err := l.held().Run(ctx, cmd, bytes.NewReader(b), io.Discard, &stderr); err != nil {
		return fmt.Errorf("host %s: cannot keep what job %s begins with: %w: %s", l.target, key, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// recorded reads it; false when there is none.
func (l *link) recorded(ctx context.Context, key string, v any) (bool, error) {
	b, err := l.ReadFile(ctx, hostJobs+"/"+key+"/before")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("host %s: cannot read what job %s began with: %w", l.target, key, err)
	}
	return true, nil
}

// free says who holds the host, as an error; nil when nobody but key's work.
func (l *link) free(ctx context.Context, key string) error {
	lease, err := hostos.GetLease(ctx, l)
	if err != nil {
		return fmt.Errorf("host %s: %w", l.target, err)
	}
	if lease != nil && lease.Run != key {
		return fmt.Errorf("host %s: %w", l.target, &hostos.LeaseHeldError{Lease: *lease})
	}
	return nil
}

// alone does work while the host is held under key. The lease stays when the
// work may still be under way: with the same key it can be gone on with.
func (e *Env) alone(ctx context.Context, target, key string, o HostJobOptions, do func(ctx context.Context) (over bool, err error)) error {
	h := &leaseholder{run: key, holder: holderName(o.Actor), targets: []leaseTarget{{target: target}}, leases: map[string]heldLease{}, note: func(n engine.Note) error {
		o.say("%s: this process goes on with %s, %s", n.Object, key, n.Text)
		return nil
	}}
	work, err := e.holdHosts(ctx, h)
	if err != nil {
		return err
	}
	over, err := do(work)
	if lost := context.Cause(work); errors.Is(lost, hostos.ErrFenced) {
		err, over = errors.Join(lost, err), false
	}
	for _, left := range e.unhold(context.WithoutCancel(ctx), over) {
		err = errors.Join(err, errors.New(left))
	}
	return err
}

// HostCheck is what is known of one host, and all that speaks against
// upgrading it.
type HostCheck struct {
	Host       string                `json:"host"`
	Lease      *Lease                `json:"lease,omitempty"` // who changes it now
	Assessment *hostos.Assessment    `json:"assessment"`
	PreReboot  []hostos.Check        `json:"pre_reboot"` // whether it would come back from a reboot as it is
	Docker     *hostos.Docker        `json:"docker,omitempty"`
	DockerPlan *hostos.DockerPlan    `json:"docker_plan,omitempty"`
	Unowned    []Finding             `json:"unowned"`    // what runs and no service names, and the other way round
	Quarantine QuarantinePlan        `json:"quarantine"` // what a copy of it would have to be kept from doing
	Incomplete []string              `json:"incomplete,omitempty"`
	Blocking   []string              `json:"blocking"` // why it would be refused; empty: it would not
	Strategy   hostos.StrategyConfig `json:"strategy"`
}

// strategy fills in the one of the host's package manager.
func (l *link) strategy(ctx context.Context, c hostos.StrategyConfig) (hostos.StrategyConfig, error) {
	if c.Strategy != "" {
		return c, nil
	}
	o, err := hostos.GetOS(ctx, l)
	if err != nil {
		return c, fmt.Errorf("host %s: %w", l.target, err)
	}
	if c.Strategy = hostos.YumUpdate; o.Manager == "apt" {
		c.Strategy = hostos.Apt
	}
	return c, nil
}

// CheckHost looks at a host and changes nothing there. cfg gives the services
// that own what runs, and how Docker is replaced; it may be empty. An error
// means that the host could not be asked.
func CheckHost(ctx context.Context, e *Env, target string, cfg *Config, c hostos.StrategyConfig) (*HostCheck, error) {
	l := e.host(target)
	out := &HostCheck{Host: target, Unowned: []Finding{}, Blocking: []string{}, PreReboot: []hostos.Check{}}
	fail := func(err error) (*HostCheck, error) { return nil, fmt.Errorf("host %s: %w", target, err) }
	var err error
	if out.Strategy, err = l.strategy(ctx, c); err != nil {
		return nil, err
	}
	if out.Lease, err = hostos.GetLease(ctx, l); err != nil {
		return fail(err)
	}
	if out.Assessment, err = hostos.Assess(ctx, l, out.Strategy); err != nil {
		return fail(err)
	}
	out.Blocking = append(out.Blocking, out.Assessment.Blocking()...)
	// What the boot loader starts now, before anything is changed.
	if kernel := out.Assessment.OS.DefaultKernel; kernel != "" {
		if out.PreReboot, err = hostos.CheckPreReboot(ctx, l, out.Strategy, kernel); err != nil {
			return fail(err)
		}
		out.Blocking = append(out.Blocking, hostos.Failed(out.PreReboot)...)
	}
	if err := out.docker(ctx, l, cfg); err != nil {
		return fail(err)
	}
	inv, err := hostinv.Collect(ctx, l, hostinv.Options{})
	if err != nil {
		return fail(err)
	}
	for _, name := range hostinv.SectionNames() {
		if s, ok := inv.Sections[name]; ok && !s.Status.Known() {
			out.Incomplete = append(out.Incomplete, name+": "+string(s.Status)+" "+s.Message)
		}
	}
	out.Unowned = append(out.Unowned, checkContainers(inv, cfg.Services)...)
	out.Unowned = append(out.Unowned, checkByHand(inv, cfg.Services)...)
	out.Unowned = append(out.Unowned, checkPorts(inv, cfg.Services)...)
	out.Quarantine = PlanQuarantine(inv, cfg)
	return out, nil
}

// A HostUpgrade is what upgrading one host would do, is doing, or has done.
type HostUpgrade struct {
	Host       string                `json:"host"`
	Key        string                `json:"key"`   // of the job on the host
	Phase      string                `json:"phase"` // of the job; hostos.JobAbsent: nothing was done
	Found      bool                  `json:"found"` // the job was there before this call
	Reported   bool                  `json:"reported,omitempty"`
	Strategy   hostos.StrategyConfig `json:"strategy"`
	Script     string                `json:"script"`
	Assessment *hostos.Assessment    `json:"assessment"` // from before
	Upgraded   *hostos.Upgraded      `json:"upgraded,omitempty"`
	PreReboot  []hostos.Check        `json:"pre_reboot,omitempty"`
	Rebooted   bool                  `json:"rebooted"`
	After      *hostos.OS            `json:"after,omitempty"` // in the new boot
}

// hostBefore is what a job's result is judged by.
type hostBefore struct {
	Strategy   hostos.StrategyConfig `json:"strategy"`
	Script     string                `json:"script"`
	Assessment *hostos.Assessment    `json:"assessment"`
	Packages   hostos.PackageSet     `json:"packages"`
}

// PlanHostUpgrade says what UpgradeHost would do. It changes nothing. What
// speaks against it is a *RefusedError; the result is there all the same.
func PlanHostUpgrade(ctx context.Context, e *Env, target string, c hostos.StrategyConfig, reboot bool, o HostJobOptions) (*HostUpgrade, error) {
	if c.InReboot && !reboot {
		return nil, engine.Invalid("cannot upgrade %s: its reboot is to do the upgrade, and no reboot is asked for", target)
	}
	l := e.host(target)
	key, err := l.hostJobKey(ctx, "upgrade", o, []any{c, reboot})
	if err != nil {
		return nil, err
	}
	out := &HostUpgrade{Host: target, Key: key}
	st, err := l.job(ctx, key)
	if err != nil {
		return nil, err
	}
	out.Phase = string(st.Phase)
	var b hostBefore
	if st.Phase != hostos.JobAbsent {
		out.Found = true
		if out.Reported, err = l.reported(ctx, key); err != nil {
			return nil, err
		}
		ok, err := l.recorded(ctx, key, &b)
		if err == nil && !ok {
			err = engine.Invalid("host %s: job %s is not one of these commands; take another --key", target, key)
		}
		if err != nil {
			return nil, err
		}
		out.fill(b)
		return out, nil
	}
	if out.Strategy, err = l.strategy(ctx, c); err != nil {
		return nil, err
	}
	if out.Assessment, err = hostos.Assess(ctx, l, out.Strategy); err != nil {
		return nil, fmt.Errorf("host %s: %w", target, err)
	}
	if reasons := out.Assessment.Blocking(); len(reasons) > 0 {
		return out, &RefusedError{Host: target, Reasons: reasons}
	}
	if out.Script, err = hostos.UpgradeScript(out.Strategy, out.Assessment.OS, nil); err != nil {
		return out, fmt.Errorf("host %s: %w", target, err)
	}
	return out, nil
}

func (u *HostUpgrade) fill(b hostBefore) {
	u.Strategy, u.Script, u.Assessment = b.Strategy, b.Script, b.Assessment
	if b.Assessment != nil && b.Assessment.OS != nil {
		b.Assessment.OS.Packages = b.Packages
	}
}

// UpgradeHost upgrades the operating system of one host as step 3.6 does: the
// transaction runs detached under a key, its result is judged by what was
// assessed before, and with reboot the host is rebooted when the gate before it
// passes, and proved afterwards. c.Precheck runs before anything else; with
// c.InReboot the reboot does the upgrade, and c.Release says when it is over.
// Called again it finds the work where it is; an ended context leaves the job
// running. What speaks against it is a *RefusedError, with nothing touched;
// another holder of the host wraps *hostos.LeaseHeldError.
func UpgradeHost(ctx context.Context, e *Env, target string, c hostos.StrategyConfig, reboot bool, o HostJobOptions) (*HostUpgrade, error) {
	l := e.host(target)
	out, err := PlanHostUpgrade(ctx, e, target, c, reboot, o)
	if out != nil && out.Key != "" {
		if held := l.free(ctx, out.Key); held != nil {
			return out, held
		}
	}
	if err != nil {
		return out, err
	}
	err = e.alone(ctx, target, out.Key, o, func(ctx context.Context) (bool, error) {
		return out.run(ctx, l, reboot, o)
	})
	return out, err
}

// run does what is left of the work. It is over when nothing of it can be under
// way any more.
func (u *HostUpgrade) run(ctx context.Context, l *link, reboot bool, o HostJobOptions) (over bool, err error) {
	fail := func(over bool, err error) (bool, error) { return over, fmt.Errorf("host %s: %w", l.target, err) }
	if !u.Found {
		if err := l.precheck(ctx, u.Key, u.Strategy.Precheck, o); err != nil {
			return errors.As(err, new(*RefusedError)), err
		}
		b := hostBefore{u.Strategy, u.Script, u.Assessment, u.Assessment.OS.Packages}
		if err := l.record(ctx, u.Key, b); err != nil {
			return true, err
		}
		// Two calls at once: the first record counts for both.
		if _, err := l.recorded(ctx, u.Key, &b); err != nil {
			return true, err
		}
		u.fill(b)
		o.say("%s: starting job %s", l.target, u.Key)
		if err := l.startJob(ctx, u.Key, b.Script); err != nil {
			return false, err
		}
	} else {
		o.say("%s: job %s is %s", l.target, u.Key, u.Phase)
	}
	wait, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	st, err := hostos.WaitJob(wait, l, u.Key, o.Poll, nil)
	u.Phase = string(st.Phase)
	if err != nil {
		var ended *hostos.JobError
		return fail(errors.As(err, &ended), err)
	}
	from := u.Assessment.OS.Boot
	now, err := hostos.GetBoot(ctx, l)
	if err != nil {
		return fail(false, err)
	}
	if u.Strategy.InReboot && now.ID != from.ID {
		// It is at work by itself; what it looks like in between says nothing.
		u.Upgraded = &hostos.Upgraded{Kernel: u.Strategy.Kernel}
	} else {
		if u.Upgraded, err = hostos.CheckUpgraded(ctx, l, u.Strategy, u.Assessment, u.Assessment.OS.Packages); err != nil {
			return fail(true, err)
		}
		if u.PreReboot, err = hostos.CheckPreReboot(ctx, l, u.Strategy, u.Upgraded.Kernel); err != nil {
			return fail(true, err)
		}
	}
	if !reboot {
		return true, nil
	}
	if now.ID == from.ID {
		if bad := hostos.Failed(u.PreReboot); len(bad) > 0 {
			return fail(true, fmt.Errorf("upgraded, but not rebooted: it might not come back: %s", strings.Join(bad, "; ")))
		}
		if now, err = l.reboot(ctx, from.ID, o); err != nil {
			return false, err
		}
	}
	again, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	if u.Strategy.InReboot {
		if _, err := l.waitRelease(again, hostos.Expected{Kernel: u.Strategy.Kernel, Release: u.Strategy.Release}, now, o.poll(), o.say); err != nil {
			return false, err
		}
	}
	u.Rebooted = true
	u.After, err = hostos.VerifyUpgrade(ctx, l, hostos.Expected{Boot: from, Kernel: u.Upgraded.Kernel, Release: u.Strategy.Release, FailedUnits: u.Assessment.OS.FailedUnits, UnitsOK: u.Strategy.UnitsOK})
	if u.Strategy.InReboot && u.After != nil {
		was, is := u.Assessment.OS.Packages, u.After.Packages
		u.Upgraded.Packages, u.Upgraded.Installed, u.Upgraded.Removed = is, is.Minus(was), was.Minus(is)
	}
	if err != nil {
		return fail(true, err)
	}
	return true, nil
}

// precheck runs the operator's check of a host before its upgrade, detached, and
// waits for it. It changes nothing there, and so is run anew by every call that
// finds no result which nobody has seen. What it says against the upgrade is a
// *RefusedError.
func (l *link) precheck(ctx context.Context, upgrade, script string, o HostJobOptions) error {
	if script == "" {
		return nil
	}
	key, err := l.hostJobKey(ctx, "precheck", HostJobOptions{}, []string{upgrade, script})
	if err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("host %s: %w", l.target, err) }
	o.say("%s: checking before anything begins, job %s", l.target, key)
	if err := hostos.StartJob(ctx, l.held(), key, script); err != nil {
		return fail(err)
	}
	wait, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	_, err = hostos.WaitJob(wait, l, key, o.Poll, nil)
	ended := new(hostos.JobError)
	if err != nil && !errors.As(err, &ended) {
		return fail(err)
	}
	if _, again := l.text(ctx, ": >"+shellq.Quote(hostJobs+"/"+key)+"/reported"); again != nil {
		return errors.Join(again, err)
	}
	if err != nil {
		return &RefusedError{Host: l.target, Reasons: []string{"its precheck speaks against it: " + err.Error()}}
	}
	return nil
}

// reboot asks the host to reboot from the boot with ID from, and blocks until it
// answers in another. The answer may not come: a host that goes down may be
// faster than the network. Then the host is asked once more when half of the time
// is over, which one that has rebooted leaves alone.
func (l *link) reboot(ctx context.Context, from string, o HostJobOptions) (hostos.Boot, error) {
	o.say("%s: rebooting", l.target)
	wait, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	half, stop := context.WithTimeout(wait, o.timeout()/2)
	defer stop()
	var ran interface{ ExitStatus() int }
	asked := hostos.StartReboot(ctx, l.held(), from)
	switch {
	case asked == nil:
		return l.waitNewBoot(wait, from, o)
	case errors.As(asked, &ran), errors.Is(asked, hostos.ErrFenced), hostos.IsWrongKey(asked), ctx.Err() != nil:
		return hostos.Boot{}, wrapHost(l.target, asked)
	}
	o.say("%s: %v; it may be rebooting already", l.target, asked)
	now, err := l.waitNewBoot(half, from, o)
	if err == nil || wait.Err() != nil || hostos.IsWrongKey(err) {
		return now, err
	}
	if again := hostos.StartReboot(wait, l.held(), from); again != nil {
		o.say("%s: %v", l.target, again)
	}
	return l.waitNewBoot(wait, from, o)
}

// waitNewBoot blocks until the host answers in another boot than from.
func (l *link) waitNewBoot(ctx context.Context, from string, o HostJobOptions) (hostos.Boot, error) {
	tick := time.NewTicker(o.poll())
	defer tick.Stop()
	last := errors.New("it was not asked yet")
	for {
		ask, cancel := context.WithTimeout(ctx, 20*time.Second)
		b, err := hostos.GetBoot(ask, l)
		cancel()
		switch {
		case err == nil && b.ID != from:
			return b, nil
		case err == nil:
			last = errors.New("it is still in the old boot")
		case hostos.IsWrongKey(err):
			return b, wrapHost(l.target, err)
		case ctx.Err() == nil:
			last = err
			l.drop(nil)
		}
		select {
		case <-ctx.Done():
			return b, fmt.Errorf("host %s did not come back: %w (last: %v)", l.target, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// HoldHost does work on one host while nobody else changes it, and gives it
// back afterwards.
func HoldHost(ctx context.Context, e *Env, target, word string, o HostJobOptions, do func(ctx context.Context) error) error {
	key := o.Key
	if key == "" {
		key = "host-" + word
	}
	if !hostKey.MatchString(key) {
		return engine.Invalid("the key %q is not 1 to 64 of a-z, 0-9 and -", key)
	}
	if err := e.host(target).free(ctx, key); err != nil {
		return err
	}
	return e.alone(ctx, target, key, o, func(ctx context.Context) (bool, error) { return true, do(ctx) })
}

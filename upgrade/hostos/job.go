package hostos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

// jobRoot holds one directory a job. It is on the root file system, because
// a status in /run would not survive the reboot that follows a transaction.
const jobRoot = "/var/lib/upgradectl"

// validKey keeps job keys harmless in paths, unit names, and shell words.
var validKey = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// A JobPhase says how far a detached job has come.
type JobPhase string

// The phases of a job.
const (
	JobAbsent  JobPhase = "absent"  // never started under this key
	JobRunning JobPhase = "running" // started, no exit status yet
	JobExited  JobPhase = "exited"  // ended; Status is its exit status
	JobLost    JobPhase = "lost"    // ended without a status: killed, or cut off by a reboot
)

// JobState is what the host's disk says of a job.
type JobState struct {
	Phase  JobPhase `json:"phase"`
	Status int      `json:"status"`
}

// jobs works on the jobs below root: jobRoot, but in tests.
type jobs struct{ root string }

func (j jobs) dir(key string) string { return j.root + "/" + key }

// jobRun is what runs detached. Making "started" claims the job, and it is on
// disk before the first line of the script runs. The script gets the umask and
// the home of an ordinary login: what packages' scriptlets make must be readable,
// and a unit of systemd has no HOME, which scripts that were written for a login
// ask for.
const jobRun = `umask 077
d=@D@
mkdir "$d/started" 2>/dev/null || exit 0
echo $$ >"$d/started/pid"
sync
(umask 022; export HOME="${HOME:-/root}"; exec /bin/sh "$d/script") >"$d/log" 2>&1 </dev/null
echo $? >"$d/status.tmp"
sync
mv -f "$d/status.tmp" "$d/status"
`

// jobStart reads the script from standard input and launches jobRun. The order
// matters: script and run are complete before anything is launched, and
// "started" is made by the job. A connection that drops anywhere in between
// leaves a directory that a second call completes. Every file takes its name
// when it is whole, under a temporary name of this shell's own: two of us may
// be here at once. The checksum keeps half a script from running, which is
// what a connection that drops in the middle of it leaves.
const jobStart = `set -eu
umask 077
d=@D@
mkdir -p "$d"
if [ -e "$d/started" ] || [ -e "$d/status" ]; then exit 0; fi
cat >"$d/script.$$"
if [ "$(sha256sum <"$d/script.$$")" != "@SUM@  -" ]; then
	rm -f "$d/script.$$"
	echo "the script did not arrive whole" >&2
	exit 1
fi
mv -f "$d/script.$$" "$d/script"
cat /proc/sys/kernel/random/boot_id >"$d/boot.$$"
mv -f "$d/boot.$$" "$d/boot"
cat >"$d/run.$$" <<'END'
@RUN@END
mv -f "$d/run.$$" "$d/run"
if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
	u=upgradectl-@KEY@
	# systemd before version 236 has no --collect.
	collect=
	case $(systemd-run --help) in *--collect*) collect=--collect;; esac
	if systemd-run --unit=$u $collect --quiet /bin/sh "$d/run"; then exit 0; fi
	# Launched twice: the other one has the name, and its job runs, has begun,
	# or is about to. In this order: what ends between two looks had begun.
	if systemctl is-active $u >/dev/null || [ -e "$d/started" ]; then exit 0; fi
	sleep 1
	if systemctl is-active $u >/dev/null || [ -e "$d/started" ]; then exit 0; fi
	exit 1
fi
setsid /bin/sh "$d/run" >/dev/null 2>&1 </dev/null &
`

// jobState prints the phase of a job. A process ID alone proves nothing, it
// may have been given anew; the command line names the job. When the job's own
// shell was killed, systemd ends what it has started, and only then the job is
// over. Without --collect the unit stays as failed then, which would read as a
// fault of the host's.
const jobState = `d=@D@
ended() { if [ -e "$d/status" ]; then echo exited; cat "$d/status"; exit 0; fi; }
ended
if [ ! -e "$d/started" ]; then echo absent; exit 0; fi
if [ "$(cat "$d/boot")" = "$(cat /proc/sys/kernel/random/boot_id)" ]; then
	if [ ! -s "$d/started/pid" ]; then echo running; exit 0; fi
	p=$(cat "$d/started/pid")
	c=$({ tr '\000' ' ' <"/proc/$p/cmdline"; } 2>/dev/null)
	case "$c" in *" $d/run "*) echo running; exit 0;; esac
	ended
	if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
		u=upgradectl-@KEY@.service
		case $(systemctl is-active $u 2>/dev/null) in
		active|deactivating) echo running; exit 0;;
		failed) systemctl reset-failed $u;;
		esac
	fi
fi
ended
echo lost
`

// StartJob runs script with /bin/sh as the connection's user, detached from
// the connection, under key ([a-z0-9-], at most 64 bytes). It returns when
// the job is launched, not when it ends.
//
// Calling it again with the same key is safe at any point: the job itself
// claims its directory before the first line of script runs, so it runs at
// most once even if it was launched twice. Standard input of the script is
// empty; standard output and standard error go to the job's log (JobLog).
func StartJob(ctx context.Context, h Host, key, script string) error {
	return jobs{jobRoot}.start(ctx, h, key, script)
}

func (j jobs) start(ctx context.Context, h Host, key, script string) error {
	if !validKey.MatchString(key) {
		return fmt.Errorf("cannot start job %q: a key has 1 to 64 of a-z, 0-9 and -", key)
	}
	sum := sha256.Sum256([]byte(script))
	cmd := strings.ReplaceAll(jobStart, "@RUN@", jobRun)
	cmd = strings.NewReplacer("@D@", shellq.Quote(j.dir(key)), "@KEY@", key, "@SUM@", hex.EncodeToString(sum[:])).Replace(cmd)
	if _, err := output(ctx, h, cmd, strings.NewReader(script)); err != nil {
		return fmt.Errorf("cannot start job %s: %w", key, err)
	}
	return nil
}

// GetJob reads the state of the job with that key. It changes nothing but this:
// the unit of a lost job, which an old systemd keeps as failed, is let go.
func GetJob(ctx context.Context, h Host, key string) (JobState, error) {
	return jobs{jobRoot}.get(ctx, h, key)
}

func (j jobs) get(ctx context.Context, h Host, key string) (JobState, error) {
	if !validKey.MatchString(key) {
		return JobState{}, fmt.Errorf("cannot read job %q: a key has 1 to 64 of a-z, 0-9 and -", key)
	}
	cmd := strings.NewReplacer("@D@", shellq.Quote(j.dir(key)), "@KEY@", key).Replace(jobState)
	out, err := output(ctx, h, cmd, nil)
	if err != nil {
		return JobState{}, fmt.Errorf("cannot read the state of job %s: %w", key, err)
	}
	f := strings.Fields(out)
	if len(f) == 0 {
		return JobState{}, fmt.Errorf("cannot read the state of job %s: the host answered nothing", key)
	}
	st := JobState{Phase: JobPhase(f[0])}
	switch st.Phase {
	case JobAbsent, JobRunning, JobLost:
		return st, nil
	case JobExited:
		if len(f) == 2 {
			if st.Status, err = strconv.Atoi(f[1]); err == nil {
				return st, nil
			}
		}
	}
	return JobState{}, fmt.Errorf("cannot read the state of job %s: unexpected answer %q", key, firstBytes(out, 80))
}

// JobLog gives the last 4 KiB of what the job wrote.
func JobLog(ctx context.Context, h Host, key string) (string, error) {
	return jobs{jobRoot}.log(ctx, h, key)
}

func (j jobs) log(ctx context.Context, h Host, key string) (string, error) {
	if !validKey.MatchString(key) {
		return "", fmt.Errorf("cannot read the log of job %q: bad key", key)
	}
	b, err := h.ReadFile(ctx, j.dir(key)+"/log")
	if err != nil {
		return "", fmt.Errorf("cannot read the log of job %s: %w", key, err)
	}
	return lastBytes(string(b), 4096), nil
}

// ReadJobLog gives all that the job wrote, standard output and standard error
// as they came: the answer of a script whose exit status says little.
func ReadJobLog(ctx context.Context, h Host, key string) ([]byte, error) {
	if !validKey.MatchString(key) {
		return nil, fmt.Errorf("cannot read the log of job %q: bad key", key)
	}
	b, err := h.ReadFile(ctx, jobRoot+"/"+key+"/log")
	if err != nil {
		return nil, fmt.Errorf("cannot read the log of job %s: %w", key, err)
	}
	return b, nil
}

// A JobError reports a job that ended badly.
type JobError struct {
	Key   string
	State JobState
	Log   string // the end of what it wrote
}

func (e *JobError) Error() string {
	what := fmt.Sprintf("ended with status %d", e.State.Status)
	if e.State.Phase == JobLost {
		what = "ended without a status: it was killed or cut off by a reboot"
	}
	msg := fmt.Sprintf("job %s %s", e.Key, what)
	if log := strings.TrimSpace(lastBytes(e.Log, 400)); log != "" {
		msg += ": " + log
	}
	return msg + " (whole log: " + jobRoot + "/" + e.Key + "/log on the host)"
}

// WaitJob blocks until the job has ended. It asks the host every poll (0: 3
// seconds), and bears a connection that fails: redial, when not nil, is asked
// for a new Host then. It does not wait for a host that shows another key
// (IsWrongKey). A bad end is a *JobError; an ended context keeps its cause, and
// the error says what was seen last.
func WaitJob(ctx context.Context, h Host, key string, poll time.Duration, redial func(context.Context) (Host, error)) (JobState, error) {
	return jobs{jobRoot}.wait(ctx, h, key, poll, redial)
}

func (j jobs) wait(ctx context.Context, h Host, key string, poll time.Duration, redial func(context.Context) (Host, error)) (JobState, error) {
	if !validKey.MatchString(key) {
		return JobState{}, fmt.Errorf("cannot wait for job %q: a key has 1 to 64 of a-z, 0-9 and -", key)
	}
	t := newTicker(poll)
	defer t.Stop()
	var last JobState
	seen := "not seen yet"
	var trouble error
	for {
		st, err := j.get(ctx, h, key)
		switch {
		case err == nil && st.Phase == JobExited && st.Status == 0:
			return st, nil
		case err == nil && (st.Phase == JobExited || st.Phase == JobLost):
			log, _ := j.log(ctx, h, key) // best effort: the status is what matters
			return st, &JobError{Key: key, State: st, Log: log}
		case err == nil:
			last, seen, trouble = st, fmt.Sprintf("still %q", st.Phase), nil
		case ctx.Err() == nil:
			trouble = err
			if redial != nil {
				if nh, derr := redial(ctx); derr == nil {
					h = nh
				} else if ctx.Err() == nil {
					trouble = derr
				}
			}
			if IsWrongKey(trouble) {
				return last, fmt.Errorf("job %s %s: %w", key, seen, trouble)
			}
		}
		select {
		case <-ctx.Done():
			if trouble != nil {
				seen += fmt.Sprintf(" (last trouble: %v)", trouble)
			}
			return last, fmt.Errorf("job %s %s: %w", key, seen, ctx.Err())
		case <-t.C:
		}
	}
}

// IsWrongKey tells whether a host was not believed because of the SSH key that
// it shows: no waiting makes that right.
func IsWrongKey(err error) bool {
	var unknown *hostinv.UnknownHostKeyError
	var changed *hostinv.HostKeyChangedError
	var revoked *hostinv.HostKeyRevokedError
	return errors.As(err, &unknown) || errors.As(err, &changed) || errors.As(err, &revoked)
}

// newTicker ticks every poll, or every three seconds when poll is not
// positive.
func newTicker(poll time.Duration) *time.Ticker {
	if poll <= 0 {
		poll = 3 * time.Second
	}
	return time.NewTicker(poll)
}

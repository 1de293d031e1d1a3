package hostos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// StartJob runs script with /bin/sh as the connection's user, detached from
// the connection, under key ([a-z0-9-], at most 64 bytes). It returns when
// the job is started, not when it ends.
//
// Calling it again with the same key is safe at any point: the job itself
// claims its directory before the first line of script runs, so it runs at
// most once even if it was launched twice. Standard input of the script is
// empty; standard output and standard error go to the job's log (JobLog).
func StartJob(ctx context.Context, h Host, key, script string) error {
	if !validKey.MatchString(key) {
		return fmt.Errorf("cannot start job %q: a key has 1 to 64 of a-z, 0-9 and -", key)
	}
	d := jobRoot + "/" + key
	// The order matters: script and run are complete before anything is
	// launched, and "started" is made by the job, not by us. A connection that
	// drops anywhere in between leaves a directory that a second call completes.
	cmd := strings.NewReplacer("@D@", d, "@U@", "upgradectl-"+key).Replace(`set -eu
umask 077
mkdir -p ` + jobRoot + `
mkdir -p @D@
if [ -e @D@/started ] || [ -e @D@/status ]; then exit 0; fi
cat >@D@/script.tmp
mv -f @D@/script.tmp @D@/script
cat /proc/sys/kernel/random/boot_id >@D@/boot
cat >@D@/run <<'END'
mkdir @D@/started || exit 0
echo $$ >@D@/started/pid
/bin/sh @D@/script >@D@/log 2>&1 </dev/null
echo $? >@D@/status.tmp
sync
mv -f @D@/status.tmp @D@/status
END
if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
	systemd-run --unit=@U@ --collect --quiet /bin/sh @D@/run
else
	setsid /bin/sh @D@/run >/dev/null 2>&1 </dev/null &
fi
`)
	if _, err := output(ctx, h, cmd, strings.NewReader(script)); err != nil {
		return fmt.Errorf("cannot start job %s: %w", key, err)
	}
	return nil
}

// GetJob reads the state of the job with that key.
func GetJob(ctx context.Context, h Host, key string) (JobState, error) {
	if !validKey.MatchString(key) {
		return JobState{}, fmt.Errorf("cannot read job %q: a key has 1 to 64 of a-z, 0-9 and -", key)
	}
	cmd := strings.ReplaceAll(`d=@D@
if [ -e $d/status ]; then echo exited; cat $d/status; exit 0; fi
if [ ! -e $d/started ]; then echo absent; exit 0; fi
if [ "$(cat $d/boot)" != "$(cat /proc/sys/kernel/random/boot_id)" ]; then echo lost; exit 0; fi
if [ ! -s $d/started/pid ]; then echo running; exit 0; fi
if kill -0 "$(cat $d/started/pid)" 2>/dev/null; then echo running; exit 0; fi
if [ -e $d/status ]; then echo exited; cat $d/status; exit 0; fi
echo lost
`, "@D@", jobRoot+"/"+key)
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
	if !validKey.MatchString(key) {
		return "", fmt.Errorf("cannot read the log of job %q: bad key", key)
	}
	b, err := h.ReadFile(ctx, jobRoot+"/"+key+"/log")
	if err != nil {
		return "", fmt.Errorf("cannot read the log of job %s: %w", key, err)
	}
	return lastBytes(string(b), 4096), nil
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

// WaitJob blocks until the job has ended. It asks the host every poll, and
// bears a connection that fails: redial, when not nil, is asked for a new
// Host then. A bad end is a *JobError; an ended context keeps its cause.
func WaitJob(ctx context.Context, h Host, key string, poll time.Duration, redial func(context.Context) (Host, error)) (JobState, error) {
	t := time.NewTicker(poll)
	defer t.Stop()
	last := JobState{Phase: JobAbsent}
	var trouble error
	for {
		st, err := GetJob(ctx, h, key)
		switch {
		case err == nil && st.Phase == JobExited && st.Status == 0:
			return st, nil
		case err == nil && (st.Phase == JobExited || st.Phase == JobLost):
			log, _ := JobLog(ctx, h, key) // best effort: the status is what matters
			return st, &JobError{Key: key, State: st, Log: log}
		case err == nil:
			last, trouble = st, nil
		default:
			trouble = err
			if redial != nil && ctx.Err() == nil {
				if nh, derr := redial(ctx); derr == nil {
					h = nh
				} else {
					trouble = derr
				}
			}
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("job %s still %q: %w", key, last.Phase, ctx.Err())
			if trouble != nil && !errors.Is(trouble, ctx.Err()) {
				err = fmt.Errorf("%w (last trouble: %v)", err, trouble)
			}
			return last, err
		case <-t.C:
		}
	}
}

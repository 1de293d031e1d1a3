package remote

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// BootWait and BootReport are described at hostinv.BootWait and
// hostinv.BootReport.
type BootWait struct {
	From   string
	Stable time.Duration
	Poll   time.Duration
	Note   func(text string)
}

type BootReport struct {
	ID    string
	Boots []string
}

const (
	defaultStable  = time.Minute
	defaultPoll    = 3 * time.Second
	bootAsk        = 20 * time.Second // for one dial and question
	maxAuthRefused = 2                // in a row; servers punish more
)

var bootIDText = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// notYet is what pam_nologin and systemd-user-sessions say while a host goes
// down or comes up. Never written to.
var notYet = []string{"booting up", "not permitted to log in", "going down", "shutting down", "nologin"}

// WaitBoot waits for a host to have rebooted. See hostinv.Dialer.WaitBoot.
func (d *Dialer) WaitBoot(ctx context.Context, target string, w BootWait) (BootReport, error) {
	if !bootIDText.MatchString(w.From) {
		return BootReport{}, fmt.Errorf("cannot wait for %s to reboot: %q is no boot ID", target, shorten(w.From, 60))
	}
	if w.Stable <= 0 {
		w.Stable = defaultStable
	}
	if w.Poll <= 0 {
		w.Poll = defaultPoll
	}
	begin := time.Now()
	var r BootReport
	var since time.Time // the present boot was first seen
	last, refused := "it was not asked yet", 0
	note := func(text string) {
		if text != last && w.Note != nil {
			w.Note(fmt.Sprintf("%s after %v: %s", target, time.Since(begin).Round(time.Second), text))
		}
		last = text
	}
	tick := time.NewTicker(w.Poll)
	defer tick.Stop()
	for {
		id, ready, err := d.askBoot(ctx, target)
		switch {
		case ctx.Err() != nil || past(ctx):
			// What the end of the wait broke off says nothing about the host.
		case err != nil:
			since = time.Time{} // a host that does not answer is not stable
			if final, why := d.finalForBoot(err, &refused); final {
				return r, fmt.Errorf("%s did not come back: %s: %w", target, why, err)
			}
			note(err.Error())
		case id == w.From:
			refused = 0
			note("it is still in the old boot")
		default:
			refused = 0
			if r.ID != id {
				r.ID, since = id, time.Now()
				r.Boots = append(r.Boots, id)
				note(fmt.Sprintf("it is up in boot %s", id))
			}
			if since.IsZero() {
				since = time.Now()
			}
			if !ready {
				note("it is up, and still starting its services")
			} else if time.Since(since) >= w.Stable {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("%s did not come back to stay: %w; last seen: %s", target, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// past reports whether the deadline of ctx is over: what gives up at the same
// time may be quicker than ctx.
func past(ctx context.Context) bool {
	t, ok := ctx.Deadline()
	return ok && !time.Now().Before(t)
}

// finalForBoot says which errors no waiting mends.
func (d *Dialer) finalForBoot(err error, refused *int) (bool, string) {
	var (
		unknown *UnknownHostKeyError
		changed *HostKeyChangedError
		revoked *HostKeyRevokedError
		auth    *AuthError
		sudo    *SudoError
		config  *ConfigError
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &changed), errors.As(err, &revoked):
		return true, "another host key answers there"
	case errors.As(err, &config):
		return true, "it cannot be dialed"
	case errors.As(err, &auth):
		text := strings.ToLower(err.Error())
		for _, s := range notYet {
			if strings.Contains(text, s) {
				*refused = 0
				return false, ""
			}
		}
		*refused++
		return *refused >= maxAuthRefused || len(auth.Offered) == 0, "it refuses the login"
	case errors.As(err, &sudo):
		*refused++
		return *refused >= maxAuthRefused, "it refuses sudo"
	}
	*refused = 0
	return false, ""
}

// bootQuestion prints the boot ID and, under systemd, the state of the system.
const bootQuestion = "cat /proc/sys/kernel/random/boot_id || exit 1\n" +
	"if [ -d /run/systemd/system ]; then systemctl is-system-running 2>/dev/null; fi; :"

// askBoot dials and asks. ready = the host is not starting or stopping.
func (d *Dialer) askBoot(ctx context.Context, target string) (id string, ready bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootAsk)
	defer cancel()
	c, err := d.Dial(ctx, target)
	if err != nil {
		return "", false, err
	}
	defer c.Close()
	got, err := c.Exec(ctx, Cmd{Line: bootQuestion, MaxOutput: 4 << 10})
	if err != nil {
		return "", false, err
	}
	f := strings.Fields(string(got.Stdout))
	if len(f) == 0 || !bootIDText.MatchString(f[0]) {
		return "", false, fmt.Errorf("%s answered %q instead of its boot ID", target, shorten(string(got.Stdout), 100))
	}
	state := ""
	if len(f) > 1 {
		state = f[1]
	}
	return f[0], state != "initializing" && state != "starting" && state != "stopping", nil
}

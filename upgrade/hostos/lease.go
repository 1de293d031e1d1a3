package hostos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Lease says which run changes a host, and which process of it: the one that
// took it last. It is the file /var/lib/upgradectl/lease of the host.
//
// Nothing expires by itself. A process that is dead leaves its lease behind;
// the same run takes it over when it is resumed, anybody else has to break it
// (BreakLease), after seeing that Beat stands still.
type Lease struct {
	Run    string `json:"run"`
	Epoch  uint64 `json:"epoch"`  // grows by one whenever the host's lease is taken
	Token  string `json:"token"`  // of the process, random
	Since  string `json:"since"`  // the holder's wall clock, for people
	Holder string `json:"holder"` // user@machine
	Beat   uint64 `json:"beat"`   // grows while the holder lives
	// From is who held it for the same run before TakeLease took it over.
	From string `json:"from,omitempty"`
}

// A LeaseHeldError reports that another run changes the host.
type LeaseHeldError struct{ Lease Lease }

func (e *LeaseHeldError) Error() string {
	return fmt.Sprintf("run %s of %s changes this host, since %s; wait for its end, or break its lease with upgradectl unlock when it is dead", e.Lease.Run, e.Lease.Holder, e.Lease.Since)
}

// ErrFenced is returned when the host's lease is no longer the one that a
// process holds: the run was resumed elsewhere, or the lease was broken.
// Nothing was changed by the call that returns it.
var ErrFenced = errors.New("the lease of this host was taken over: another process goes on with the run, or somebody broke its lease")

// leaseField keeps the file's line splittable by a shell.
var leaseField = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}$`)

// leases works on the lease below root: jobRoot, but in tests.
type leases struct{ root string }

// leaseTake makes this process the holder, unless another run holds the lease.
// Creating is a link, which only one can win; going on with the same run, or
// with a lease that was seen before (@SEEN@, its token), is a rename: the last
// one holds, and the guard tells the others so.
const leaseTake = `set -eu
umask 077
mkdir -p @ROOT@
cd @ROOT@
new=lease.@TOKEN@
# Looked at and read at once: its holder may give it back in between.
if l=$(cat lease 2>/dev/null); then
	set -f
	set -- $l
	if [ "$1" != @RUN@ ] && [ "$3" != @SEEN@ ]; then
		echo "held $* $(cat beat 2>/dev/null || echo 0)"
		exit 0
	fi
	epoch=$(($2+1)) from=$5
	printf '%s\n' "@RUN@ $epoch @TOKEN@ @SINCE@ @HOLDER@" >$new
	mv -f $new lease
else
	epoch=$(($(cat epoch 2>/dev/null || echo 0)+1))
	printf '%s\n' "@RUN@ $epoch @TOKEN@ @SINCE@ @HOLDER@" >$new
	if ! ln $new lease 2>/dev/null; then
		rm -f $new
		l=$(cat lease) # gone already: the call fails, and may come again
		echo "held $l 0"
		exit 0
	fi
	rm -f $new
fi
echo $epoch >epoch.@TOKEN@
mv -f epoch.@TOKEN@ epoch
echo 0 >beat
echo "taken $epoch ${from-}"
`

// TakeLease makes this process the one that changes the host for run; holder
// (user@machine) and since are what others are told. Where another run holds
// the host, the error is a *LeaseHeldError. A lease of the same run is taken
// over, whoever holds it: that fences the old process.
func TakeLease(ctx context.Context, h Host, run, holder string, since time.Time) (*Lease, error) {
	return leases{jobRoot}.take(ctx, h, run, holder, since, "")
}

func (s leases) take(ctx context.Context, h Host, run, holder string, since time.Time, seen string) (*Lease, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	l := &Lease{Run: run, Token: hex.EncodeToString(b[:]), Since: since.UTC().Format(time.RFC3339), Holder: holder}
	if !leaseField.MatchString(run) || !leaseField.MatchString(holder) {
		return nil, fmt.Errorf("cannot take a lease as run %q of %q: only letters, digits and . _ : @ + - are allowed", run, holder)
	}
	if seen == "" {
		seen = "-" // no token
	}
	out, err := output(ctx, h, strings.NewReplacer("@ROOT@", shellq.Quote(s.root), "@RUN@", run, "@TOKEN@", l.Token, "@SEEN@", seen, "@SINCE@", l.Since, "@HOLDER@", holder).Replace(leaseTake), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot take the lease of the host: %w", err)
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(out), " ")
	switch word {
	case "taken":
		epoch, from, _ := strings.Cut(rest, " ")
		if l.Epoch, err = strconv.ParseUint(epoch, 10, 64); err == nil {
			l.From = strings.TrimSpace(from)
			return l, nil
		}
	case "held":
		if other, err := parseLease(rest); err == nil {
			return nil, &LeaseHeldError{other}
		}
	}
	return nil, fmt.Errorf("cannot take the lease of the host: unexpected answer %q; look at %s/lease there", firstBytes(out, 120), s.root)
}

func parseLease(line string) (Lease, error) {
	f := strings.Fields(line)
	if len(f) != 6 {
		return Lease{}, fmt.Errorf("lease %q has %d fields, not 6", firstBytes(line, 120), len(f))
	}
	l := Lease{Run: f[0], Token: f[2], Since: f[3], Holder: f[4]}
	var err error
	if l.Epoch, err = strconv.ParseUint(f[1], 10, 64); err != nil {
		return Lease{}, fmt.Errorf("lease %q: %w", firstBytes(line, 120), err)
	}
	if l.Beat, err = strconv.ParseUint(f[5], 10, 64); err != nil {
		return Lease{}, fmt.Errorf("lease %q: %w", firstBytes(line, 120), err)
	}
	return l, nil
}

// GetLease reads who holds the host; nil when nobody does.
func GetLease(ctx context.Context, h Host) (*Lease, error) { return leases{jobRoot}.get(ctx, h) }

func (s leases) get(ctx context.Context, h Host) (*Lease, error) {
	out, err := output(ctx, h, strings.ReplaceAll(`cd @ROOT@ 2>/dev/null || exit 0
l=$(cat lease) || { [ ! -e lease ]; exit; }
echo "$l $(cat beat 2>/dev/null || echo 0)"`, "@ROOT@", shellq.Quote(s.root)), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lease of the host: %w", err)
	}
	if out = strings.TrimSpace(out); out == "" {
		return nil, nil
	}
	l, err := parseLease(out)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lease of the host: %w; look at %s/lease there", err, s.root)
	}
	return &l, nil
}

// Guard is a POSIX sh command line that succeeds only while the host's lease is
// l, and says why when it is not. Put before a change in the same command, it
// keeps a process that was replaced from making the change.
func (l *Lease) Guard() string { return leases{jobRoot}.guard(l) }

func (s leases) guard(l *Lease) string {
	return fmt.Sprintf(`case "$(cat %s 2>/dev/null)" in "%s %d %s "*) ;; *) echo 'upgradectl: the lease of this host was taken over' >&2; false;; esac`,
		shellq.Quote(s.root+"/lease"), l.Run, l.Epoch, l.Token)
}

// Fence puts l's guard before cmd. A command that it keeps from running ends
// with an error that IsFenced knows.
func (l *Lease) Fence(cmd string) string { return leases{jobRoot}.fence(l, cmd) }

func (s leases) fence(l *Lease, cmd string) string {
	return fmt.Sprintf("%s || exit %d\n%s", s.guard(l), shellq.StatusFenced, cmd)
}

// FenceLast is Fence for the last command of a host that goes away: when it
// succeeds, the lease is gone with it.
func (l *Lease) FenceLast(cmd string) string { return leases{jobRoot}.fenceLast(l, cmd) }

func (s leases) fenceLast(l *Lease, cmd string) string {
	return s.fence(l, cmd) + "\ns=$?\n[ $s != 0 ] || rm -f " + shellq.Quote(s.root+"/lease") + " " + shellq.Quote(s.root+"/beat") + "\nexit $s"
}

// IsFenced tells whether err is the end of a command that Fence kept from
// running. A command of the caller's must not end with that status
// itself, [shellq.StatusFenced], which internal/archtest sees to.
func IsFenced(err error) bool {
	status, ran := exitStatus(err)
	return ran && status == shellq.StatusFenced
}

// CheckLease sees that the host's lease still is l: ErrFenced when it is not.
func CheckLease(ctx context.Context, h Host, l *Lease) error {
	return leases{jobRoot}.run(ctx, h, l, "check", ":")
}

// KeepLease shows others that the holder lives: it adds one to Beat.
func KeepLease(ctx context.Context, h Host, l *Lease) error {
	return leases{jobRoot}.keep(ctx, h, l)
}

func (s leases) keep(ctx context.Context, h Host, l *Lease) error {
	return s.run(ctx, h, l, "keep", strings.NewReplacer("@ROOT@", shellq.Quote(s.root), "@TOKEN@", l.Token).Replace(`cd @ROOT@
echo $(($(cat beat 2>/dev/null || echo 0)+1)) >beat.@TOKEN@
mv -f beat.@TOKEN@ beat`))
}

// ReleaseLease gives the host back. One that is not ours any more is left
// alone (ErrFenced).
func ReleaseLease(ctx context.Context, h Host, l *Lease) error {
	return leases{jobRoot}.release(ctx, h, l)
}

// Renamed first and looked at then: between a look and a removal somebody else
// could have taken it.
func (s leases) release(ctx context.Context, h Host, l *Lease) error {
	return s.run(ctx, h, l, "release", strings.NewReplacer("@ROOT@", shellq.Quote(s.root), "@TOKEN@", l.Token, "@FENCED@", strconv.Itoa(shellq.StatusFenced)).Replace(`cd @ROOT@
mv lease gone.@TOKEN@
case "$(cat gone.@TOKEN@)" in
*" @TOKEN@ "*) rm -f gone.@TOKEN@ beat;;
*) ln gone.@TOKEN@ lease; rm -f gone.@TOKEN@; exit @FENCED@;;
esac`))
}

func (s leases) run(ctx context.Context, h Host, l *Lease, verb, cmd string) error {
	_, err := output(ctx, h, s.fence(l, cmd), nil)
	if IsFenced(err) {
		return fmt.Errorf("cannot %s the lease of run %s, epoch %d: %w", verb, l.Run, l.Epoch, ErrFenced)
	}
	if err != nil {
		return fmt.Errorf("cannot %s the lease of run %s: %w", verb, l.Run, err)
	}
	return nil
}

// WaitLeaseStill watches the lease for as long as d, asking every poll, and
// returns it when its holder gave no sign of life: nil when nobody holds the
// host any more, a *LeaseHeldError when Beat has grown or the holder is another
// one. Only this machine's clock counts.
func WaitLeaseStill(ctx context.Context, h Host, d, poll time.Duration) (*Lease, error) {
	return leases{jobRoot}.waitStill(ctx, h, d, poll)
}

func (s leases) waitStill(ctx context.Context, h Host, d, poll time.Duration) (*Lease, error) {
	first, err := s.get(ctx, h)
	if err != nil || first == nil {
		return nil, err
	}
	end := time.NewTimer(d)
	defer end.Stop()
	t := newTicker(poll)
	defer t.Stop()
	for over := false; ; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end.C:
			over = true
		case <-t.C:
		}
		now, err := s.get(ctx, h)
		switch {
		case err != nil || now == nil:
			return nil, err
		case now.Token != first.Token || now.Beat != first.Beat:
			return nil, &LeaseHeldError{*now}
		case over:
			return now, nil
		}
	}
}

// BreakLease takes the host from a holder that was seen to be dead
// (WaitLeaseStill) and frees it. A lease that is another one by now, or whose
// Beat has grown since, is left alone: *LeaseHeldError. Who did it, when and
// why is added to /var/lib/upgradectl/unlocks on the host.
func BreakLease(ctx context.Context, h Host, seen Lease, who, why string, now time.Time) error {
	return leases{jobRoot}.breakLease(ctx, h, seen, who, why, now)
}

func (s leases) breakLease(ctx context.Context, h Host, seen Lease, who, why string, now time.Time) error {
	if strings.TrimSpace(why) == "" {
		return errors.New("cannot break a lease without a reason")
	}
	cur, err := s.get(ctx, h)
	if err != nil || cur == nil {
		return err
	}
	if cur.Token != seen.Token || cur.Beat != seen.Beat {
		return &LeaseHeldError{*cur}
	}
	l, err := s.take(ctx, h, "unlock", who, now, seen.Token)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%s %s broke the lease of run %s (epoch %d, %s, since %s): %q", l.Since, who, seen.Run, seen.Epoch, seen.Holder, seen.Since, why)
	if err := s.run(ctx, h, l, "break", "umask 077\nprintf '%s\\n' "+shellq.Quote(line)+" >>"+shellq.Quote(s.root+"/unlocks")); err != nil {
		return err
	}
	return s.release(ctx, h, l)
}

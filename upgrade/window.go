package upgrade

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WindowsConfig says when production may be worked on and its traffic moved:
// the maintenance windows, less the freezes. The zero value allows it always.
type WindowsConfig struct {
	Timezone string `json:"timezone,omitempty"` // IANA name, as Asia/Shanghai
	// Allow are weekly times, as "Sat,Sun 01:00-05:00", "Fri 22:00-06:00" (into
	// Saturday) or "daily 01:00-05:00", and dates, as "2026-11-28" or
	// "2026-11-27 22:00 to 2026-11-28 06:00". Empty: always.
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"` // of the same form; wins over Allow

	Traffic time.Duration `json:"traffic,omitempty"` // how long a move of traffic takes
	Upgrade time.Duration `json:"upgrade,omitempty"` // how long production is worked on; 0: what it took on the transition host and half as much again, at least minUpgrade
}

// none tells whether nothing is held to any time.
func (c WindowsConfig) none() bool { return len(c.Allow)+len(c.Deny) == 0 }

// String is what a plan says of the windows.
func (c WindowsConfig) String() string {
	s := "always"
	if len(c.Allow) > 0 {
		s = strings.Join(c.Allow, "; ")
	}
	if len(c.Deny) > 0 {
		s += "; not " + strings.Join(c.Deny, "; ")
	}
	return s + " (" + c.Timezone + ")"
}

// A span is a stretch of time, from the first instant to the one after its end.
type span struct{ from, to time.Time }

// horizon is how far ahead windows are looked for.
const horizon = 366 * 24 * time.Hour

// A rule is one entry of WindowsConfig: days of the week with a time of day, or
// two local times of a calendar.
type rule struct {
	days     [7]bool
	from, to clock
	dated    bool
	first    civil
	last     civil // the end, not included
}

// clock is minutes after midnight, up to 24:00.
type clock int

// civil is a local time, which stands for one instant, two or none.
type civil struct {
	year  int
	month time.Month
	day   int
	at    clock
}

var (
	weeklyRule = regexp.MustCompile(`^(?:([A-Za-z,-]+) )?(\d\d:\d\d)-(\d\d:\d\d)$`)
	datedRule  = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d))?(?: to (\d{4}-\d\d-\d\d)(?: (\d\d:\d\d))?)?$`)
	weekdays   = [...]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
)

const ruleForm = `is no time such as "Sat,Sun 01:00-05:00", "daily 01:00-05:00", "2026-11-28" or "2026-11-27 22:00 to 2026-11-28 06:00"`

// parseRule reads an entry. The error is what is wrong with it.
func parseRule(s string) (rule, error) {
	var r rule
	if m := weeklyRule.FindStringSubmatch(s); m != nil {
		var err error
		if r.days, err = parseDays(m[1]); err != nil {
			return r, err
		}
		var ok, fine bool
		r.from, ok = parseClock(m[2])
		r.to, fine = parseClock(m[3])
		if !ok || !fine || r.from == 24*60 {
			return r, errors.New("has a time of day that is not between 00:00 and 24:00")
		}
		return r, nil
	}
	m := datedRule.FindStringSubmatch(s)
	if m == nil {
		return r, errors.New(ruleForm)
	}
	r.dated = true
	first, err := time.Parse(time.DateOnly, m[1])
	if err != nil {
		return r, errors.New("has a date that is in no calendar")
	}
	end := first
	if m[3] != "" {
		if end, err = time.Parse(time.DateOnly, m[3]); err != nil {
			return r, errors.New("has a date that is in no calendar")
		}
	}
	from, to := clock(0), clock(24*60)
	ok, fine := true, true
	if m[2] != "" {
		from, ok = parseClock(m[2])
	}
	if m[4] != "" {
		to, fine = parseClock(m[4])
	}
	switch {
	case !ok || !fine:
		return r, errors.New("has a time of day that is not between 00:00 and 24:00")
	case m[2] != "" && m[3] == "":
		return r, errors.New("has a beginning and no end")
	}
	r.first, r.last = onDay(first, from), onDay(end, to)
	if !first.Add(time.Duration(from) * time.Minute).Before(end.Add(time.Duration(to) * time.Minute)) {
		return r, errors.New("ends before it begins")
	}
	return r, nil
}

func onDay(d time.Time, at clock) civil { return civil{d.Year(), d.Month(), d.Day(), at} }

// parseDays reads "Sat,Sun", "Mon-Fri", "daily", or nothing for every day.
func parseDays(s string) (days [7]bool, err error) {
	if s == "" || strings.EqualFold(s, "daily") {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	day := func(name string) int {
		return slices.IndexFunc(weekdays[:], func(d string) bool { return strings.EqualFold(d, name) })
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(part, "-")
		a, b := day(first), day(last)
		if !ranged {
			b = a
		}
		if a < 0 || b < 0 {
			return days, fmt.Errorf("has a day that is none of %s, or daily", strings.Join(weekdays[:], ", "))
		}
		for d := a; ; d = (d + 1) % 7 {
			days[d] = true
			if d == b {
				break
			}
		}
	}
	return days, nil
}

func parseClock(s string) (clock, bool) {
	h, err := strconv.Atoi(s[:2])
	m, merr := strconv.Atoi(s[3:])
	if err != nil || merr != nil || m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, false
	}
	return clock(60*h + m), true
}

// instant is when c is in loc. Where a clock is set back and shows c twice, it is
// the first time, or with last the second; where it is set forward past c, it is
// that moment.
func (c civil) instant(loc *time.Location, last bool) time.Time {
	wall := time.Date(c.year, c.month, c.day, 0, int(c.at), 0, 0, time.UTC)
	_, before := wall.Add(-36 * time.Hour).In(loc).Zone()
	_, after := wall.Add(36 * time.Hour).In(loc).Zone()
	var found []time.Time
	for _, offset := range []int{before, after} {
		t := wall.Add(-time.Duration(offset) * time.Second).In(loc)
		if t.Format("2006-01-02 15:04") == wall.Format("2006-01-02 15:04") {
			found = append(found, t)
		}
	}
	if len(found) == 0 {
		// The clock jumps over it: with the offset of afterwards it still lies before.
		_, end := wall.Add(-time.Duration(after) * time.Second).In(loc).ZoneBounds()
		return end
	}
	slices.SortFunc(found, time.Time.Compare)
	if last {
		return found[len(found)-1]
	}
	return found[0]
}

// spans are the stretches of r that touch the time from t to the horizon. With
// wide, what a clock that is set back shows twice belongs to them both times.
func (r rule) spans(t time.Time, loc *time.Location, wide bool) (out []span) {
	add := func(first, last civil) {
		s := span{first.instant(loc, false), last.instant(loc, wide)}
		if s.from.Before(s.to) && s.to.After(t) && s.from.Before(t.Add(horizon)) {
			out = append(out, s)
		}
	}
	if r.dated {
		add(r.first, r.last)
		return out
	}
	day := time.Date(t.In(loc).Year(), t.In(loc).Month(), t.In(loc).Day(), 12, 0, 0, 0, time.UTC).AddDate(0, 0, -2)
	for range int(horizon/(24*time.Hour)) + 3 {
		if r.days[day.Weekday()] {
			end := onDay(day, r.to)
			if r.to <= r.from {
				end = onDay(day.AddDate(0, 0, 1), r.to)
			}
			add(onDay(day, r.from), end)
		}
		day = day.AddDate(0, 0, 1)
	}
	return out
}

// windows are the maintenance windows of a configuration.
type windows struct {
	loc         *time.Location
	allow, deny []rule
}

// parse reads the entries; they were checked with the file.
func (c WindowsConfig) parse() (*windows, error) {
	loc, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return nil, fmt.Errorf("windows.timezone: %w", err)
	}
	w := &windows{loc: loc}
	for _, x := range []struct {
		from []string
		to   *[]rule
	}{{c.Allow, &w.allow}, {c.Deny, &w.deny}} {
		for _, s := range x.from {
			r, err := parseRule(s)
			if err != nil {
				return nil, fmt.Errorf("windows: %q %w", s, err)
			}
			*x.to = append(*x.to, r)
		}
	}
	return w, nil
}

// next gives the first stretch of at least need, from now on, in which work is
// allowed; it begins now where it has begun already. It is false when there is
// none before the horizon.
func (w *windows) next(now time.Time, need time.Duration) (span, bool) {
	open := []span{{now, now.Add(horizon)}}
	if len(w.allow) > 0 {
		open = nil
		for _, r := range w.allow {
			open = append(open, r.spans(now, w.loc, false)...)
		}
		open = merge(open)
	}
	var shut []span
	for _, r := range w.deny {
		shut = append(shut, r.spans(now, w.loc, true)...)
	}
	for _, d := range merge(shut) {
		var rest []span
		for _, o := range open {
			for _, part := range []span{{o.from, earlier(o.to, d.from)}, {later(o.from, d.to), o.to}} {
				if part.from.Before(part.to) {
					rest = append(rest, part)
				}
			}
		}
		open = rest
	}
	for _, o := range open {
		o.from = later(o.from, now)
		if o.from.Before(o.to) && o.to.Sub(o.from) >= need {
			return o, true
		}
	}
	return span{}, false
}

// merge sorts spans and joins those that touch.
func merge(in []span) (out []span) {
	slices.SortFunc(in, func(a, b span) int { return a.from.Compare(b.from) })
	for _, s := range in {
		if n := len(out); n > 0 && !s.from.After(out[n-1].to) {
			out[n-1].to = later(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

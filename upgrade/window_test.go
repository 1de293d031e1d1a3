package upgrade

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Which window is next, with everything that calendars and clocks do to it.
func TestNextWindow(t *testing.T) {
	const shanghai, berlin, lordHowe = "Asia/Shanghai", "Europe/Berlin", "Australia/Lord_Howe"
	list := func(s ...string) []string { return s }
	for _, c := range []struct {
		name, zone  string
		allow, deny []string
		now         string // UTC
		need        time.Duration
		from, to    string // UTC; "" = none
	}{
		{"next Saturday", shanghai, list("Sat 01:00-05:00"), nil, "2026-11-22 02:00", time.Hour, "2026-11-27 17:00", "2026-11-27 21:00"},
		{"it is open", shanghai, list("Sat 01:00-05:00"), nil, "2026-11-27 18:30", time.Hour, "2026-11-27 18:30", "2026-11-27 21:00"},
		{"what is left of it does not do", shanghai, list("Sat 01:00-05:00"), nil, "2026-11-27 20:30", time.Hour, "2026-12-04 17:00", "2026-12-04 21:00"},
		{"its last instant is over", "UTC", list("daily 01:00-05:00"), nil, "2026-11-22 05:00", 0, "2026-11-23 01:00", "2026-11-23 05:00"},
		{"past midnight", shanghai, list("Fri 22:00-06:00"), nil, "2026-11-27 19:00", 0, "2026-11-27 19:00", "2026-11-27 22:00"},
		{"past midnight, of Sunday", "UTC", list("Sun 22:00-02:00"), nil, "2026-11-23 01:00", 0, "2026-11-23 01:00", "2026-11-23 02:00"},
		{"days from Friday to Monday", "UTC", list("Fri-Mon 01:00-02:00"), nil, "2026-11-23 03:00", 0, "2026-11-27 01:00", "2026-11-27 02:00"},
		{"neighbours are one", "UTC", list("Sat 22:00-24:00", "Sun 00:00-04:00"), nil, "2026-11-23 00:00", 5 * time.Hour, "2026-11-28 22:00", "2026-11-29 04:00"},
		{"no time of day twice is the whole day", "UTC", list("Sat 00:00-00:00"), nil, "2026-11-23 00:00", 24 * time.Hour, "2026-11-28 00:00", "2026-11-29 00:00"},
		{"too long for any", "UTC", list("Sat 01:00-05:00"), nil, "2026-11-22 02:00", 5 * time.Hour, "", ""},
		{"a freeze", shanghai, list("Sat 01:00-05:00"), list("2026-11-28"), "2026-11-22 02:00", time.Hour, "2026-12-04 17:00", "2026-12-04 21:00"},
		{"a freeze ends in it", shanghai, list("Sat 01:00-05:00"), list("2026-11-20 00:00 to 2026-11-28 03:00"), "2026-11-22 02:00", time.Hour, "2026-11-27 19:00", "2026-11-27 21:00"},
		{"a freeze splits it", "UTC", list("Sat 01:00-09:00"), list("daily 02:00-04:00"), "2026-11-22 02:00", 2 * time.Hour, "2026-11-28 04:00", "2026-11-28 09:00"},
		{"freezes alone", "UTC", nil, list("Mon-Fri 08:00-20:00"), "2026-11-23 09:00", time.Hour, "2026-11-23 20:00", "2026-11-24 08:00"},
		{"freezes of several days", "UTC", nil, list("2026-11-20 to 2026-11-25"), "2026-11-22 09:00", time.Hour, "2026-11-26 00:00", "2027-11-23 09:00"},
		{"dates", "UTC", list("2026-11-27 22:00 to 2026-11-28 06:00"), nil, "2026-11-22 09:00", time.Hour, "2026-11-27 22:00", "2026-11-28 06:00"},
		{"dates are over", "UTC", list("2026-11-20"), nil, "2026-11-22 09:00", 0, "", ""},
		{"a leap day", "UTC", list("2028-02-29"), nil, "2028-02-20 00:00", 0, "2028-02-29 00:00", "2028-03-01 00:00"},

		// 28 March 2027: 02:00 is followed by 03:00; 31 October: 03:00 by 02:00.
		{"begins in the hour that is missing", berlin, list("Sun 02:30-04:00"), nil, "2027-03-27 00:00", 0, "2027-03-28 01:00", "2027-03-28 02:00"},
		{"ends in the hour that is missing", berlin, list("Sun 01:00-02:30"), nil, "2027-03-27 00:00", 0, "2027-03-28 00:00", "2027-03-28 01:00"},
		{"lies in the hour that is missing", berlin, list("Sun 02:10-02:50"), nil, "2027-03-27 00:00", 0, "2027-04-04 00:10", "2027-04-04 00:50"},
		{"is an hour shorter", berlin, list("Sun 01:00-05:00"), nil, "2027-03-27 00:00", 4 * time.Hour, "2027-04-03 23:00", "2027-04-04 03:00"},
		{"is an hour longer", berlin, list("Sun 01:00-05:00"), nil, "2027-10-30 00:00", 5 * time.Hour, "2027-10-30 23:00", "2027-10-31 04:00"},
		{"begins in the hour that comes twice", berlin, list("Sun 02:30-04:00"), nil, "2027-10-30 00:00", 0, "2027-10-31 00:30", "2027-10-31 03:00"},
		{"ends in the hour that comes twice", berlin, list("Sun 01:00-02:30"), nil, "2027-10-30 00:00", 0, "2027-10-30 23:00", "2027-10-31 00:30"},
		{"a freeze ends in the hour that comes twice", berlin, list("Sun 01:00-05:00"), list("Sun 01:00-02:30"), "2027-10-30 00:00", 0, "2027-10-31 01:30", "2027-10-31 04:00"},
		{"half an hour is missing", lordHowe, list("Sun 01:00-04:00"), nil, "2027-10-02 00:00", 0, "2027-10-02 14:30", "2027-10-02 17:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := WindowsConfig{Timezone: c.zone, Allow: c.allow, Deny: c.deny}.parse()
			require.NoError(t, err)
			at := func(s string) time.Time {
				at, err := time.Parse("2006-01-02 15:04", s)
				require.NoError(t, err)
				return at
			}
			got, ok := w.next(at(c.now), c.need)
			require.Equal(t, c.from != "", ok)
			if ok {
				assert.Equal(t, c.from+" to "+c.to, got.from.UTC().Format("2006-01-02 15:04")+" to "+got.to.UTC().Format("2006-01-02 15:04"))
			}
		})
	}
}

// What is not a time says why, and nothing that is one panics.
func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"Sat 01:00-05:00", "Sat,Mon-Wed 22:00-06:00", "daily 00:00-24:00", "2026-11-28", "2026-11-27 22:00 to 2026-11-28 06:00", "25:00-26:00", "Foo 01:00-02:00", "2026-02-30"} {
		f.Add(s)
	}
	now := time.Date(2027, 3, 27, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseRule(s); err != nil {
			assert.NotEmpty(t, err.Error())
			return
		}
		w, err := WindowsConfig{Timezone: "Europe/Berlin", Allow: []string{s}}.parse()
		require.NoError(t, err)
		if open, ok := w.next(now, 0); ok {
			assert.True(t, open.from.Before(open.to))
			assert.False(t, open.from.Before(now))
		}
	})
}

// The next window is the one that looking at the clock every minute finds.
func FuzzNextWindow(f *testing.F) {
	f.Add(uint8(6), uint16(60), uint16(300), uint8(1), uint16(600), uint16(660), uint32(7000), uint16(30))
	f.Add(uint8(5), uint16(1320), uint16(360), uint8(0), uint16(0), uint16(60), uint32(90), uint16(240))
	f.Fuzz(func(t *testing.T, day uint8, from, to uint16, off uint8, shut, open uint16, start uint32, need uint16) {
		word := func(d uint8, a, b uint16) (string, func(time.Time) bool) {
			a, b = a%1440, b%1441
			s := fmt.Sprintf("%s %02d:%02d-%02d:%02d", weekdays[d%7], a/60, a%60, b/60, b%60)
			return s, func(at time.Time) bool {
				m, today := uint16(at.Hour()*60+at.Minute()), uint8(at.Weekday())
				if b > a {
					return today == d%7 && m >= a && m < b
				}
				return today == d%7 && m >= a || today == (d+1)%7 && m < b
			}
		}
		allow, in := word(day, from, to)
		deny, out := word(off, shut, open)
		w, err := WindowsConfig{Timezone: "UTC", Allow: []string{allow}, Deny: []string{deny}}.parse()
		require.NoError(t, err)
		now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC).Add(time.Duration(start%20160) * time.Minute)
		wanted := time.Duration(max(need%600, 1)) * time.Minute
		got, ok := w.next(now, wanted)
		run, begin := time.Duration(0), time.Time{}
		for at := now; at.Before(now.Add(21 * 24 * time.Hour)); at = at.Add(time.Minute) {
			if !in(at) || out(at) {
				run = 0
				continue
			}
			if run == 0 {
				begin = at
			}
			if run += time.Minute; run == wanted {
				require.True(t, ok, "%s, not %s, at %s", allow, deny, now)
				require.Equal(t, begin, got.from.UTC(), "%s, not %s, at %s", allow, deny, now)
				return
			}
		}
		require.False(t, ok, "%s, not %s, at %s: %v", allow, deny, now, got)
	})
}

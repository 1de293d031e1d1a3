package upgrade

import (
	"slices"
	"strings"
	"time"
)

// windows reads the maintenance windows.
func (d *configDecoder) windows(m mapping, c *Config) {
	s := d.mapping(m.values["windows"], "windows", "timezone", "allow", "deny", "traffic", "upgrade")
	w := &c.Windows
	w.Timezone = s.text("timezone", "", func(v string) string {
		_, err := time.LoadLocation(v)
		return pick(err != nil || v == "Local", "is not the name of a time zone such as Asia/Shanghai")
	})
	check := func(v string) string {
		if _, err := parseRule(v); err != nil {
			return err.Error()
		}
		return ""
	}
	d.words(s, "allow", check, &w.Allow)
	d.words(s, "deny", check, &w.Deny)
	if !m.has("windows") {
		return
	}
	s.need(": whose clock the windows go by, such as Asia/Shanghai", "timezone")
	w.Traffic = s.duration("traffic", 10*time.Minute, time.Second, false)
	w.Upgrade = s.duration("upgrade", 0, time.Minute, true)
	wrong := slices.ContainsFunc(d.problems, func(p Problem) bool {
		return strings.HasPrefix(p.Path, "windows.") && !strings.HasPrefix(p.Path, "windows.timezone")
	})
	if w.none() && !wrong {
		d.at(s.node, "windows", "names no time: give allow, deny, or both")
	}
}

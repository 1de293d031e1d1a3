package nginx

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Version is that of an nginx: of its core where another server (OpenResty,
// Tengine) is built on it. The zero value means that it is not known.
type Version struct {
	Major, Minor, Patch int
	Plus                bool // NGINX Plus
}

func (v Version) String() string {
	if v == (Version{}) {
		return "unknown"
	}
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Plus {
		s += " (Plus)"
	}
	return s
}

func (v Version) before(major, minor, patch int) bool {
	return cmp.Or(cmp.Compare(v.Major, major), cmp.Compare(v.Minor, minor), cmp.Compare(v.Patch, patch)) < 0
}

var versionText = regexp.MustCompile(`(?:nginx|openresty)/(\d+)\.(\d+)\.(\d+)`)

// ParseVersion reads what nginx -v prints ("nginx version: nginx/1.22.1",
// "nginx version: openresty/1.21.4.1"). Tengine numbers itself differently and
// does not print its core in -v: its version is not known.
func ParseVersion(text string) (Version, bool) {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return Version{}, false
	}
	var v Version
	for i, p := range []*int{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return Version{}, false
		}
		*p = n
	}
	v.Plus = strings.Contains(text, "nginx-plus")
	return v, true
}

// Version asks the program, that of the running nginx if there is one, for its
// version (nginx -v).
func (s *Server) Version(ctx context.Context) (Version, error) {
	p, err := s.find(ctx)
	if err != nil {
		return Version{}, err
	}
	stdout, stderr, err := s.run(ctx, shellq.Join(p.binary, "-v"))
	if err != nil {
		return Version{}, fmt.Errorf("cannot ask nginx for its version: %w: %s", err, stderr)
	}
	v, ok := ParseVersion(stdout + stderr)
	if !ok {
		return Version{}, fmt.Errorf("cannot read the version of nginx in %q", stderr)
	}
	return v, nil
}

// ForVersion returns the same tree for edits that this nginx will read: a
// server line with a parameter that it does not know is then neither restored
// nor copied (ErrNotSupportedByVersion). Without a version nothing is checked.
func (t *Tree) ForVersion(v Version) *Tree {
	next := *t
	next.version = v
	return &next
}

// lacks says since when nginx knows a parameter of a server line, or "" where
// this version does. Sources: the changes file of nginx 1.11.5 (max_conns),
// 1.27.3 (resolve, service) and 1.29.6 (drain), the documentation of
// ngx_http_upstream_module for slow_start.
func (v Version) lacks(parameter string) string {
	if v == (Version{}) {
		return ""
	}
	name, _, _ := strings.Cut(parameter, "=")
	switch {
	case v.Plus:
	case name == "slow_start":
		return parameter + " is one of NGINX Plus, this is " + v.String()
	case name == "drain" && v.before(1, 29, 6):
		return parameter + " came with 1.29.6, this is " + v.String()
	case (name == "resolve" || name == "service") && v.before(1, 27, 3):
		return parameter + " came with 1.27.3, this is " + v.String()
	case name == "max_conns" && v.before(1, 11, 5):
		return parameter + " came with 1.11.5, this is " + v.String()
	}
	return ""
}

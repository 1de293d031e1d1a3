package upgrade

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// nameCheck holds the cloud's rule for names of instances.
func nameCheck(s string) string {
	return matches(`^\pL[\pL0-9:_.-]{1,127}$`, "is not an instance name: 2 to 128 letters, digits, '.', '-', '_' or ':', a letter first")(s)
}

func checkInstance(s string) string {
	return matches(`^i-[A-Za-z0-9-]+$`, "is not an instance ID: it looks like i-bp1…")(s)
}

func checkAbs(s string) string {
	if !strings.HasPrefix(s, "/") {
		return "must be an absolute path on the host"
	}
	return ""
}

func checkAddress(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return "is not an IP address of a host"
	}
	return ""
}

var target = regexp.MustCompile(`^(?:([A-Za-z_][A-Za-z0-9_.-]*)@)?([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?$`)

// checkTarget accepts alias, address and user@host:port. What could be taken
// for an option or for shell syntax does not pass.
func checkTarget(s string) string {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return ""
	}
	g := target.FindStringSubmatch(s)
	if g == nil {
		return "is not an SSH target: an alias, an address or user@host:port"
	}
	if p, err := strconv.ParseUint(g[3], 10, 16); g[3] != "" && (err != nil || p == 0) {
		return "has a port that is not between 1 and 65535"
	}
	if h := strings.Trim(g[2], "[]"); looksNumeric(h) || h != g[2] {
		if _, err := netip.ParseAddr(h); err != nil {
			return "looks like an address but is none"
		}
	}
	return ""
}

// looksNumeric catches addresses with a typing error (172.31.0.900, 10.0.0)
// before they are looked up as names.
func looksNumeric(s string) bool {
	return strings.Contains(s, ".") && strings.Trim(s, "0123456789.") == ""
}

// targetHost returns the host part of an SSH target.
func targetHost(s string) string {
	if _, err := netip.ParseAddr(s); err == nil {
		return s
	}
	g := target.FindStringSubmatch(s)
	if g == nil {
		return s
	}
	return strings.Trim(g[2], "[]")
}

func checkEndpoint(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "is not a URL such as https://host"
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "must be scheme and host only"
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "has a port that is not between 1 and 65535"
		}
	}
	if u.Scheme == "http" {
		// Requests carry a signature, not the secret, but user data and
		// command output would be readable.
		a, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
			return "must be https: plain http is for loopback only"
		}
	}
	return ""
}

func matches(expr, want string) func(string) string {
	re := regexp.MustCompile(expr)
	return func(s string) string {
		if re.MatchString(s) {
			return ""
		}
		return want
	}
}

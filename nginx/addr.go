package nginx

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// A target is an address as it stands in a word: an optional scheme, a host, an
// optional port, and perhaps a URI behind it.
type target struct {
	scheme     string
	host       string // without the brackets of an IPv6 address; "unix:/path"
	start, end int    // of the host in the word, brackets included
	port       int    // 0 when none is written
	// open says that a variable follows so closely that host or port may be
	// longer than what stands there.
	open bool
	unix bool
}

// parseTarget takes a word apart. ok is false when there is no host in it.
func parseTarget(value string) (t target, ok bool) {
	at := 0
	if i := strings.Index(value, "://"); i >= 0 {
		t.scheme = strings.ToLower(value[:i])
		at = i + len("://")
	}
	rest := value[at:]
	if isUnix(rest) {
		// Behind a scheme a second colon ends the path (ngx_parse_unix_domain_url).
		end := len(rest)
		if i := strings.IndexByte(rest[len("unix:"):], ':'); i >= 0 && t.scheme != "" {
			end = len("unix:") + i
		}
		t.unix, t.host, t.start, t.end = true, rest[:end], at, at+end
		return t, end > len("unix:")
	}
	t.start = at
	if strings.HasPrefix(rest, "[") {
		i := strings.IndexByte(rest, ']')
		if i < 0 {
			return t, false
		}
		t.host, t.end = rest[1:i], at+i+1
	} else {
		i := strings.IndexAny(rest, ":/?$")
		if i < 0 {
			i = len(rest)
		}
		t.host, t.end = rest[:i], at+i
	}
	if t.host == "" {
		return t, false
	}
	rest = value[t.end:]
	if digits, ok := strings.CutPrefix(rest, ":"); ok {
		i := 0
		for i < len(digits) && digits[i] >= '0' && digits[i] <= '9' {
			i++
		}
		t.port, _ = strconv.Atoi(digits[:i])
		t.open = i == 0
		rest = digits[i:]
	}
	if strings.HasPrefix(rest, "$") && !startsWithPath(rest) {
		t.open = true
	}
	if rest != "" && !strings.ContainsAny(rest[:1], "/?$") {
		return t, false
	}
	return t, true
}

// startsWithPath reports whether text starts with a variable that always holds
// a path, so that what stands before it is complete.
func startsWithPath(text string) bool {
	names := variables(text)
	if len(names) == 0 {
		return false
	}
	switch names[0] {
	case "request_uri", "uri", "document_uri":
		return true
	}
	return false
}

// variables returns the names of the variables in a value.
func variables(value string) []string {
	var out []string
	for {
		_, rest, found := strings.Cut(value, "$")
		if !found {
			return out
		}
		rest = strings.TrimPrefix(rest, "{")
		n := 0
		for n < len(rest) && isNameByte(rest[n]) {
			n++
		}
		if n > 0 {
			out = append(out, rest[:n])
		}
		value = rest[n:]
	}
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// hostVariables returns the variables that decide where a pass goes.
func hostVariables(value string) []string {
	if i := strings.Index(value, "://"); i >= 0 {
		value = value[i+len("://"):]
	}
	if i := strings.IndexAny(value, "/?"); i >= 0 {
		value = value[:i]
	}
	if t, ok := parseTarget(value); ok && !t.open {
		return nil
	}
	return variables(value)
}

// isUnix reports whether host is a unix socket as nginx writes it.
func isUnix(host string) bool { return strings.HasPrefix(host, "unix:") }

// plainIPv4 returns the length of the IPv4 address in its usual form that raw
// starts with, or 0. Such an address is equal to another one only when its text
// is.
func plainIPv4(raw []byte) int {
	at := 0
	for part := range 4 {
		if part > 0 {
			if at >= len(raw) || raw[at] != '.' {
				return 0
			}
			at++
		}
		start, n := at, 0
		for at < len(raw) && raw[at] >= '0' && raw[at] <= '9' && at-start < 4 {
			n = n*10 + int(raw[at]-'0')
			at++
		}
		if at == start || n > 255 || at-start > 1 && raw[start] == '0' {
			return 0
		}
	}
	if at < len(raw) && (raw[at] == '.' || isNameByte(raw[at])) {
		return 0
	}
	return at
}

// normalHost returns what hosts are compared by: an address in its usual form,
// or the name in lower case.
func normalHost(host string) (key string, isAddr bool) {
	if isUnix(host) {
		return host, false
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String(), true
	}
	if a, ok := oddIPv4(host); ok {
		return a.String(), true
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), false
}

// oddIPv4 reads the forms that nginx dials as IPv4 besides the usual one: four
// decimal numbers with leading zeros (ngx_inet_addr), and what inet_aton knows:
// fewer than four numbers, hexadecimal and octal ones.
func oddIPv4(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 || host == "" {
		return netip.Addr{}, false
	}
	if len(parts) == 4 {
		var b [4]byte
		plain := true
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			plain = plain && err == nil && p[0] != '+'
			b[i] = byte(n)
		}
		if plain {
			return netip.AddrFrom4(b), true
		}
	}
	var sum uint64
	for i, p := range parts {
		base := 10
		switch {
		case strings.HasPrefix(p, "0x") || strings.HasPrefix(p, "0X"):
			base, p = 16, p[2:]
		case len(p) > 1 && p[0] == '0':
			base = 8
		}
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		if strings.ContainsAny(p, "+-_") {
			return netip.Addr{}, false
		}
		n, err := strconv.ParseUint(p, base, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		sum = sum<<bits | n
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(sum))
	return netip.AddrFrom4(b), true
}

// writtenHost returns host as it stands in a configuration: an IPv6 address in
// brackets.
func writtenHost(host string) string {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// validHost reports whether host can be put into a configuration as it is: an
// address, or a name of letters, digits, dots, dashes and underscores.
func validHost(host string) bool {
	inner := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if a, err := netip.ParseAddr(inner); err == nil {
		return a.Zone() == ""
	}
	if host == "" || len(host) > 253 {
		return false
	}
	for i := range len(host) {
		if c := host[i]; !isNameByte(c) && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// mentions reports whether text holds host as a whole.
func mentions(text, host string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], host)
		if i < 0 {
			return false
		}
		i += from
		end := i + len(host)
		inside := func(c byte) bool { return isNameByte(c) || c == '.' || c == '-' }
		if (i == 0 || !inside(text[i-1])) && (end == len(text) || !inside(text[end]) || text[end] == '.' && (end+1 == len(text) || !isNameByte(text[end+1]))) {
			return true
		}
		from = i + 1
	}
}

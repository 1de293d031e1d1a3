package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// hasMeta reports whether nginx hands an include to glob(3) (ngx_conf_include).
func hasMeta(name string) bool { return strings.ContainsAny(name, "*?[") }

// glob returns the names that match pattern by the rules of glob(3) in the C
// locale: in byte order, a leading dot only where the pattern has one, [!a] as
// negation, braces as plain bytes. Directories that cannot be opened because of
// their rights, or that are not there, match nothing; other errors are
// returned, since a lost connection must not look like an empty directory.
func glob(ctx context.Context, fsys FS, pattern string) ([]string, error) {
	names := []string{""}
	rest := pattern
	for rest != "" && len(names) > 0 {
		slashes := len(rest) - len(strings.TrimLeft(rest, "/"))
		element := rest[slashes:]
		if i := strings.IndexByte(element, '/'); i >= 0 {
			element = element[:i]
		}
		sep := rest[:slashes]
		rest = rest[slashes+len(element):]
		last := strings.Trim(rest, "/") == ""

		var next []string
		for _, dir := range names {
			dir += sep
			if !strings.ContainsAny(element, `*?[\`) && !last {
				next = append(next, dir+element)
				continue
			}
			entries, err := list(ctx, fsys, dir)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if !match(element, e.Name()) {
					continue
				}
				if !last && !e.IsDir() && e.Type()&fs.ModeSymlink == 0 {
					continue
				}
				next = append(next, dir+e.Name())
			}
			if len(next) > maxFiles {
				return nil, fmt.Errorf("the pattern matches more than %d names", maxFiles)
			}
		}
		names = next
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func list(ctx context.Context, fsys FS, dir string) ([]fs.DirEntry, error) {
	if trimmed := strings.TrimRight(dir, "/"); trimmed != "" {
		dir = trimmed
	} else if dir != "" {
		dir = "/"
	} else {
		dir = "."
	}
	entries, err := fsys.ReadDir(ctx, dir)
	if err == nil || ctx.Err() != nil {
		return entries, err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	// A link to a file looks like a directory to the walk, and some transports
	// have no name for "not a directory".
	if _, readErr := fsys.ReadFile(ctx, dir); readErr == nil {
		return nil, nil
	}
	return nil, err
}

// match reports whether name matches one element of a glob(3) pattern.
func match(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") && !strings.HasPrefix(pattern, `\.`) {
		return false
	}
	// star and from remember the last * and what it covers, so that the time
	// is bounded by the product of the lengths.
	p, n := 0, 0
	star, from := -1, 0
	for {
		if p < len(pattern) && pattern[p] == '*' {
			star, from = p, n
			p++
			continue
		}
		if n == len(name) && p == len(pattern) {
			return true
		}
		if n < len(name) && p < len(pattern) {
			if width, ok := matchByte(pattern[p:], name[n]); ok {
				p, n = p+width, n+1
				continue
			}
		}
		if star < 0 || from >= len(name) {
			return false
		}
		from++
		p, n = star+1, from
	}
}

// matchByte matches one byte against the head of pattern and returns the length
// of that head.
func matchByte(pattern string, c byte) (int, bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
		return 1, c == '\\'
	case '[':
		if width, ok := bracket(pattern, c); width > 0 {
			return width, ok
		}
	}
	return 1, pattern[0] == c
}

// bracket matches c against the bracket expression at the head of pattern. A
// width of 0 means that it is none: without a ], the [ is a plain byte.
func bracket(pattern string, c byte) (width int, ok bool) {
	i := 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	found := false
	for first := true; ; first = false {
		if i >= len(pattern) {
			return 0, false
		}
		if pattern[i] == ']' && !first {
			return i + 1, found != negated
		}
		if class, rest, ok := strings.Cut(pattern[i:], ":]"); ok && strings.HasPrefix(class, "[:") {
			found = found || inClass(class[2:], c)
			i = len(pattern) - len(rest)
			continue
		}
		low, n := bracketByte(pattern[i:])
		i += n
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high, n = bracketByte(pattern[i+1:])
			i += 1 + n
		}
		found = found || low <= c && c <= high
	}
}

func bracketByte(pattern string) (byte, int) {
	if pattern[0] == '\\' && len(pattern) > 1 {
		return pattern[1], 2
	}
	return pattern[0], 1
}

func inClass(class string, c byte) bool {
	lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
	switch class {
	case "alpha":
		return lower || upper
	case "alnum":
		return lower || upper || digit
	case "digit":
		return digit
	case "lower":
		return lower
	case "upper":
		return upper
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
	case "punct":
		return c > ' ' && c < 0x7f && !lower && !upper && !digit
	case "space":
		return c == ' ' || '\t' <= c && c <= '\r'
	}
	return false
}

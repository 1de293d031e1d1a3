// Package pkgver orders versions of packages as their package managers do.
package pkgver

import "strings"

// Compare orders two versions, [EPOCH:]VERSION[-RELEASE], of manager "rpm" or
// "dpkg": -1 when a is older, 1 when it is newer. The rules are those of rpm
// (rpmvercmp, epoch first) and of Debian policy 5.6.12.
func Compare(manager, a, b string) int {
	ea, va := epoch(a)
	eb, vb := epoch(b)
	if ea != eb {
		return compareDigits(ea, eb)
	}
	if manager == "dpkg" {
		ua, ra := revision(va)
		ub, rb := revision(vb)
		if c := compareDebian(ua, ub); c != 0 {
			return c
		}
		return compareDebian(ra, rb)
	}
	ua, ra := revision(va)
	ub, rb := revision(vb)
	if c := CompareRPM(ua, ub); c != 0 {
		return c
	}
	return CompareRPM(ra, rb)
}

func epoch(s string) (epoch, rest string) {
	if e, rest, ok := strings.Cut(s, ":"); ok {
		return strings.TrimLeft(e, "0"), rest
	}
	return "", s
}

// revision cuts at the last hyphen.
func revision(s string) (version, release string) {
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		if len(a) < len(b) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

// take cuts the longest beginning of bytes that are ok.
func take(s string, ok func(byte) bool) (head, rest string) {
	i := 0
	for i < len(s) && ok(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// CompareRPM orders two versions, two releases, or two releases of kernels (as
// uname -r prints them) as rpmvercmp does: by runs of digits and of letters,
// digits as numbers and above letters, "~" below everything and "^" above the
// end.
func CompareRPM(a, b string) int {
	for {
		other := func(c byte) bool { return !isDigit(c) && !isLetter(c) && c != '~' && c != '^' }
		_, a = take(a, other)
		_, b = take(b, other)
		switch ta, tb := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~"); {
		case ta && tb:
			a, b = a[1:], b[1:]
			continue
		case ta:
			return -1
		case tb:
			return 1
		}
		switch ca, cb := strings.HasPrefix(a, "^"), strings.HasPrefix(b, "^"); {
		case ca && cb:
			a, b = a[1:], b[1:]
			continue
		case ca && b == "":
			return 1
		case cb && a == "":
			return -1
		case ca:
			return -1
		case cb:
			return 1
		}
		if a == "" || b == "" {
			return boolOrder(a != "", b != "")
		}
		var sa, sb string
		if isDigit(a[0]) {
			sa, a = take(a, isDigit)
			if sb, b = take(b, isDigit); sb == "" {
				return 1 // a number is newer than letters
			}
			if c := compareDigits(sa, sb); c != 0 {
				return c
			}
			continue
		}
		sa, a = take(a, isLetter)
		if sb, b = take(b, isLetter); sb == "" {
			return -1
		}
		if c := strings.Compare(sa, sb); c != 0 {
			return c
		}
	}
}

func boolOrder(a, b bool) int {
	switch {
	case a && !b:
		return 1
	case b && !a:
		return -1
	}
	return 0
}

// compareDebian: letters sort before other characters, ~ before everything,
// the end included.
func compareDebian(a, b string) int {
	order := func(s string) int {
		switch {
		case s == "" || isDigit(s[0]):
			return 0
		case s[0] == '~':
			return -1
		case isLetter(s[0]):
			return int(s[0])
		}
		return int(s[0]) + 256
	}
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			x, y := order(a), order(b)
			if x != y {
				if x < y {
					return -1
				}
				return 1
			}
			a, b = a[1:], b[1:]
		}
		var da, db string
		da, a = take(a, isDigit)
		db, b = take(b, isDigit)
		if c := compareDigits(da, db); c != 0 {
			return c
		}
	}
	return 0
}

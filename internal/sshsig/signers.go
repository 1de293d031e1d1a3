package sshsig

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A Signer is one line of an ALLOWED SIGNERS file.
type Signer struct {
	Line       int
	Principals []string // names, never patterns
	Key        ssh.PublicKey
	Namespaces []string // that the key may sign for; empty: all
	After      time.Time
	Before     time.Time
}

// Signers is an ALLOWED SIGNERS file.
type Signers []Signer

// ParseSigners reads an ALLOWED SIGNERS file. Problems come all at once, each
// with its line.
func ParseSigners(data []byte) (Signers, error) {
	var out Signers
	var errs []error
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		s, err := parseSigner(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", i+1, err))
			continue
		}
		s.Line = i + 1
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

func parseSigner(text string) (Signer, error) {
	var s Signer
	names, rest, ok := cutField(text)
	if !ok {
		return s, errors.New("want PRINCIPALS [OPTIONS] KEYTYPE KEY")
	}
	for _, p := range strings.Split(names, ",") {
		switch {
		case p == "":
			return s, errors.New("a principal is empty")
		case strings.ContainsAny(p, "*?!"):
			return s, fmt.Errorf("principal %q is a pattern; name each person, or nobody knows who signed", p)
		}
		s.Principals = append(s.Principals, p)
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil {
		return s, fmt.Errorf("cannot read the key: %w", err)
	}
	if _, cert := key.(*ssh.Certificate); cert {
		return s, errors.New("certificates are not supported; list the key itself")
	}
	s.Key = key
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "namespaces":
			s.Namespaces = strings.Split(value, ",")
			if strings.ContainsAny(value, "*?!") {
				return s, fmt.Errorf("namespaces %q is a pattern; list them", value)
			}
		case "valid-after":
			s.After, err = parseTime(value)
		case "valid-before":
			s.Before, err = parseTime(value)
		default:
			return s, fmt.Errorf("option %q is not supported", name)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// cutField takes the first field, which may stand in double quotes.
func cutField(text string) (field, rest string, ok bool) {
	if quoted, found := strings.CutPrefix(text, `"`); found {
		field, rest, ok = strings.Cut(quoted, `"`)
		return field, strings.TrimSpace(rest), ok
	}
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return "", "", false
	}
	return text[:i], strings.TrimSpace(text[i:]), true
}

// parseTime reads YYYYMMDD[HHMM[SS]][Z].
func parseTime(text string) (time.Time, error) {
	digits, utc := strings.CutSuffix(text, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 20261231 or 202612312359Z", text)
}

// Who returns the first principal of the line that lets key sign for namespace
// at that time. When no line does, the error says what the lines with the key
// lack.
func (s Signers) Who(key ssh.PublicKey, namespace string, at time.Time) (string, error) {
	err := fmt.Errorf("key %s is not in the list of allowed signers", ssh.FingerprintSHA256(key))
	for _, l := range s {
		switch {
		case !bytes.Equal(l.Key.Marshal(), key.Marshal()):
		case len(l.Namespaces) > 0 && !slices.Contains(l.Namespaces, namespace):
			err = fmt.Errorf("key of %s (line %d) may not sign for %s", l.Principals[0], l.Line, namespace)
		case !l.After.IsZero() && at.Before(l.After):
			err = fmt.Errorf("key of %s (line %d) is valid from %s", l.Principals[0], l.Line, l.After.Format(time.RFC3339))
		case !l.Before.IsZero() && !at.Before(l.Before):
			err = fmt.Errorf("key of %s (line %d) was valid until %s", l.Principals[0], l.Line, l.Before.Format(time.RFC3339))
		default:
			return l.Principals[0], nil
		}
	}
	return "", err
}

// People are the different first principals.
func (s Signers) People() []string {
	var out []string
	for _, l := range s {
		if !slices.Contains(out, l.Principals[0]) {
			out = append(out, l.Principals[0])
		}
	}
	return out
}

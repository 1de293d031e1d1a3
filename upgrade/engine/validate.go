package engine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Validate checks a procedure: unique IDs, required sides, known effects,
// sections that never decrease. It returns all problems at once, each an
// ErrInvalid.
func Validate(steps []Step) error {
	var errs []error
	bad := func(s *Step, format string, args ...any) {
		errs = append(errs, Invalid("invalid procedure: step %q %s", s.ID, fmt.Sprintf(format, args...)))
	}
	if len(steps) == 0 {
		return Invalid("invalid procedure: no steps")
	}
	seen := map[string]bool{}
	var last []int
	for i := range steps {
		s := &steps[i]
		if !isStepID(s.ID) {
			bad(s, "has an ID that is not 1 to 64 letters, digits, dots, hyphens and underscores")
		}
		if seen[s.ID] {
			bad(s, "is there twice")
		}
		seen[s.ID] = true
		if s.Title == "" {
			bad(s, "has no title")
		}
		if sec, err := parseSection(s.Section); err != nil {
			bad(s, "has a bad section: %v", err)
		} else {
			if compareSections(sec, last) < 0 {
				bad(s, "of section %s stands after a later section", s.Section)
			}
			last = sec
		}
		if s.Approvers < 0 || s.Approvers > 0 && s.Gate == "" {
			bad(s, "wants %d approvers and has no gate", s.Approvers)
		}
		if s.Joined && i == 0 {
			bad(s, "is joined to no step before it")
		}
		switch s.Effect {
		case ReadOnly:
			if s.Do == nil && s.Verify == nil {
				bad(s, "has neither Do nor Verify")
			}
			if s.Undo != nil {
				bad(s, "is read-only and has an Undo")
			}
			if s.Pivot {
				bad(s, "is read-only and a pivot")
			}
		case SetState, TokenCreate, OneShot, Irreversible:
			if s.Do == nil {
				bad(s, "has no Do")
			}
			if s.Observe == nil {
				bad(s, "has no Observe: after a crash nobody could tell whether it happened")
			}
			switch {
			case s.Effect == Irreversible && s.Undo != nil:
				bad(s, "is irreversible and has an Undo")
			case s.Effect != Irreversible && s.Undo == nil && s.NoUndo == "":
				bad(s, "has no Undo and does not say why (NoUndo)")
			}
		default:
			bad(s, "has the unknown effect %q", s.Effect)
		}
	}
	return errors.Join(errs...)
}

func isStepID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// parseSection reads "3.11" as 3, 11.
func parseSection(s string) ([]int, error) {
	var parts []int
	for p := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q is not a section number such as 3.11", s)
		}
		parts = append(parts, int(n))
	}
	return parts, nil
}

// compareSections compares part by part; a chapter stands before its sections.
func compareSections(a, b []int) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] - b[i]
		}
	}
	return len(a) - len(b)
}

// within reports whether section is not after until. A chapter includes its
// sections: 3.11 is within 3.
func within(section, until []int) bool {
	return compareSections(section[:min(len(section), len(until))], until) <= 0
}

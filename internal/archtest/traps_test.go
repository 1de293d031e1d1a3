package archtest

import (
	"regexp"
	"testing"
)

// docs/pitrix.md has a table of traps: each test that it, or docs/rebuild.md,
// names exists, and each test of a trap is named there.
func TestTrapsDocument(t *testing.T) {
	traps := testsIn(t, "pitrix.md")
	there := tests(t)
	for doc, named := range map[string]map[string]bool{"pitrix.md": traps, "rebuild.md": testsIn(t, "rebuild.md")} {
		for name := range named {
			if !there[name] {
				t.Errorf("docs/%s names %s, which does not exist", doc, name)
			}
		}
	}
	for name := range there {
		if regexp.MustCompile(`^TestTrap[A-Z]`).MatchString(name) && !traps[name] {
			t.Errorf("docs/pitrix.md does not name %s", name)
		}
	}
}

package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/faults.md names the test of every fault: each test that it names exists,
// and each test of a numbered scenario is named there.
func TestFaultsDocument(t *testing.T) {
	named, there := testsIn(t, "faults.md"), tests(t)
	numbered := regexp.MustCompile(`^TestScenario\d\d`)
	for name := range named {
		if !there[name] {
			t.Errorf("docs/faults.md names %s, which does not exist", name)
		}
	}
	for name := range there {
		if numbered.MatchString(name) && !named[name] {
			t.Errorf("docs/faults.md does not name %s", name)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(string(text), -1)
	if len(rows) != 72 {
		t.Errorf("docs/faults.md has %d faults, not 72", len(rows))
	}
}

const root = "../.."

// testsIn lists the tests that a document names.
func testsIn(t *testing.T, doc string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", doc))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1) {
		named[name] = true
	}
	return named
}

// tests lists those that there are.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test[A-Z]\w+)\(`)
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := os.ReadFile(name)
		for _, m := range function.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}

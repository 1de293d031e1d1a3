package testenv

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Removal takes one rule out of the source, to see that tests notice.
type Removal struct {
	File     string // a Go file, its name relative to the package of the test
	Old, New string // the rule's code, which occurs once, and what stands there without it
	Tests    string // regular expression of the tests that have to fail
	Env      string // NAME=VALUE for them, or ""
}

// Fails compiles the package of the test with the changed file in the place of
// its own (go test -overlay) and reports an error unless its tests fail. The
// real file is left alone. Slow tests run only where Env asks for them.
func (r Removal) Fails(t *testing.T) {
	t.Helper()
	gotool := Need(t, "go")
	name, err := filepath.Abs(r.File)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), r.Old); n != 1 {
		t.Fatalf("the rule's code stands in %s %d times, not once: %s", r.File, n, r.Old)
	}
	changed := strings.Replace(string(source), r.Old, r.New, 1)
	if strings.Contains(r.New, "time.") && !strings.Contains(changed, "\t\"time\"\n") {
		changed = strings.Replace(changed, "import (\n", "import (\n\t\"time\"\n", 1)
	}
	tmp := t.TempDir()
	file, overlay := filepath.Join(tmp, filepath.Base(name)), filepath.Join(tmp, "overlay.json")
	data, err := json.Marshal(map[string]map[string]string{"Replace": {name: file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{file: []byte(changed), overlay: data} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), gotool, "test", "-vet=off", "-short", "-count=1", "-overlay", overlay, "-run", r.Tests, ".")
	cmd.Env = append(os.Environ(), SlowVariable+"=")
	if r.Env != "" {
		cmd.Env = append(cmd.Env, r.Env)
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		t.Errorf("without this rule the tests pass:\n%s", out)
	case strings.Contains(string(out), "[build failed]"), !strings.Contains(string(out), "--- FAIL"), strings.Contains(string(out), "no tests to run"):
		t.Errorf("the tests did not fail, they did not run:\n%s", out)
	}
}

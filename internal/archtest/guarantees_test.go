package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each numbered guarantee of a doc.go names a test or a fuzz target that exists,
// in its own package or in one that uses it.
func TestGuarantees(t *testing.T) {
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)[A-Z_]?\w*)\(`)
	there := map[string]bool{}
	docs := map[string]string{}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		switch {
		case e.Name() == "doc.go":
			b, err := os.ReadFile(name)
			docs[name] = string(b)
			return err
		case strings.HasSuffix(name, "_test.go"):
			b, err := os.ReadFile(name)
			for _, m := range function.FindAllSubmatch(b, -1) {
				there[string(m[1])] = true
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
	item := regexp.MustCompile(`(?m)^//[ \t]+\d+\.[ \t]`)
	checked := 0
	for name, text := range docs {
		_, promises, ok := strings.Cut(text, "\n// # Guarantees\n")
		if !ok {
			continue
		}
		promises, _, _ = strings.Cut(promises, "\n// # ")
		starts := item.FindAllStringIndex(promises, -1)
		for i, s := range starts {
			end := len(promises)
			if i+1 < len(starts) {
				end = starts[i+1][0]
			}
			checked++
			one := promises[s[0]:end]
			for _, test := range named.FindAllString(one, -1) {
				if !there[test] && !strings.Contains(one, test+"…") {
					t.Errorf("%s names %s, which does not exist", name, test)
				}
			}
			if !named.MatchString(one) {
				t.Errorf("%s: a guarantee names no test: %s", name, strings.Join(strings.Fields(strings.ReplaceAll(one, "//", " ")), " "))
			}
		}
	}
	if checked == 0 {
		t.Fatal("no guarantee was found: the test looks in the wrong place")
	}
	t.Logf("%d guarantees of %d packages", checked, len(docs))
}

package archtest

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/upgradectl/upgradectl"

// base are the packages every other one may use. They use the standard
// library and nothing else, not even each other.
var base = []string{
	"internal/atomicfile", "internal/pkgver", "internal/poll", "internal/redact",
	"internal/shellq", "internal/textedit",
}

// leaves are the public packages that are useful alone, in other people's
// tools: each comes without the others.
var leaves = []string{"ecs", "slb", "nginx", "hostinv", "pitrix"}

// A layer says what of this module its packages may import besides base.
// Entries ending in /... stand for everything below; the first layer that
// names a package counts.
type layer struct {
	packages []string
	may      []string
	why      string
}

// layers is the table of docs/architecture.md, from the top down. A package
// in none of them is a mistake: the table has to grow with the module.
var layers = []layer{
	{[]string{"cmd/upgradectl"}, slices.Concat([]string{"upgrade", "internal/sim/..."}, leaves),
		"a command parses, calls and prints; the work, the engine and the wire are below"},
	{[]string{"examples/..."}, slices.Concat([]string{"upgrade", "upgrade/..."}, leaves),
		"an example is copied by users, who cannot import internal packages"},
	{[]string{"upgrade"}, slices.Concat([]string{"upgrade/hostos", "upgrade/engine", "internal/sshsig"}, leaves),
		"imports go down only"},
	{[]string{"upgrade/hostos"}, slices.Concat([]string{"upgrade/engine"}, leaves),
		"imports go down only"},
	{[]string{"upgrade/engine"}, nil,
		"the engine knows steps, not what they are about"},
	{[]string{"ecs", "slb"}, []string{"internal/alicloud"},
		"a public leaf package never imports another one"},
	{[]string{"hostinv"}, []string{"internal/remote"},
		"a public leaf package never imports another one"},
	{[]string{"nginx", "pitrix"}, nil,
		"it needs a host through an interface only"},
	{[]string{"internal/alicloud", "internal/remote", "internal/sshsig"}, nil,
		"what talks to the outside knows nothing of who uses it"},
	{base, nil,
		"it is for everybody, so it depends on nobody"},
	{[]string{"internal/sim"}, []string{"internal/sim/..."},
		"a simulator that shares the client's code shares its mistakes"},
	{[]string{"internal/sim/traffic", "internal/sim/firstbox"}, []string{"nginx", "pitrix", "internal/sim/cloud", "internal/sim/host"},
		"it may read configuration files as the product does, nothing more"},
	{[]string{"internal/sim/cloud", "internal/sim/host"}, nil,
		"a simulator that shares the client's code shares its mistakes, and the World joins the two"},
	{[]string{"internal/sim/memnet"}, nil,
		"it is a network and knows nobody who uses it"},
	{[]string{"internal/testenv", "internal/archtest"}, nil,
		"it serves tests of every package"},
	{[]string{"internal/lab", "internal/lab/..."}, []string{"..."},
		"it is a test of everything together"},
}

// foreign says which packages may use a module of somebody else's. A module
// not listed here may be used nowhere.
var foreign = []struct {
	module   string
	packages []string
	inTests  bool // tests of any package may use it
	why      string
}{
	{"github.com/aliyun/alibaba-cloud-sdk-go", []string{"internal/alicloud"}, false,
		"the SDK compiles for minutes and is tamed in one place"},
	{"golang.org/x/crypto/ssh", []string{"internal/remote", "internal/sshsig", "internal/sim", "internal/sim/host", "internal/lab/..."}, true,
		"the client's SSH is internal/remote, signatures of approvals are internal/sshsig"},
	{"github.com/pkg/sftp", []string{"internal/remote", "internal/sim/host", "internal/lab/..."}, true,
		"the client's SFTP is internal/remote"},
	{"golang.org/x/net/dns/dnsmessage", []string{"upgrade", "internal/sim/firstbox"}, true,
		"nobody here writes DNS messages by hand, and nobody else sends any"},
	{"golang.org/x/sync", []string{"ecs", "slb", "nginx", "hostinv", "upgrade", "upgrade/hostos", "internal/alicloud", "internal/remote", "internal/sim", "internal/sim/..."}, true,
		"engine and base packages use the standard library only"},
	{"github.com/spf13/cobra", []string{"cmd/upgradectl"}, false,
		"the command line is a matter of the command"},
	{"github.com/spf13/pflag", []string{"cmd/upgradectl"}, false,
		"the command line is a matter of the command"},
	{"golang.org/x/term", []string{"cmd/upgradectl"}, false,
		"the terminal is a matter of the command"},
	{"go.yaml.in/yaml/v4", []string{"upgrade", "hostinv", "internal/sim/host"}, true,
		"upgrade.yaml is read in one place, and compose files by the simulated host"},
	{"mvdan.cc/sh/v3", []string{"internal/sim/host"}, true,
		"a real host has a shell of its own"},
	{"github.com/stretchr/testify", []string{"internal/lab/..."}, true,
		"it is for tests"},
	{"github.com/rogpeppe/go-internal", nil, true,
		"it is for tests"},
	{"go.uber.org/goleak", nil, true,
		"it is for tests"},
}

// testSide are the packages that only tests import.
var testSide = []string{"internal/testenv", "internal/lab", "internal/lab/...", "internal/archtest"}

// within says whether pkg is one of the patterns.
func within(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		dir, tree := strings.CutSuffix(p, "...")
		return pkg == strings.TrimSuffix(dir, "/") || tree && strings.HasPrefix(pkg, dir)
	})
}

// check returns which rule the import of imp by pkg breaks, or nothing. Both
// are import paths, pkg without the module's; test says that a _test.go file
// does it.
func check(pkg, imp string, test bool) string {
	own, mine := strings.CutPrefix(imp, module+"/")
	switch first, _, _ := strings.Cut(imp, "/"); {
	case imp == module:
		return "the module has no package at its root"
	case !mine && !strings.Contains(first, "."):
		if imp == "C" {
			return "cgo keeps it from building for other systems"
		}
		return ""
	case !mine:
		for _, f := range foreign {
			if imp != f.module && !strings.HasPrefix(imp, f.module+"/") {
				continue
			}
			if within(pkg, f.packages) || test && f.inTests {
				return ""
			}
			return f.why
		}
		return "the module is not in archtest's table of foreign modules"
	}
	i := slices.IndexFunc(layers, func(l layer) bool { return within(pkg, l.packages) })
	switch {
	case i < 0:
		return "package " + pkg + " is in no layer of archtest's table"
	case test, own == pkg:
		// A test may join what it likes (the simulators above all); its
		// package's importers do not see it.
		return ""
	case within(own, testSide) && !within(pkg, testSide):
		return own + " is for tests"
	case within(own, base) && !within(pkg, base) && !within(pkg, []string{"examples/..."}):
		return ""
	case within(own, layers[i].may):
		return ""
	}
	return layers[i].why
}

// TestLayers reads the imports of every Go file of the module, whatever
// system it is for.
func TestLayers(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	files, fset := 0, token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			name := e.Name()
			if path != root && (name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			// Nested modules have peers and foreign clients in them: not ours.
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != root && err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(e.Name(), ".go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			pkg := filepath.ToSlash(dir)
			if broken := check(pkg, imp, strings.HasSuffix(path, "_test.go")); broken != "" {
				p := fset.Position(spec.Pos())
				t.Errorf("%s:%d: %s must not import %s: %s",
					filepath.ToSlash(filepath.Join(dir, e.Name())), p.Line, pkg, imp, broken)
			}
		}
		return nil
	})
	require.NoError(t, err)
	assert.Greater(t, files, 10, "the module's files were not found")
}

// TestRules shows that the table can break, rule by rule.
func TestRules(t *testing.T) {
	const sdk = "github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
	ours := func(p string) string { return module + "/" + p }
	for _, tt := range []struct {
		pkg, imp string
		test, ok bool
	}{
		{"cmd/upgradectl", ours("upgrade"), false, true},
		{"cmd/upgradectl", ours("internal/sim"), false, true},
		{"cmd/upgradectl", ours("internal/redact"), false, true},
		{"cmd/upgradectl", ours("upgrade/engine"), false, false},
		{"cmd/upgradectl", ours("internal/remote"), false, false},
		{"cmd/upgradectl", ours("internal/alicloud"), false, false},
		{"cmd/upgradectl", "golang.org/x/crypto/ssh", false, false},
		{"cmd/upgradectl", sdk, false, false},
		{"internal/alicloud", sdk, false, true},
		{"internal/alicloud", ours("ecs"), false, false},
		{"ecs", sdk, true, false},
		{"ecs", ours("internal/alicloud"), false, true},
		{"ecs", ours("slb"), false, false},
		{"ecs", ours("internal/sim/cloud"), false, false},
		{"ecs", ours("internal/sim/cloud"), true, true},
		{"nginx", ours("internal/remote"), false, false},
		{"nginx", ours("internal/textedit"), false, true},
		{"nginx", ours("internal/testenv"), false, false},
		{"nginx", ours("internal/testenv"), true, true},
		{"internal/poll", ours("internal/redact"), false, false},
		{"internal/poll", "golang.org/x/sync/errgroup", false, false},
		{"upgrade", ours("internal/sim"), false, false},
		{"upgrade", ours("internal/remote"), false, false},
		{"upgrade/hostos", ours("upgrade"), false, false},
		{"upgrade/engine", ours("nginx"), false, false},
		{"upgrade/engine", ours("internal/atomicfile"), false, true},
		{"upgrade/engine", "golang.org/x/sync/errgroup", false, false},
		{"upgrade/engine", "encoding/json", false, true},
		{"internal/sim/cloud", sdk, true, false},
		{"internal/sim/cloud", ours("internal/sim/host"), false, false},
		{"internal/sim/traffic", ours("nginx"), false, true},
		{"internal/sim", ours("ecs"), false, false},
		{"internal/sim", ours("internal/sim/cloud"), false, true},
		{"examples/slb", ours("slb"), false, true},
		{"examples/slb", ours("internal/sim"), false, false},
		{"examples/slb", ours("internal/redact"), false, false},
		{"examples/slb", ours("internal/sim"), true, true},
		{"ecs", "github.com/stretchr/testify/assert", false, false},
		{"ecs", "github.com/stretchr/testify/assert", true, true},
		{"ecs", "github.com/somebody/something", true, false},
		{"nowhere", ours("ecs"), false, false},
		{"ecs", "C", false, false},
		{"ecs", module, false, false},
	} {
		broken := check(tt.pkg, tt.imp, tt.test)
		assert.Equal(t, tt.ok, broken == "", fmt.Sprintf("%s imports %s (test: %v): %q", tt.pkg, tt.imp, tt.test, broken))
	}
}

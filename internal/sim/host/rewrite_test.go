package host

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"mvdan.cc/sh/v3/syntax"
)

// FuzzRewrite holds that what the shell makes of a script is a script, with
// no job and no process variable of the interpreter's left in it.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{
		"echo $$ $! $PPID ${!} \"$$x\"", "a & b & wait $!", "( x & ) >f 2>&1 &", "{ echo 'it'\\''s' & } &",
		"cat <<E &\n$$\nE\n", "f() { g & }; f", "trap 'kill $!' EXIT", "! a && b || c &", "x=$(y & echo $!)", "()0", "!\f",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		sh := &shell{h: &Host{}, funcs: map[string]bool{}}
		text, err := sh.rewriteText(src)
		if err != nil {
			t.Skip("not a script")
		}
		file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
		if err != nil {
			t.Fatalf("%q became %q: %v", src, text, err)
		}
		syntax.Walk(file, func(n syntax.Node) bool {
			switch n := n.(type) {
			case *syntax.ParamExp:
				if n.Param != nil && (n.Param.Value == "$" || n.Param.Value == "!") {
					t.Errorf("%q became %q", src, text)
				}
			case *syntax.Stmt:
				if n.Background {
					_, ours := n.Cmd.(*syntax.BinaryCmd)
					assert.True(t, ours, "%q became %q", src, text)
				}
			}
			return true
		})
	})
}

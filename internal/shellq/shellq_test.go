package shellq_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

func TestQuote(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", "''"},
		{"plain", "plain"},
		{"/etc/nginx/conf.d/a-b_c.conf", "/etc/nginx/conf.d/a-b_c.conf"},
		{"a b", "'a b'"},
		{"it's", `'it'\''s'`},
		{"A=b", "'A=b'"},
		{"~root", "'~root'"},
		{"$(reboot)", "'$(reboot)'"},
		{"a\nb", "'a\nb'"},
		{"生产", "'生产'"},
	} {
		assert.Equal(t, tc.want, shellq.Quote(tc.in), "Quote(%q)", tc.in)
	}
	assert.Equal(t, "", shellq.Join())
	assert.Equal(t, "mv -T 'a b' c", shellq.Join("mv", "-T", "a b", "c"))
	assert.True(t, shellq.Valid("a\nb"))
	assert.False(t, shellq.Valid("a\x00b"))
}

// values are awkward on purpose; the fuzz targets start from them.
var values = []string{
	"", " ", "'", "''", `\`, `\'`, `"`, "`id`", "$HOME", "${x}", "$((1+1))", "*", "?", "[a]", "~", "~root",
	"#c", "a#b", "!x", "{a,b}", "a;b", "a&b", "a|b", "<a", ">a", "(a)", "a=b", "%1", "-n", "--", "\t", "\n", "\r\n",
	"a\nb\n", "\x01\x7f\x80\xff", "生产 主机", "if", "then", "it's 'quoted' \"twice\"", "a\\\nb",
}

// readBack lets the shell print its words, each followed by a NUL.
func readBack(t testing.TB, words string) []string {
	t.Helper()
	sh, err := exec.LookPath("/bin/sh")
	if err != nil {
		t.Skip("no /bin/sh on this machine: the round trip needs a real shell")
	}
	cmd := exec.Command(sh, "-c", `printf '%s\000' `+words)
	cmd.Env = []string{"LC_ALL=C"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "sh on %q: %s", words, stderr.String())
	require.True(t, bytes.HasSuffix(out, []byte{0}))
	return strings.Split(string(out[:len(out)-1]), "\x00")
}

func TestShell(t *testing.T) {
	assert.Equal(t, values, readBack(t, shellq.Join(values...)))
	for _, v := range values {
		assert.Equal(t, []string{v}, readBack(t, shellq.Quote(v)))
	}
}

// TestFirstWord holds that a program whose name is a keyword or looks like an
// assignment is looked up as a program: status 127, not a syntax error (2).
func TestFirstWord(t *testing.T) {
	sh, err := exec.LookPath("/bin/sh")
	if err != nil {
		t.Skip("no /bin/sh on this machine: the round trip needs a real shell")
	}
	for _, name := range []string{"if", "while", "case", "fi", "done", "A=b", "{", "}", "!", "~"} {
		cmd := exec.Command(sh, "-c", shellq.Join(name, "x"))
		cmd.Env = []string{"PATH=/nonexistent"}
		err := cmd.Run()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%q ran", name)
		assert.Contains(t, []int{126, 127}, exit.ExitCode(), "%q", name)
	}
}

func FuzzQuote(f *testing.F) {
	for _, v := range values {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !shellq.Valid(s) || len(s) > 60000 {
			t.Skip("no program can be given this argument")
		}
		assert.Equal(t, []string{s}, readBack(t, shellq.Quote(s)))
	})
}

func FuzzJoin(f *testing.F) {
	f.Add("a b", "'", "$x")
	f.Add("", "", "")
	f.Add("if", "\n", `\`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if !shellq.Valid(a+b+c) || len(a+b+c) > 60000 {
			t.Skip("no program can be given these arguments")
		}
		assert.Equal(t, []string{a, b, c}, readBack(t, shellq.Join(a, b, c)))
	})
}

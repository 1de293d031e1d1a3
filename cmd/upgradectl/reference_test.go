package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const referenceHead = `# Every command and flag

Made from the program's own help; ` + "`upgradectl COMMAND --help`" + ` says the same, with more words, and with ` + "`--lang zh`" + ` in
Chinese. After a change: ` + "`UPGRADECTL_UPDATE=1 go test ./cmd/upgradectl -run TestCommandReference`" + `.

Of all commands: ` + "`--json`" + ` (results as JSON on standard output), ` + "`--lang zh|en`" + `. Exit statuses: [errors.md](errors.md).
`

// commandTree is the tree as a user in an English locale without an agent
// sees it.
func commandTree(t *testing.T) *cobra.Command {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	return newRoot(&app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, lang: "en"})
}

// reference is docs/commands.md. A flag of a whole group stands with the group.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	each(root, func(c *cobra.Command) {
		fmt.Fprintf(&b, "\n## %s\n\n", strings.TrimPrefix(c.CommandPath(), "upgradectl "))
		if c.Runnable() && !c.HasSubCommands() {
			fmt.Fprintf(&b, "    %s\n\n", c.UseLine())
		}
		fmt.Fprintf(&b, "%s\n", cell(c.Short))
		rows := ""
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { rows += row(f) })
		c.PersistentFlags().VisitAll(func(f *pflag.Flag) { rows += row(f) })
		if rows != "" {
			fmt.Fprintf(&b, "\n| flag | default | meaning |\n|---|---|---|\n%s", rows)
		}
	})
	return b.String()
}

// each visits what is below root.
func each(root *cobra.Command, do func(*cobra.Command)) {
	for _, c := range root.Commands() {
		if c.Name() == "help" || c.Name() == "completion" || c.Hidden {
			continue
		}
		do(c)
		each(c, do)
	}
}

func row(f *pflag.Flag) string {
	if f.Hidden || f.Name == "help" {
		return ""
	}
	name := "`--" + f.Name + "`"
	if f.Shorthand != "" {
		name = "`-" + f.Shorthand + "`, " + name
	}
	value := f.DefValue
	switch value {
	case "", "false", "[]", "0", "0s":
		value = ""
	default:
		value = "`" + value + "`"
	}
	return fmt.Sprintf("| %s | %s | %s |\n", name, value, cell(f.Usage))
}

// cell is text in a cell of a table: a < would begin HTML.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}

// docs/commands.md has every command and every flag, and none that there is
// not. How they are described may lag behind.
func TestCommandReference(t *testing.T) {
	want := reference(commandTree(t))
	name := filepath.Join("..", "..", "docs", "commands.md")
	if os.Getenv("UPGRADECTL_UPDATE") != "" {
		require.NoError(t, os.WriteFile(name, []byte(want), 0o644))
	}
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	names := func(text string) (out []string) {
		command := ""
		for l := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
			if h, ok := strings.CutPrefix(l, "## "); ok {
				command = h
				out = append(out, command)
			} else if f, _, ok := strings.Cut(strings.TrimPrefix(l, "| "), " |"); ok && strings.Contains(f, "--") && strings.HasPrefix(f, "`") {
				out = append(out, command+" "+f)
			}
		}
		return out
	}
	require.Greater(t, len(names(want)), 300, "the tree was not walked")
	assert.Equal(t, names(want), names(string(got)), "write docs/commands.md anew, as it says at its top")
}

// Every command line that a document shows is one that the program takes: its
// words are commands and its flags theirs.
func TestDocumentedCommandLines(t *testing.T) {
	root := commandTree(t)
	root.InitDefaultHelpCmd()
	var files []string
	for _, glob := range []string{"*.md", "docs/*.md", "examples/*.md"} {
		all, err := filepath.Glob(filepath.Join("..", "..", glob))
		require.NoError(t, err)
		files = append(files, all...)
	}
	require.Greater(t, len(files), 15)
	line := regexp.MustCompile("(?:^|[ /(])upgradectl(?:@latest)? ([a-z][^`\n;#）)，。]*)")
	seen := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		joined := strings.ReplaceAll(string(text), "\\\n", " ")
		// Prose speaks of upgradectl too: only code counts.
		for _, code := range codeOf(joined) {
			for _, m := range line.FindAllStringSubmatch(code, -1) {
				words := strings.Fields(m[1])
				for i, w := range words {
					if w == "|" || w == "&&" || w == ">" || w == "2>" || w == "&" {
						words = words[:i]
						break
					}
				}
				cmd, _, err := root.Find(words)
				if err != nil || cmd == root {
					t.Errorf("%s shows %q, and there is no such command", name, m[0])
					continue
				}
				seen++
				for _, w := range words {
					if w = strings.Trim(w, "[]…,."); !strings.HasPrefix(w, "-") || w == "-" || w == "--" {
						continue
					}
					flag, _, _ := strings.Cut(w, "=")
					var f *pflag.Flag
					cmd.InheritedFlags() // merges them
					if long, ok := strings.CutPrefix(flag, "--"); ok {
						f = cmd.Flag(long)
					} else {
						f = cmd.Flags().ShorthandLookup(flag[1:2])
					}
					if f == nil && flag != "--help" && flag != "-h" {
						t.Errorf("%s shows %q, and %s has no flag %s", name, m[0], cmd.CommandPath(), flag)
					}
				}
			}
		}
	}
	require.Greater(t, seen, 60)
}

// codeOf gives what a document shows as code: blocks and words in backticks.
func codeOf(text string) (out []string) {
	fenced := false
	for l := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(l), "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(l, "    "):
			out = append(out, l)
		default:
			for i, part := range strings.Split(l, "`") {
				if i%2 == 1 {
					out = append(out, part)
				}
			}
		}
	}
	return out
}

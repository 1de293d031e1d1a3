package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// app is what every command gets: where results and progress go, and the
// global flags.
type app struct {
	in       io.Reader
	out, err io.Writer // results; progress and errors
	json     bool      // results for machines
	lang     string    // zh or en

	progressing sync.Mutex // calls of progress may come from several goroutines

	interruption *interruption // nil in tests that send no signals

	started bool // a command's own code runs: errors are no longer of usage
}

// language finds the language before the commands, whose help it decides, are
// built: --lang, else the locale of the environment, else English.
func language(args []string, getenv func(string) string) string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if v, ok := strings.CutPrefix(arg, "--lang="); ok {
			return v
		}
		if arg == "--lang" && i+1 < len(args) {
			return args[i+1]
		}
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := getenv(name); v != "" {
			// What is written is UTF-8: a terminal of GBK would show neither.
			_, charset, named := strings.Cut(strings.ToLower(v), ".")
			charset, _, _ = strings.Cut(charset, "@")
			if strings.HasPrefix(v, "zh") && (!named || charset == "utf-8" || charset == "utf8") {
				return "zh"
			}
			break
		}
	}
	return "en"
}

// t chooses the text of the user's language.
func (a *app) t(en, zh string) string {
	if a.lang == "zh" {
		return zh
	}
	return en
}

// main runs one command line and returns its exit status.
func (a *app) main(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = &usageError{err}
	}
	// A command whose result is its exit status has said everything.
	if e := (*exitError)(nil); !errors.As(err, &e) || e.err != nil {
		fmt.Fprintln(a.err, a.message(cmd, err))
	}
	return exitStatus(ctx, err)
}

// message is what the user reads of an error.
func (a *app) message(cmd *cobra.Command, err error) string {
	var u *usageError
	if errors.As(err, &u) {
		hint := fmt.Sprintf(a.t("usage: %s ('%s --help' says more)", "用法：%s（'%s --help' 查看说明）"), cmd.UseLine(), cmd.CommandPath())
		if cmd.HasSubCommands() {
			hint = fmt.Sprintf(a.t("'%s --help' shows the commands", "用 '%s --help' 查看命令"), cmd.CommandPath())
		}
		return "upgradectl: " + err.Error() + "\n" + hint
	}
	if err.Error() == context.Canceled.Error() {
		return "upgradectl: " + a.t("interrupted", "已中断")
	}
	// Lists of problems name their file on each line, for editors to jump to.
	if isList(err) {
		return err.Error()
	}
	return "upgradectl: " + err.Error()
}

// printJSON writes v to standard output, indented, as one document.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// result prints v for machines or calls text for people.
func (a *app) result(v any, text func(w io.Writer)) error {
	if a.json {
		return a.printJSON(v)
	}
	w := &errWriter{w: a.out}
	text(w)
	return w.err
}

// table prints rows in columns.
func table(w io.Writer, head []string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	_ = tw.Flush() // the error is kept by the errWriter below
}

// errWriter remembers the first error, so that a full disk or a closed pipe
// is not taken for success.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	var n int
	n, e.err = e.w.Write(p)
	return n, e.err
}

// progress writes one line to standard error.
func (a *app) progress(format string, args ...any) {
	a.progressing.Lock()
	defer a.progressing.Unlock()
	fmt.Fprintf(a.err, format+"\n", args...)
}

// execution is the --execute flag of a command that changes something.
type execution struct{ execute bool }

func (x *execution) flag(a *app, cmd *cobra.Command) {
	cmd.Flags().BoolVar(&x.execute, "execute", false, a.t("do it; without this flag the command only shows what it would do", "真正执行；不带此参数只显示将要做什么"))
}

// unchanged is what a command without --execute says at its end.
func (a *app) unchanged() string {
	return a.t("nothing was changed; add --execute to do it", "未作任何更改；加 --execute 执行")
}

// change shows what a command does and does it if it was told to. v is the
// result for machines; it gets done and an error of do.
func (x *execution) change(a *app, what []string, do func() error) error {
	res := struct {
		Executed bool     `json:"executed"`
		Changes  []string `json:"changes"`
	}{Changes: append([]string{}, what...)}
	if len(what) == 0 {
		return a.result(res, func(w io.Writer) { fmt.Fprintln(w, a.t("nothing to do", "无需更改")) })
	}
	if x.execute {
		if err := do(); err != nil {
			return err
		}
		res.Executed = true
	}
	return a.result(res, func(w io.Writer) {
		for _, line := range what {
			fmt.Fprintln(w, line)
		}
		if res.Executed {
			fmt.Fprintln(w, a.t("done", "已执行"))
		} else {
			fmt.Fprintln(w, a.unchanged())
		}
	})
}

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// The interpreter knows nothing of processes: its $$ is ours, its $! is a
// number in a list, its jobs cannot be killed. So scripts are rewritten before
// they run: $$, $! and $PPID become variables, and `X &` becomes
//
//	{ __sh_spawn; __sh_job "$__sh_bang" 'X' || __sh_gone "$__sh_bang" & }
//
// where __sh_spawn makes a process of the simulated host and __sh_job runs X in
// it, inside the same interpreter, so that functions and variables are there.
// __sh_gone ends the process when a redirection of the job failed.
const (
	varPID   = "__sh_dollar" // $$
	varPPID  = "__sh_ppid"   // $PPID
	varBang  = "__sh_bang"   // $!
	varProc  = "__sh_proc"   // process that runs the current (sub)shell
	varUmask = "__sh_umask"
	inner    = "__sh_" // prefix of all of these and of the commands behind builtins
)

const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	// Exit statuses of what is not simulated.
	statusUnknownCommand = 127
	statusUnknownFlag    = 64
)

// builtins are the interpreter's own that POSIX scripts may use.
var builtins = map[string]bool{
	"true": true, "false": true, ":": true, "cd": true, "pwd": true, "read": true, "echo": true,
	"printf": true, "test": true, "[": true, "exit": true, "return": true, "shift": true, "set": true,
	"unset": true, "break": true, "continue": true, "eval": true, "exec": true, "trap": true,
	"getopts": true,
}

// behind are builtins that this package does itself.
var behind = map[string]bool{
	"kill": true, "wait": true, "umask": true, "command": true, ".": true, "export": true, "readonly": true, "local": true,
}

// shell is one running sh.
type shell struct {
	h *Host
	p *Proc

	mu    sync.Mutex
	funcs map[string]bool // names of functions seen, for `command -v`
}

// runShell runs a script in the process of p.
func (h *Host) runShell(ctx context.Context, p *Proc, src, name string, params []string, opts []string) int {
	file, err := parseScript(src, name)
	if err != nil {
		h.refuse("sh", "cannot parse: "+err.Error())
		fmt.Fprintf(p.Stderr, "sh: %v\n", err)
		return 2
	}
	sh := &shell{h: h, p: p, funcs: map[string]bool{}}
	sh.rewrite(file)
	stdin, closeStdin, err := asFile(p.Stdin)
	if err != nil {
		fmt.Fprintf(p.Stderr, "sh: %v\n", err)
		return 2
	}
	defer closeStdin()
	env := map[string]string{}
	for k, v := range p.Env {
		env[k] = v
	}
	env[varPID] = strconv.Itoa(p.PID)
	env[varProc] = strconv.Itoa(p.PID)
	h.mu.Lock()
	env[varPPID] = strconv.Itoa(p.p.ppid)
	h.mu.Unlock()
	env[varUmask] = fmt.Sprintf("%04o", p.umask)
	// The interpreter fills these from this machine when they are missing.
	for k, v := range map[string]string{"UID": strconv.Itoa(p.p.cred.uid), "EUID": strconv.Itoa(p.p.cred.uid), "GID": strconv.Itoa(p.p.cred.gid)} {
		env[k] = v
	}
	if env["HOME"] == "" {
		env["HOME"] = "/"
	}
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	r, err := interp.New(
		interp.Env(expand.ListEnviron(list...)),
		interp.StdIO(stdin, p.Stdout, p.Stderr),
		interp.Params(append(append(slices.Clone(opts), "--"), params...)...),
		func(r *interp.Runner) error { r.Dir = p.Dir; return nil }, // interp.Dir would look at this machine's disk
		interp.CallHandler(sh.call),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return sh.exec }),
		interp.OpenHandler(sh.open),
		interp.StatHandler(sh.stat),
		interp.AccessHandler(sh.access),
		interp.ReadDirHandler2(sh.readDir),
	)
	if err != nil {
		fmt.Fprintf(p.Stderr, "sh: %v\n", err)
		return 2
	}
	// Jobs run under this context too, and outlive the shell: its natural end
	// must not end them.
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	err = r.Run(runCtx, file)
	if !stop() {
		cancel()
	}
	if status, ok := errors.AsType[interp.ExitStatus](err); ok {
		return int(status)
	}
	if err != nil {
		if ctx.Err() == nil {
			fmt.Fprintf(p.Stderr, "sh: %v\n", err)
			h.refuse("sh", err.Error())
		}
		return 2
	}
	return 0
}

func parseScript(src, name string) (*syntax.File, error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(src), name)
	if err != nil {
		return nil, err
	}
	var open []bool // for each node above: whether it is a job
	jobs := 0
	syntax.Walk(file, func(n syntax.Node) bool {
		if n == nil {
			jobs -= boolInt(open[len(open)-1])
			open = open[:len(open)-1]
			return true
		}
		if f, ok := n.(*syntax.FuncDecl); ok && f.Name == nil { // the parser lets "() x" pass
			err = fmt.Errorf("%s: a function without a name", f.Pos())
		}
		s, ok := n.(*syntax.Stmt)
		open = append(open, ok && s.Background)
		jobs += boolInt(ok && s.Background)
		if jobs > maxNested {
			err = fmt.Errorf("%s: jobs nested more than %d deep", n.Pos(), maxNested)
		}
		return true
	})
	return file, err
}

// maxNested bounds jobs inside jobs: each level quotes the text of the next.
const maxNested = 4

// asFile makes a file of a reader, because the interpreter hands files on and
// would otherwise leave a goroutine behind.
func asFile(r io.Reader) (*os.File, func(), error) {
	switch r := r.(type) {
	case nil:
		return nil, func() {}, nil
	case noInput:
		return nil, func() {}, nil
	case *os.File:
		return r, func() {}, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	go func() {
		_, _ = io.Copy(pw, r) // ends at EOF or when nobody reads any more
		pw.Close()
	}()
	return pr, func() { pr.Close() }, nil
}

// noInput is a closed standard input.
type noInput struct{}

func (noInput) Read([]byte) (int, error) { return 0, io.EOF }

// rewrite prepares a parsed script; see the constants above.
func (sh *shell) rewrite(root syntax.Node) {
	syntax.Walk(root, func(n syntax.Node) bool {
		if f, ok := n.(*syntax.FuncDecl); ok {
			sh.mu.Lock()
			sh.funcs[f.Name.Value] = true
			sh.mu.Unlock()
		}
		if r, ok := n.(*syntax.Redirect); ok && !simulatedRedirect(r) {
			// The interpreter says so too, but a script may have hidden it.
			sh.h.refuse("sh", "a redirection other than of 0, 1 and 2")
		}
		if e, ok := n.(*syntax.ParamExp); ok && e.Param != nil {
			name := map[string]string{"$": varPID, "!": varBang, "PPID": varPPID}[e.Param.Value]
			if name != "" {
				e.Short = false
				e.Param = &syntax.Lit{Value: name}
			}
		}
		return true
	})
	// Jobs from the inside out: the text of an outer one holds the inner.
	var jobs []*syntax.Stmt
	syntax.Walk(root, func(n syntax.Node) bool {
		if s, ok := n.(*syntax.Stmt); ok && s.Background {
			jobs = append(jobs, s)
		}
		return true
	})
	for _, s := range slices.Backward(jobs) {
		rewriteJob(s)
	}
}

func rewriteJob(s *syntax.Stmt) {
	_, simple := s.Cmd.(*syntax.CallExpr)
	body := &syntax.Stmt{Cmd: s.Cmd, Negated: s.Negated}
	var text strings.Builder
	_ = syntax.NewPrinter().Print(&text, body) // writes to memory
	kind := "list"
	if simple && !s.Negated {
		kind = "simple"
	}
	bang := func() *syntax.Word {
		return &syntax.Word{Parts: []syntax.WordPart{&syntax.DblQuoted{Parts: []syntax.WordPart{&syntax.ParamExp{Param: &syntax.Lit{Value: varBang}}}}}}
	}
	job := &syntax.Stmt{
		Cmd:    &syntax.CallExpr{Args: []*syntax.Word{litWord(inner + "job"), bang(), quotedWord(text.String())}},
		Redirs: s.Redirs,
	}
	gone := &syntax.Stmt{Cmd: &syntax.CallExpr{Args: []*syntax.Word{litWord(inner + "gone"), bang()}}}
	if !slices.ContainsFunc(s.Redirs, func(r *syntax.Redirect) bool { return redirectsInput(r) }) {
		null := &syntax.Redirect{Op: syntax.RdrIn, Word: litWord("/dev/null")}
		job.Redirs = append([]*syntax.Redirect{null}, s.Redirs...)
	}
	spawn := &syntax.Stmt{Cmd: &syntax.CallExpr{Args: []*syntax.Word{litWord(inner + "spawn"), litWord(kind)}}}
	both := &syntax.Stmt{Cmd: &syntax.BinaryCmd{Op: syntax.OrStmt, X: job, Y: gone}, Background: true}
	*s = syntax.Stmt{Position: s.Position, Cmd: &syntax.Block{Stmts: []*syntax.Stmt{spawn, both}}}
}

// simulatedRedirect reports whether the interpreter can do a redirection.
func simulatedRedirect(r *syntax.Redirect) bool {
	if r.N != nil && !slices.Contains([]string{"0", "1", "2"}, r.N.Value) {
		return false
	}
	switch r.Op {
	case syntax.DplOut:
		return slices.Contains([]string{"1", "2", "-"}, r.Word.Lit())
	case syntax.DplIn:
		return r.Word.Lit() == "-"
	case syntax.RdrInOut:
		return false
	}
	return true
}

func redirectsInput(r *syntax.Redirect) bool {
	switch r.Op {
	case syntax.RdrIn, syntax.RdrInOut, syntax.DplIn, syntax.Hdoc, syntax.DashHdoc:
		return true
	}
	return false
}

func litWord(s string) *syntax.Word {
	return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: s}}}
}

// quotedWord is a word of exactly s, that prints correctly when it is itself
// part of a job's text.
func quotedWord(s string) *syntax.Word {
	w := &syntax.Word{}
	for i, part := range strings.Split(s, "'") {
		if i > 0 {
			w.Parts = append(w.Parts, &syntax.Lit{Value: `\'`})
		}
		w.Parts = append(w.Parts, &syntax.SglQuoted{Value: part})
	}
	return w
}

// rewriteText is rewrite for text that the shell meets while it runs.
func (sh *shell) rewriteText(src string) (string, error) {
	file, err := parseScript(src, "")
	if err != nil {
		return "", err
	}
	sh.rewrite(file)
	var out strings.Builder
	if err := syntax.NewPrinter().Print(&out, file); err != nil {
		return "", err
	}
	// What cannot be printed back is refused rather than run differently.
	again, err := parseScript(out.String(), "")
	if err != nil {
		return "", err
	}
	syntax.Walk(again, func(n syntax.Node) bool {
		if e, ok := n.(*syntax.ParamExp); ok && e.Param != nil && (e.Param.Value == "$" || e.Param.Value == "!") {
			err = fmt.Errorf("%s: a line continuation inside $%s", e.Pos(), e.Param.Value)
		}
		return true
	})
	return out.String(), err
}

// proc is the process that runs the (sub)shell a handler was called from.
func (sh *shell) proc(hc interp.HandlerContext) *process {
	pid, _ := strconv.Atoi(hc.Env.Get(varProc).String())
	if p := sh.h.process(pid); p != nil {
		return p
	}
	return sh.p.p
}

func umaskOf(env expand.Environ) fs.FileMode {
	n, err := strconv.ParseUint(env.Get(varUmask).String(), 8, 32)
	if err != nil {
		return 0o022
	}
	return fs.FileMode(n)
}

// call sees every simple command before it runs.
func (sh *shell) call(ctx context.Context, args []string) ([]string, error) {
	hc := interp.HandlerCtx(ctx)
	name := args[0]
	if strings.HasPrefix(name, inner) {
		return args, nil
	}
	p := sh.proc(hc)
	if err := p.ctx.Err(); err != nil {
		return nil, err // killed: nothing more runs
	}
	args = sh.replace(hc, args)
	if !strings.HasPrefix(args[0], inner) {
		if cmd := p.takePending(); cmd != "" {
			words := make([]string, len(args))
			for i, a := range args {
				words[i] = quote(a)
			}
			return []string{"eval", cmd + "\n" + strings.Join(words, " ")}, nil
		}
	}
	return args, nil
}

// replace maps builtins to what does their work here.
func (sh *shell) replace(hc interp.HandlerContext, args []string) []string {
	name := args[0]
	refused := func(why string) []string {
		return []string{inner + "refuse", strings.Join(args, " "), why}
	}
	switch name {
	case "pwd":
		return []string{"echo", hc.Dir}
	case "echo":
		if len(args) > 1 && (args[1] == "-e" || args[1] == "-E") {
			return refused("echo " + args[1] + " is not POSIX")
		}
		return args
	case "eval":
		text, err := sh.rewriteText(strings.Join(args[1:], " "))
		if err != nil {
			return []string{inner + "fail", "sh: eval: " + err.Error(), "2"}
		}
		return []string{"eval", text}
	case ".":
		return sh.source(hc, args)
	case "umask":
		switch len(args) {
		case 1:
			return []string{"echo", fmt.Sprintf("%04o", umaskOf(hc.Env))}
		case 2:
			if _, err := strconv.ParseUint(args[1], 8, 9); err == nil {
				return []string{"eval", varUmask + "=" + args[1]}
			}
		}
		return refused("umask: only octal modes are simulated")
	case "trap":
		return sh.trap(hc, args, refused)
	case "command":
		switch {
		case len(args) > 2 && args[1] == "-v":
			return append([]string{inner + "command_v"}, args[2:]...)
		case len(args) > 1 && !strings.HasPrefix(args[1], "-"):
			return sh.replace(hc, args[1:])
		}
		return refused("command: flags not simulated")
	case "kill", "wait":
		return append([]string{inner + name}, args[1:]...)
	case "export", "readonly", "local":
		// Plain commands to the POSIX parser, keywords to the interpreter's eval.
		text := name
		for _, a := range args[1:] {
			v, value, has := strings.Cut(a, "=")
			if !syntax.ValidName(v) {
				return refused("only names and NAME=VALUE")
			}
			text += " " + v
			if has {
				text += "=" + quote(value)
			}
		}
		return []string{"eval", text}
	}
	if interp.IsBuiltin(name) && !builtins[name] {
		return refused("not simulated")
	}
	return args
}

// source turns `. FILE` into eval, so that the file is the host's.
func (sh *shell) source(hc interp.HandlerContext, args []string) []string {
	if len(args) != 2 {
		return []string{inner + "refuse", strings.Join(args, " "), "the simulated . takes one file"}
	}
	p := sh.proc(hc)
	data, err := sh.h.tree.readFile(p.cred, absPath(hc.Dir, args[1]))
	if err != nil {
		return []string{inner + "fail", fmt.Sprintf("sh: .: %s: %s", args[1], errText(err)), "2"}
	}
	text, err := sh.rewriteText(string(data))
	if err != nil {
		return []string{inner + "fail", fmt.Sprintf("sh: %s: %v", args[1], err), "2"}
	}
	return []string{"eval", text}
}

// trap keeps signal traps with the process and leaves EXIT to the interpreter.
func (sh *shell) trap(hc interp.HandlerContext, args []string, refused func(string) []string) []string {
	args = args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) < 2 {
		return refused("trap: needs a command and signals")
	}
	cmd, names := args[0], args[1:]
	text := cmd
	if cmd != "-" && cmd != "" {
		var err error
		if text, err = sh.rewriteText(cmd); err != nil {
			return []string{inner + "fail", "sh: trap: " + err.Error(), "2"}
		}
	}
	onExit := false
	p := sh.proc(hc)
	for _, name := range names {
		name = strings.TrimPrefix(name, "SIG")
		for known, number := range signals {
			if name == strconv.Itoa(number) {
				name = known
			}
		}
		switch _, known := signals[name]; {
		case name == "EXIT" || name == "0":
			onExit = true
		case !known:
			return refused("trap: unknown signal " + name)
		default:
			sh.h.mu.Lock()
			if cmd == "-" {
				delete(p.traps, name)
			} else {
				if p.traps == nil {
					p.traps = map[string]string{}
				}
				p.traps[name] = text
			}
			sh.h.mu.Unlock()
		}
	}
	if onExit {
		return []string{"trap", text, "EXIT"}
	}
	return []string{"true"}
}

// exec runs what is neither function nor builtin.
func (sh *shell) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	p := sh.proc(hc)
	switch args[0] {
	case inner + "spawn":
		return sh.spawn(ctx, hc, p, args[1] == "simple")
	case inner + "job":
		return sh.job(ctx, hc, args[1], args[2])
	}
	status := sh.run(hc, p, args)
	if err := p.ctx.Err(); err != nil {
		return err // killed meanwhile: nothing more runs
	}
	if cmd := p.takePending(); cmd != "" {
		// A trap: it runs in this very shell, and may end it.
		saved := status
		if err := hc.Builtin(ctx, []string{"eval", cmd}); err != nil {
			return err
		}
		status = saved
	}
	if status == 0 {
		return nil
	}
	return interp.ExitStatus(status)
}

func (sh *shell) run(hc interp.HandlerContext, p *process, args []string) int {
	q := &Proc{
		Host: sh.h, Args: args, Env: environ(hc.Env), Dir: hc.Dir,
		Stdin: hc.Stdin, Stdout: hc.Stdout, Stderr: hc.Stderr,
		User: p.user, PID: p.pid, p: p, umask: umaskOf(hc.Env),
	}
	if hc.Stdin == nil {
		q.Stdin = noInput{}
	}
	switch args[0] {
	case inner + "refuse":
		sh.h.refuse(args[1], args[2])
		fmt.Fprintf(hc.Stderr, "sh: %s: %s\n", args[1], args[2])
		return statusUnknownFlag
	case inner + "fail":
		fmt.Fprintln(hc.Stderr, args[1])
		status, _ := strconv.Atoi(args[2])
		return status
	case inner + "gone":
		n, _ := strconv.Atoi(args[1])
		if c := sh.h.process(n); c != nil {
			c.end(1)
		}
		return 1
	case inner + "kill":
		return q.kill(args[1:])
	case inner + "wait":
		return sh.wait(p, args[1:])
	case inner + "command_v":
		return sh.commandV(hc, q, args[1:])
	}
	sh.h.mu.Lock()
	takes := p.single
	p.single = false
	sh.h.mu.Unlock()
	if takes { // a job of one command: the command takes the process over
		return sh.h.execute(p.ctx, q, args)
	}
	c := p.child(args, hc.Dir)
	q.p, q.PID = c, c.pid
	status := sh.h.execute(c.ctx, q, args)
	status = c.statusAfter(status)
	c.end(status)
	return status
}

// environ gives the exported variables, and our umask.
func environ(env expand.Environ) map[string]string {
	out := map[string]string{}
	for name, v := range env.Each {
		if v.Exported && v.Kind == expand.String && !strings.HasPrefix(name, inner) {
			out[name] = v.Str
		}
	}
	return out
}

// spawn makes the process of a background job.
func (sh *shell) spawn(ctx context.Context, hc interp.HandlerContext, p *process, simple bool) error {
	b, ok := sh.h.enter()
	if !ok {
		return interp.ExitStatus(254)
	}
	defer b.wg.Done()
	sh.h.mu.Lock()
	c := &process{ppid: p.pid, user: p.user, cred: p.cred, args: []string{"sh"}, exe: "/usr/bin/bash", cwd: hc.Dir, unit: p.unit, single: simple}
	sh.h.mu.Unlock()
	// A job outlives its shell.
	c = sh.h.fork(b, b.ctx, c)
	return hc.Builtin(ctx, []string{"eval", fmt.Sprintf("%s=%d", varBang, c.pid)})
}

// job runs the text of a background job in its process.
func (sh *shell) job(ctx context.Context, hc interp.HandlerContext, pid, text string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return fmt.Errorf("internal error: job without process: %q", pid)
	}
	c := sh.h.process(n)
	if c == nil {
		return interp.ExitStatus(137) // killed before it began
	}
	b, ok := sh.h.enter()
	if !ok {
		c.end(137)
		return interp.ExitStatus(137)
	}
	defer b.wg.Done()
	if out, ok := hc.Stdout.(*sessionWriter); ok {
		c.holdOutput(out)
	}
	if out, ok := hc.Stderr.(*sessionWriter); ok {
		c.holdOutput(out)
	}
	jobCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(c.ctx, cancel)
	defer func() { stop(); cancel() }()
	src := fmt.Sprintf("%s=%d\n%s", varProc, n, text)
	err = hc.Builtin(jobCtx, []string{"eval", src})
	status := 0
	if err != nil {
		// The interpreter keeps the number to itself; it is in the text.
		if _, serr := fmt.Sscanf(err.Error(), "builtin exit status %d", &status); serr != nil {
			status = 1
		}
	}
	status = c.statusAfter(status)
	c.end(status)
	if status == 0 {
		return nil
	}
	return interp.ExitStatus(status)
}

// wait waits for jobs of this shell.
func (sh *shell) wait(p *process, args []string) int {
	h := sh.h
	var pids []int
	if len(args) == 0 {
		h.mu.Lock()
		for pid, c := range h.procs {
			if c.ppid == p.pid {
				pids = append(pids, pid)
			}
		}
		h.mu.Unlock()
	}
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			return 127
		}
		pids = append(pids, pid)
	}
	status := 0
	for _, pid := range pids {
		c := h.process(pid)
		if c != nil {
			select {
			case <-c.done:
			case <-p.ctx.Done():
				return 143
			case <-p.wake:
				// A trapped signal interrupts wait; exec runs the trap.
				return 143
			}
		}
		h.mu.Lock()
		s, ok := h.exits[pid]
		h.mu.Unlock()
		if !ok {
			s = 127
		}
		status = s
	}
	if len(args) == 0 {
		return 0
	}
	return status
}

func (sh *shell) declared(name string) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.funcs[name]
}

func (sh *shell) commandV(hc interp.HandlerContext, q *Proc, names []string) int {
	status := 0
	for _, name := range names {
		switch {
		case sh.declared(name), builtins[name], behind[name]:
			fmt.Fprintln(q.Stdout, name)
		default:
			found, err := sh.h.lookPath(q.p.cred, q.path(), hc.Dir, name)
			if err != nil {
				status = 127
				continue
			}
			fmt.Fprintln(q.Stdout, found)
		}
	}
	return status
}

func (sh *shell) abs(hc interp.HandlerContext, name string) string { return absPath(hc.Dir, name) }

// absPath makes a path of the host absolute.
func absPath(dir, name string) string {
	if strings.HasPrefix(name, "/") {
		return clean(name)
	}
	return clean(path.Join(clean(dir), name))
}

func (sh *shell) open(ctx context.Context, name string, flag int, _ os.FileMode) (io.ReadWriteCloser, error) {
	hc := interp.HandlerCtx(ctx)
	full := sh.abs(hc, name)
	c := sh.proc(hc).cred
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		data, err := sh.h.tree.readFile(c, full)
		if err != nil {
			return nil, shellError(name, err)
		}
		f, err := fileOf(data)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	flags := 0
	if flag&os.O_CREATE != 0 {
		flags |= oCreate
	}
	if flag&os.O_TRUNC != 0 {
		flags |= oTrunc
	}
	if flag&os.O_APPEND != 0 {
		flags |= oAppend
	}
	f, err := sh.h.tree.openWrite(c, full, flags, 0o666&^umaskOf(hc.Env))
	if err != nil {
		return nil, shellError(name, err)
	}
	return f, nil
}

// fileOf gives data as the read end of a pipe: the interpreter closes files
// it was given, and copies anything else through a goroutine of its own.
func fileOf(data []byte) (*os.File, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	go func() {
		_, _ = pw.Write(data) // the reader may stop early
		pw.Close()
	}()
	return pr, nil
}

// shellError is an error the interpreter prints as the shell's.
func shellError(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &os.PathError{Op: "sh", Path: name, Err: errors.New(errText(err))}
}

func (sh *shell) stat(ctx context.Context, name string, follow bool) (fs.FileInfo, error) {
	hc := interp.HandlerCtx(ctx)
	i, err := sh.h.tree.stat(sh.proc(hc).cred, sh.abs(hc, name), follow)
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (sh *shell) access(ctx context.Context, name string, mode interp.AccessMode) error {
	hc := interp.HandlerCtx(ctx)
	return sh.h.tree.access(sh.proc(hc).cred, sh.abs(hc, name), fs.FileMode(mode))
}

func (sh *shell) readDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	hc := interp.HandlerCtx(ctx)
	c, full := sh.proc(hc).cred, sh.abs(hc, name)
	list, err := sh.h.tree.readDir(c, full)
	if errors.Is(err, fs.ErrNotExist) {
		// The interpreter asks so whether a path of a pattern exists; a link that
		// leads nowhere does.
		if _, lerr := sh.h.tree.stat(c, full, false); lerr == nil {
			return nil, perr("open", name, errNotDir)
		}
	}
	return list, err
}

// quote makes one word of s for the shell. In double quotes: the interpreter
// keeps the backslash of an escaped single quote in an assignment's value.
func quote(s string) string {
	return "\"" + strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "$", "\\$", "`", "\\`").Replace(s) + "\""
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/nginx"
)

// newNginxReads returns the commands that only read.
func newNginxReads(a *app, n *nginxFlags) []*cobra.Command {
	return []*cobra.Command{newNginxTokens(a, n), newNginxCat(a, n), newNginxRefs(a, n)}
}

// readFile reads the one file that tokens and cat are about: "-" is standard
// input, other names are of the host with --host, of the copy with --root, and
// of this machine otherwise. At most one byte more is read than nginx.Parse
// takes, so that it can say that the file is too large.
func (n *nginxFlags) readFile(ctx context.Context, a *app, name string) ([]byte, error) {
	limited := func(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, nginx.MaxFileSize+1)) }
	if n.host != "" && name != "-" {
		s, err := n.open(ctx, a)
		if err != nil {
			return nil, err
		}
		defer s.close()
		return s.server.Host.ReadFile(ctx, name)
	}
	type result struct {
		data []byte
		err  error
	}
	read := func() (r result) {
		if name == "-" {
			r.data, r.err = limited(a.in)
			return r
		}
		if n.root != "" {
			name = filepath.Join(n.root, filepath.FromSlash(name))
		}
		f, err := os.Open(name)
		if err != nil {
			return result{err: err}
		}
		defer f.Close()
		r.data, r.err = limited(f)
		return r
	}
	// A pipe may never say anything, and it cannot be asked to stop: the program
	// ends without it.
	done := make(chan result, 1)
	go func() { done <- read() }()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// parseFile reads and parses the file. The File holds what stands before a
// syntax error too; for that error, which is printed as FILE:LINE: message, the
// command ends with status 1.
func (n *nginxFlags) parseFile(ctx context.Context, a *app, name string) (*nginx.File, error) {
	data, err := n.readFile(ctx, a, name)
	if err != nil {
		return nil, err
	}
	f, err := nginx.Parse(name, data)
	if e := (*nginx.SyntaxError)(nil); errors.As(err, &e) {
		err = &syntaxFailure{fmt.Errorf("%s:%d: %s", name, e.Line, e.Msg)}
	}
	return f, err
}

// syntaxFailure is a syntax error in the form that editors and nginx use.
type syntaxFailure struct{ err error }

func (e *syntaxFailure) Error() string { return e.err.Error() }

// fail prints a syntax error without the program's name before it.
func (a *app) fail(err error) error {
	if e := (*syntaxFailure)(nil); errors.As(err, &e) {
		fmt.Fprintln(a.err, e)
		return &exitError{code: exitFailure}
	}
	return err
}

func newNginxTokens(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "tokens FILE",
		Short: a.t("the words nginx reads from a file, as JSON lines", "nginx 从文件读到的词，每行一个 JSON 对象"),
		Long: a.t(`One JSON object a line, in the order of the file:

  {"words":["server","10.0.0.1:80"],"end":";","line":4}
  {"end":"}","line":5}

words are those nginx has after unescaping; end is ; or { or }; line is the line
nginx names: that of end. A Lua block gives the words before its { and, for its
end, a closing brace: the code is not nginx's to read. Bytes that are not UTF-8
appear as U+FFFD each ('nginx cat' gives them back). FILE may be - for standard
input. On a syntax error the objects before it are printed, then
FILE:LINE: message on standard error, and the status is 1.`,
			`按文件顺序每行输出一个 JSON 对象：

  {"words":["server","10.0.0.1:80"],"end":";","line":4}
  {"end":"}","line":5}

words 是 nginx 去转义后的词；end 为 ;、{ 或 }；line 是 nginx 报告的行，即 end 所在行。
Lua 块输出 { 之前的词，其结尾为一个右花括号：代码不由 nginx 读取。非 UTF-8 字节逐个显示为
U+FFFD（可用 nginx cat 取回原字节）。FILE 为 - 时读标准输入。遇语法错误时先输出之前的对象，
再在标准错误输出 FILE:LINE: message，退出码为 1。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, syntax := n.parseFile(cmd.Context(), a, args[0])
			if f == nil {
				return syntax
			}
			if err := printTokens(a.out, f); err != nil {
				return err
			}
			return a.fail(syntax)
		},
	}
}

// tokenJSON is a token as 'nginx tokens' prints it.
type tokenJSON struct {
	Words []string `json:"words,omitempty"` // none: a closing brace
	End   string   `json:"end"`
	Line  int      `json:"line"`
}

func printTokens(out io.Writer, f *nginx.File) error {
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for t := range f.Tokens() {
		if err := enc.Encode(tokenJSON{t.Words, string(t.End), t.Line}); err != nil {
			return err
		}
	}
	return w.Flush()
}

func newNginxCat(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "cat FILE",
		Short: a.t("parse a file and write it back, byte for byte", "解析文件并逐字节写回"),
		Long: a.t(`Parses FILE (- is standard input) and writes it to standard output byte for byte.
On a syntax error nothing is written: FILE:LINE: message goes to standard error,
and the status is 1.`,
			`解析 FILE（- 为标准输入）并逐字节写到标准输出。遇语法错误时不输出内容，
在标准错误输出 FILE:LINE: message，退出码为 1。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := n.parseFile(cmd.Context(), a, args[0])
			if err != nil {
				return a.fail(err)
			}
			_, err = a.out.Write(f.Bytes())
			return err
		},
	}
}

func newNginxRefs(a *app, n *nginxFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "refs [ADDR]",
		Short: a.t("where the files refer to a host, commented lines included", "查找引用某主机之处，含被注释的行"),
		Long: a.t(`ADDR is HOST, HOST:PORT, [IPV6]:PORT or unix:/PATH; without it all references
are listed. Addresses are compared as addresses and default ports count. What
cannot be decided from the files is listed as not certain, never left out.

With --json an array of
  {"kind","addr","upstream","proto","file","line","col","state","certain","uses"}
kind: server | pass | value | mention. addr: host:port, the port nginx takes when
none is written included; "text" is what stands in the file. state, a list:
active, down, backup, off (by a marker of ours, see "tag"), hand-commented. uses:
the passes that lead there, as FILE:LINE: CONTEXT. "reason" says why an entry is
not certain.`,
			`ADDR 为 HOST、HOST:PORT、[IPV6]:PORT 或 unix:/PATH；省略则列出全部引用。地址按数值比较，
计入默认端口。仅凭文件无法判定之处以“不确定”列出，绝不遗漏。

--json 输出数组，元素为
  {"kind","addr","upstream","proto","file","line","col","state","certain","uses"}
kind：server | pass | value | mention。addr：host:port，未写端口时为 nginx 的默认端口；
"text" 为文件中的原文。state 为列表：active、down、backup、off（本工具的标记，见 "tag"）、
hand-commented。uses：通向该处的 pass，形如 FILE:LINE: CONTEXT。"reason" 说明不确定的原因。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var q nginx.Query
			if len(args) == 1 {
				var err error
				if q, err = nginx.ParseQuery(args[0]); err != nil {
					return &usageError{err}
				}
			}
			t, err := n.readTree(cmd.Context(), a)
			if err != nil {
				return err
			}
			refs := []refJSON{}
			for _, r := range t.Refs(q) {
				refs = append(refs, newRefJSON(r))
			}
			if len(refs) == 0 {
				a.progress(a.t("no reference in %d files", "%d 个文件中没有引用"), len(t.Files()))
			}
			return a.result(refs, func(w io.Writer) {
				for _, r := range refs {
					r.print(w)
				}
			})
		},
	}
}

// readTree loads the configuration. A main file of this machine that is named
// needs no nginx, and its files keep the name they were asked for by.
func (n *nginxFlags) readTree(ctx context.Context, a *app) (*nginx.Tree, error) {
	if n.host == "" && n.root == "" && n.conf != "" {
		return nginx.Load(ctx, nginx.DirFS(""), filepath.ToSlash(n.conf))
	}
	s, err := n.open(ctx, a)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.load(ctx)
}

// refJSON is a reference as 'nginx refs --json' prints it.
type refJSON struct {
	Kind     string   `json:"kind"` // server, pass, value or mention
	Addr     string   `json:"addr"`
	Upstream string   `json:"upstream"`
	Proto    string   `json:"proto"` // http, stream or mail; "" when the files do not say
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Col      int      `json:"col"`
	State    []string `json:"state"`
	Certain  bool     `json:"certain"`
	Uses     []string `json:"uses"`

	Text      string `json:"text"`
	Directive string `json:"directive"`
	Context   string `json:"context"`
	Reason    string `json:"reason,omitempty"`
	Tag       string `json:"tag,omitempty"`
}

func newRefJSON(r nginx.Ref) refJSON {
	out := refJSON{
		Kind: string(r.Kind), Addr: refAddr(r), Upstream: r.Upstream, Proto: r.Protocol,
		File: r.File, Line: r.Line, Col: r.Col, State: nonNil(r.State), Certain: r.Certain, Uses: []string{},
		Text: r.Addr, Directive: r.Directive, Context: r.Context, Reason: r.Reason, Tag: r.Tag,
	}
	// What is commented out keeps the kind it had; its state says the rest.
	if r.Kind == nginx.KindOff || r.Kind == nginx.KindComment {
		switch {
		case r.Directive == "server":
			out.Kind = string(nginx.KindServer)
		case strings.HasSuffix(r.Directive, "pass"), r.Directive == "auth_http":
			out.Kind = string(nginx.KindPass)
		case r.Host != "":
			out.Kind = string(nginx.KindValue)
		default:
			out.Kind = string(nginx.KindMention)
		}
	}
	for _, u := range r.UsedBy {
		out.Uses = append(out.Uses, u.String())
	}
	return out
}

// refAddr is the address in its usual form: host:port where the port is known,
// the words of the file where there is no address in them.
func refAddr(r nginx.Ref) string {
	switch {
	case r.Host == "":
		return r.Addr
	case r.Kind == nginx.KindPass && r.Upstream != "":
		return r.Host // an upstream has no port
	}
	host := r.Host
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		host = a.String()
	}
	if strings.HasPrefix(host, "unix:") {
		return host
	}
	if r.Port != 0 {
		return net.JoinHostPort(host, strconv.Itoa(r.Port))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func (r refJSON) print(w io.Writer) {
	fmt.Fprintf(w, "%s:%d:%d: %s %s in %s", r.File, r.Line, r.Col, r.Kind, dash(r.Text), dash(r.Context))
	if state := strings.Join(r.State, ", "); state != "active" {
		fmt.Fprintf(w, " (%s)", state)
	}
	if r.Tag != "" {
		fmt.Fprintf(w, " (tag %s)", r.Tag)
	}
	if !r.Certain {
		fmt.Fprintf(w, " (not certain: %s)", r.Reason)
	}
	fmt.Fprintln(w)
}

package host

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func cmdEcho(_ context.Context, p *Proc) int {
	fmt.Fprintln(p.Stdout, strings.Join(p.Args[1:], " "))
	return 0
}

func cmdSha256sum(ctx context.Context, p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	return p.inputs(ctx, f.rest, func(name string, data []byte) {
		fmt.Fprintf(p.Stdout, "%x  %s\n", sha256.Sum256(data), name)
	})
}

// trSet expands a set of tr.
func trSet(s string) ([]byte, bool) {
	var out []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '[' && strings.HasPrefix(s[i:], "[:"):
			return nil, false
		case c == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case '0', '1', '2', '3', '4', '5', '6', '7':
				end := i + 1
				for end < len(s) && end < i+3 && s[end] >= '0' && s[end] <= '7' {
					end++
				}
				n, err := strconv.ParseUint(s[i:end], 8, 8)
				if err != nil {
					return nil, false
				}
				c, i = byte(n), end-1
			default:
				c = s[i]
			}
		case c == '-' && len(out) > 0 && i+1 < len(s) && s[i+1] > out[len(out)-1]:
			for b := int(out[len(out)-1]) + 1; b < int(s[i+1]); b++ {
				out = append(out, byte(b))
			}
			continue
		}
		out = append(out, c)
	}
	return out, len(out) > 0
}

func cmdTr(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-c", "-d")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 2-boolInt(f.is["-d"]) {
		return p.refusef("needs two sets, one with -d")
	}
	from, ok1 := trSet(f.rest[0])
	to, ok2 := []byte{0}, true
	if !f.is["-d"] {
		to, ok2 = trSet(f.rest[1])
	}
	if !ok1 || !ok2 {
		return p.refusef("sets %q", f.rest)
	}
	if f.is["-c"] {
		var others []byte
		for i := range 256 {
			if !slices.Contains(from, byte(i)) {
				others = append(others, byte(i))
			}
		}
		from = others
	}
	var table [256]byte
	for i := range table {
		table[i] = byte(i)
	}
	for i, c := range from {
		table[c] = to[min(i, len(to)-1)]
	}
	if f.is["-d"] {
		return p.inputs(ctx, nil, func(_ string, data []byte) {
			_, _ = p.Stdout.Write(slices.DeleteFunc(data, func(c byte) bool { return slices.Contains(from, c) }))
		})
	}
	return p.inputs(ctx, nil, func(_ string, data []byte) {
		for i, c := range data {
			data[i] = table[c]
		}
		_, _ = p.Stdout.Write(data)
	})
}

func cmdHead(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-c=", "-n=")
	if !ok {
		return statusUnknownFlag
	}
	bytes, lines := -1, 10
	if s, has := f.val["-c"]; has {
		if bytes, ok = number(s); !ok {
			return p.refusef("-c %s", s)
		}
	}
	if s, has := f.val["-n"]; has {
		if lines, ok = number(s); !ok {
			return p.refusef("-n %s", s)
		}
	}
	return p.inputs(ctx, f.rest, func(_ string, data []byte) {
		if bytes >= 0 {
			_, _ = p.Stdout.Write(data[:min(bytes, len(data))])
			return
		}
		n := 0
		for line := range strings.Lines(string(data)) {
			if n++; n > lines {
				break
			}
			fmt.Fprint(p.Stdout, line)
		}
	})
}

func cmdWc(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-c", "-l")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.is) != 1 {
		return p.refusef("wc wants -c or -l")
	}
	return p.inputs(ctx, f.rest, func(name string, data []byte) {
		n := len(data)
		if f.is["-l"] {
			n = strings.Count(string(data), "\n")
		}
		if name == "-" {
			fmt.Fprintln(p.Stdout, n)
			return
		}
		fmt.Fprintln(p.Stdout, n, name)
	})
}

// basicRegexp turns a simple basic regular expression into Go's syntax.
func basicRegexp(s string) (*regexp.Regexp, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '[': // to its end as it is
			end := strings.IndexByte(s[min(i+2, len(s)):], ']')
			if end < 0 {
				return nil, errors.New("a bracket without its end")
			}
			end += i + 3
			b.WriteString(strings.ReplaceAll(s[i:end], "\\", "\\\\"))
			i = end - 1
		case '+', '?', '(', ')', '{', '}', '|':
			b.WriteString("\\" + string(c))
		case '\\':
			if i+1 < len(s) {
				i++
				switch s[i] {
				case '(', ')', '{', '}', '|', '+', '?':
					b.WriteByte(s[i])
				default:
					b.WriteString("\\" + string(s[i]))
				}
			}
		default:
			b.WriteByte(c)
		}
	}
	return regexp.Compile(b.String())
}

func cmdGrep(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-c", "-q", "-F", "-x", "-E", "-H", "-a", "-s", "-z", "-v", "-o", "-L")
	if !ok {
		return statusUnknownFlag
	}
	if f.is["-o"] && (f.is["-v"] || f.is["-x"]) {
		return p.refusef("-o with -v or -x")
	}
	if len(f.rest) == 0 {
		return p.failf(2, "no pattern")
	}
	pattern := f.rest[0]
	re, err := basicRegexp(pattern)
	switch {
	case f.is["-F"]:
		re, err = regexp.Compile(regexp.QuoteMeta(pattern))
	case f.is["-E"]:
		re, err = regexp.CompilePOSIX(pattern)
	}
	if err != nil {
		return p.refusef("pattern %q", pattern)
	}
	end := byte('\n')
	if f.is["-z"] {
		end = 0
	}
	if f.is["-s"] {
		p.Stderr = io.Discard
	}
	total := 0
	var out bytes.Buffer
	var without []string // of -L
	status := p.inputs(ctx, f.rest[1:], func(name string, data []byte) {
		count := 0
		prefix := ""
		if len(f.rest) > 2 || f.is["-H"] {
			if prefix = name + ":"; name == "-" {
				prefix = "(standard input):"
			}
		}
		for len(data) > 0 {
			line, rest, _ := bytes.Cut(data, []byte{end})
			data = rest
			at := re.FindIndex(line)
			if matches := at != nil && (!f.is["-x"] || at[0] == 0 && at[1] == len(line)); matches == f.is["-v"] {
				continue
			}
			count++
			if f.is["-o"] {
				for _, m := range re.FindAll(line, -1) {
					if len(m) > 0 && !f.is["-c"] && !f.is["-q"] {
						fmt.Fprintf(&out, "%s%s%c", prefix, m, end)
					}
				}
				continue
			}
			if !f.is["-c"] && !f.is["-q"] {
				out.WriteString(prefix)
				out.Write(line)
				out.WriteByte(end)
			}
		}
		if f.is["-L"] {
			out.Reset()
			if count == 0 {
				without = append(without, name)
			}
		}
		if f.is["-c"] && !f.is["-q"] {
			fmt.Fprintf(&out, "%s%d\n", prefix, count)
		}
		total += count
	})
	for _, name := range without {
		out.WriteString(name + "\n")
	}
	_, _ = p.Stdout.Write(out.Bytes())
	switch {
	case status != 0:
		return 2
	case total == 0:
		return 1
	}
	return 0
}

// sedRule is one s/REGEXP/TEXT/p, or /REGEXP/p.
type sedRule struct {
	re   *regexp.Regexp
	with string // Go's template; "" with subst false
	sub  bool
	drop bool // the line is done with
}

// cmdSed is sed -n with rules that print the lines they match, or end them.
func cmdSed(ctx context.Context, p *Proc) int {
	var rules []sedRule
	args := p.Args[1:]
	if len(args) == 0 || args[0] != "-n" {
		return p.refusef("sed without -n")
	}
	for args = args[1:]; len(args) >= 2 && args[0] == "-e"; args = args[2:] {
		r, err := parseSed(args[1])
		if err != nil {
			return p.refusef("script %q: %s", args[1], err)
		}
		rules = append(rules, r)
	}
	if len(args) > 0 || len(rules) == 0 {
		return p.refusef("anything but sed -n -e RULE… on standard input")
	}
	var out bytes.Buffer
	status := p.inputs(ctx, nil, func(_ string, data []byte) {
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			for _, r := range rules {
				m := r.re.FindStringSubmatchIndex(line)
				if m == nil {
					continue
				}
				if r.drop {
					break
				}
				if r.sub {
					line = line[:m[0]] + string(r.re.ExpandString(nil, r.with, line, m)) + line[m[1]:]
				}
				out.WriteString(line + "\n")
			}
		}
	})
	_, _ = p.Stdout.Write(out.Bytes())
	return status
}

func parseSed(s string) (sedRule, error) {
	var r sedRule
	s, ok := strings.CutSuffix(s, "/p")
	if !ok {
		if s, r.drop = strings.CutSuffix(s, "/d"); !r.drop || !strings.HasPrefix(s, "/") {
			return r, errors.New("it does not end with /p, and is not /…/d")
		}
	}
	s, r.sub = strings.CutPrefix(s, "s")
	if !strings.HasPrefix(s, "/") {
		return r, errors.New("it does not begin with / or s/")
	}
	pattern, with := s[1:], ""
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] == '\\':
			i++
		case pattern[i] == '/':
			pattern, with = pattern[:i], pattern[i+1:]
		}
	}
	var err error
	if r.re, err = basicRegexp(pattern); err != nil {
		return r, err
	}
	if strings.ContainsAny(with, "$/&") {
		return r, errors.New("its replacement has $, & or /")
	}
	var b strings.Builder
	for i := 0; i < len(with); i++ {
		if with[i] == '\\' && i+1 < len(with) && with[i+1] >= '0' && with[i+1] <= '9' {
			i++
			fmt.Fprintf(&b, "${%c}", with[i])
			continue
		}
		b.WriteByte(with[i])
	}
	r.with = b.String()
	return r, nil
}

func lines(data []byte) []string {
	var out []string
	for line := range strings.Lines(string(data)) {
		out = append(out, strings.TrimSuffix(line, "\n"))
	}
	return out
}

func cmdSort(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-u")
	if !ok {
		return statusUnknownFlag
	}
	var all []string
	status := p.inputs(ctx, f.rest, func(_ string, data []byte) { all = append(all, lines(data)...) })
	slices.Sort(all)
	if f.is["-u"] {
		all = slices.Compact(all)
	}
	for _, line := range all {
		fmt.Fprintln(p.Stdout, line)
	}
	return status
}

func cmdUniq(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-d")
	if !ok {
		return statusUnknownFlag
	}
	return p.inputs(ctx, f.rest, func(_ string, data []byte) {
		all := lines(data)
		for i, line := range all {
			first := i == 0 || all[i-1] != line
			again := i+1 < len(all) && all[i+1] == line
			if first && (again || !f.is["-d"]) {
				fmt.Fprintln(p.Stdout, line)
			}
		}
	})
}

// cmdCut knows one field of each line of standard input.
func cmdCut(_ context.Context, p *Proc) int {
	f, ok := p.flags("-d=", "-f=")
	if !ok {
		return statusUnknownFlag
	}
	n, err := strconv.Atoi(f.val["-f"])
	if err != nil || n < 1 || len(f.val["-d"]) != 1 || len(f.rest) > 0 {
		return p.refusef("anything but -d CHARACTER -f NUMBER")
	}
	in := bufio.NewScanner(p.Stdin)
	for in.Scan() {
		fields := strings.Split(in.Text(), f.val["-d"])
		switch {
		case len(fields) == 1: // no delimiter: the whole line
			fmt.Fprintln(p.Stdout, in.Text())
		case n <= len(fields):
			fmt.Fprintln(p.Stdout, fields[n-1])
		default:
			fmt.Fprintln(p.Stdout)
		}
	}
	return 0
}

// cmdTail is tail -c N and tail -n N of standard input.
func cmdTail(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-c=", "-n=")
	if !ok {
		return statusUnknownFlag
	}
	chars, byChar := number(f.val["-c"])
	count, byLine := number(f.val["-n"])
	if byChar == byLine || len(f.rest) > 0 {
		return p.refusef("tail other than -c N or -n N of standard input")
	}
	return p.inputs(ctx, nil, func(_ string, data []byte) {
		if byChar {
			_, _ = p.Stdout.Write(data[max(0, len(data)-chars):])
			return
		}
		all := lines(data)
		for _, line := range all[max(0, len(all)-count):] {
			fmt.Fprintln(p.Stdout, line)
		}
	})
}

// cmdCmp is cmp -s A B.
func cmdCmp(_ context.Context, p *Proc) int {
	f, ok := p.flags("-s")
	if !ok {
		return statusUnknownFlag
	}
	if !f.is["-s"] || len(f.rest) != 2 {
		return p.refusef("cmp other than -s A B")
	}
	a, err := p.tree().readFile(p.p.cred, p.abs(f.rest[0]))
	if err != nil {
		return 2
	}
	b, err := p.tree().readFile(p.p.cred, p.abs(f.rest[1]))
	if err != nil {
		return 2
	}
	return boolInt(!bytes.Equal(a, b))
}

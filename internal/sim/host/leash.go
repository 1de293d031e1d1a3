package host

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The product runs commands through a small script that reads them from
// standard input and ends them when it ends. This host knows the two forms of
// that script by their SHA-256 and does itself what they do; a script that was
// changed is not known here, and is refused by the shell as foreign.
const (
	leashKill   = "d689f00a0aba6ccc09475094740a05ef9a815de449baffae3eb477bdbbdf0d5e"
	leashDetach = "8bb128d1bf067eadf107d3299047b38d0cce06f88eeea6b3b5e62908dbb19b5f"
)

// A leashed command is a session's command in that form.
type leashed struct {
	mark  string // printed on both outputs before the command runs
	cmd   string // empty = it comes over standard input
	input bool   // the command has input
	kill  bool   // it ends with the session
}

// parseLeash reports whether line is that script:
//
//	/bin/sh -c 'SCRIPT' upgradectl upgradectl-MARK COMMAND input|none
//
// with 32 hexadecimal digits as MARK, and COMMAND in single quotes when it holds
// a blank. Every command of the product comes through here.
func parseLeash(line string) (l leashed, ok bool) {
	rest, is := strings.CutPrefix(line, "/bin/sh -c '")
	script, rest, quoted := strings.Cut(rest, "' upgradectl ")
	mark, rest, marked := strings.Cut(rest, " ")
	last := strings.LastIndexByte(rest, ' ')
	if !is || !quoted || !marked || last < 0 || strings.Contains(script, "'") || !isMark(mark) {
		return leashed{}, false
	}
	cmd, input := rest[:last], rest[last+1:]
	if input != "input" && input != "none" {
		return leashed{}, false
	}
	if inner, open := strings.CutPrefix(cmd, "'"); open {
		if cmd, is = strings.CutSuffix(inner, "'"); !is || strings.Contains(cmd, "'") {
			return leashed{}, false
		}
	} else if cmd == "" || strings.ContainsAny(cmd, "' ") {
		return leashed{}, false
	}
	sum := sha256.Sum256([]byte(script))
	l = leashed{mark: mark, input: input == "input"}
	switch hex.EncodeToString(sum[:]) {
	case leashKill:
		l.kill = true
	case leashDetach:
	default:
		return leashed{}, false
	}
	l.cmd = unescape(cmd)
	return l, true
}

// isMark reports whether s is "upgradectl-" and 32 hexadecimal digits.
func isMark(s string) bool {
	digits, ok := strings.CutPrefix(s, "upgradectl-")
	return ok && len(digits) == 32 && strings.Trim(digits, "0123456789abcdef") == ""
}

// unescape undoes the only escape that the product writes for printf %b: a
// backslash, 0 and three octal digits that fit into a byte.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, `\0`)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		if len(s) >= 5 {
			if n, err := strconv.ParseUint(s[2:5], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[5:]
				continue
			}
		}
		b.WriteString(s[:2])
		s = s[2:]
	}
}

// leash runs such a command.
func (s *session) leash(l leashed) {
	fmt.Fprintln(s.ch, l.mark)
	fmt.Fprintln(s.ch.Stderr(), l.mark)
	in := bufio.NewReader(s.ch)
	refuse := func(why string) {
		fmt.Fprintln(s.ch.Stderr(), "upgradectl: "+why)
		s.exit(97, nil)
		s.ch.Close()
	}
	if l.cmd == "" || l.input {
		if line, _ := in.ReadString('\n'); line != "in\n" {
			refuse("a start file of the login shell took away what was for the command")
			return
		}
	}
	if l.cmd == "" {
		n, err := frameLength(in)
		if err != nil || n == 0 {
			refuse("the command did not arrive whole")
			return
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(in, text); err != nil {
			refuse("the command did not arrive whole")
			return
		}
		var whole bool
		if l.cmd, whole = strings.CutSuffix(string(text), "\n#upgradectl-end"); !whole {
			refuse("the command did not arrive whole")
			return
		}
	}
	args := []string{"/bin/sh", "-c", l.cmd}
	p := s.start(args)
	if !l.kill {
		s.exec(p, args, in)
		return
	}
	pr, pw := io.Pipe()
	var stdin io.Reader = pr
	if !l.input {
		pw.Close()
		stdin = noInput{} // which costs no pipe of this machine
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for {
			n, err := frameLength(in)
			if err != nil {
				p.signal("TERM") // nobody waits for it any more
				pw.CloseWithError(io.ErrUnexpectedEOF)
				return
			}
			if n == 0 {
				pw.Close()
				continue
			}
			// A command that no longer reads gets no more.
			if _, err := io.CopyN(pw, in, n); err != nil {
				_, _ = io.Copy(io.Discard, in)
			}
		}
	}()
	s.exec(p, args, stdin)
	pr.Close()
	s.ch.Close()
	<-fed
}

// frameLength reads the decimal length before a piece of input.
func frameLength(in *bufio.Reader) (int64, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 63)
	if err != nil || n < 0 || n > 1<<30 {
		return 0, fmt.Errorf("%q is no length", line)
	}
	return n, nil
}

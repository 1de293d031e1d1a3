package host

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// The product runs commands through a small script that reads them from
// standard input and ends them when it ends. This host knows the two forms of
// that script by their SHA-256 and does itself what they do; a script that was
// changed is not known here, and is refused by the shell as foreign.
const (
	leashKill   = "0965f94253b844372c33fe3fe43213fa74162e1db435a6d8feb123b947cc8bff"
	leashDetach = "97ab96daa3a4d9388d9347b318f622eb9d75d9d13b0005f670e06b45f302281b"
)

var leashLine = regexp.MustCompile(`^/bin/sh -c '([^']*)' upgradectl (upgradectl-[0-9a-f]{32})$`)

// leashed reports whether line is that script, and which form of it.
func leashed(line string) (mark string, kill, ok bool) {
	m := leashLine.FindStringSubmatch(line)
	if m == nil {
		return "", false, false
	}
	sum := sha256.Sum256([]byte(m[1]))
	switch hex.EncodeToString(sum[:]) {
	case leashKill:
		return m[2], true, true
	case leashDetach:
		return m[2], false, true
	}
	return "", false, false
}

// leash runs the command that comes over the channel.
func (s *session) leash(mark string, kill bool) {
	fmt.Fprintln(s.ch, mark)
	fmt.Fprintln(s.ch.Stderr(), mark)
	in := bufio.NewReader(s.ch)
	refuse := func(why string) {
		fmt.Fprintln(s.ch.Stderr(), "upgradectl: "+why)
		s.exit(97, nil)
		s.ch.Close()
	}
	n, err := frameLength(in)
	if err != nil || n == 0 {
		refuse("a start file of the login shell took the command away")
		return
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(in, text); err != nil {
		refuse("the command did not arrive whole")
		return
	}
	cmd, whole := strings.CutSuffix(string(text), "\n#upgradectl-end")
	if !whole {
		refuse("the command did not arrive whole")
		return
	}
	args := []string{"/bin/sh", "-c", cmd}
	p := s.start(args)
	if !kill {
		s.exec(p, args, in)
		return
	}
	pr, pw := io.Pipe()
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
			if _, err := io.CopyN(pw, in, n); err != nil && n > 0 {
				_, _ = io.Copy(io.Discard, in)
			}
		}
	}()
	s.exec(p, args, pr)
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

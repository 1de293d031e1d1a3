package remote

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// leash runs a command and ends it when standard input ends: OpenSSH up to
// 10.5 leaves commands running when their session or connection is gone, and
// obeys signals only since 7.9. It is one line without single quotes or "!",
// so that sh, csh and fish pass it on unharmed, and needs dd, printf and /proc
// besides a POSIX sh.
//
// It prints the mark $1 on both outputs, so that what the login shell's start
// files printed can be told apart. $2 is the command, as for printf %b; empty
// = it comes over standard input. There, after the line "in", everything is
// preceded by its length in decimal on a line of its own: the command, pieces
// of the command's input, and a lone "0" where that ends; with $3 = none there
// is no input. After it,
// the end of the file means that nobody waits any more: the process group (the
// session of sshd, or of sudo) gets TERM, and two seconds later KILL. A command
// that did not arrive whole is not run, and input that did not arrive whole
// never looks whole to the command.
const leash = `printf "%s\n" "$1"; printf "%s\n" "$1" >&2; exec 3<&0 4>&2 </dev/null 2>/dev/null; ` +
	leashCommand +
	`{ IFS=" " read -r w n </proc/self/stat; echo $w; if [ "$3" = none ]; then exec >/dev/null; fi; ` +
	`while IFS= read -r n <&3; do case $n in 0) exec >/dev/null;; *) dd bs=$n count=1 iflag=fullblock <&3;; esac; done; ` +
	`trap "" TERM HUP; kill -TERM 0; sleep 2; kill -KILL 0; } | ` +
	`{ IFS= read -r w; (exec 2>&4 3<&- 4>&-; set --; eval "$c"); n=$?; kill -KILL $w; exit $n; }`

// free is leash for a command that runs to its end whoever waits. Its input
// is what follows on standard input.
const free = `printf "%s\n" "$1"; printf "%s\n" "$1" >&2; exec 3<&0 4>&2 </dev/null 2>/dev/null; ` +
	leashCommand +
	`exec <&3 2>&4 3<&- 4>&-; set --; eval "$c"`

// leashCommand sets c.
const leashCommand = `if [ "$2" = "" ] || [ "$3" = input ]; then IFS= read -r n <&3; ` +
	`[ "$n" = in ] || { echo "upgradectl: a start file of the login shell took away what was for the command" >&4; exit 97; }; fi; ` +
	`if [ "$2" ]; then c=$(printf "%b" "$2"); else IFS= read -r n <&3; ` +
	`c=$(dd bs=$n count=1 iflag=fullblock <&3); ` +
	`case $c in *"` + leashEnd + `") ;; *) echo "upgradectl: the command did not arrive whole" >&4; exit 97;; esac; fi; `

// leashEnd is the last line of a command that comes over standard input: a
// comment.
const leashEnd = "#upgradectl-end"

// maxLine bounds a command that goes into the request itself; Linux takes no
// argument over 128 KiB. What comes over standard input costs a round trip
// more: a server opens its window only when the shell runs.
const maxLine = 96 << 10

// percentB writes a command for printf %b, with nothing in it that any login
// shell would touch inside single quotes.
func percentB(cmd string) string {
	var b strings.Builder
	for i := 0; i < len(cmd); i++ {
		if c := cmd[i]; c < ' ' || c >= 0x7f || c == '\'' || c == '\\' || c == '!' {
			fmt.Fprintf(&b, `\0%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// chunk is the most of a command's input sent at once: half of a pipe, so
// that a command that does not read holds up as little as possible.
const chunk = 32 << 10

// wrapped is a command line for the server and what belongs to it.
type wrapped struct {
	line   string // for the exec request
	mark   string // printed on both outputs before the command runs
	inline bool   // the command is in line, and not to be sent
}

func nonce() string {
	var raw [16]byte
	rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}

// wrap returns what is executed to run a command.
func wrap(script, cmd string, input bool) wrapped {
	w := wrapped{mark: "upgradectl-" + nonce()}
	flag := "input"
	if !input {
		flag = "none"
	}
	text := percentB(cmd)
	if w.inline = cmd != "" && len(text) <= maxLine; !w.inline {
		text = ""
	}
	w.line = shellq.Join("/bin/sh", "-c", script, "upgradectl", w.mark, text, flag)
	return w
}

// begin sends what leash and free read before the input.
func (w *wrapped) begin(to io.Writer, cmd string, input bool) error {
	var text string
	if !w.inline {
		text = fmt.Sprintf("%d\n%s", len(cmd)+1+len(leashEnd), cmd+"\n"+leashEnd)
	} else if !input {
		return nil
	}
	_, err := io.WriteString(to, "in\n"+text)
	return err
}

// frames writes the pieces of leash.
type frames struct{ w io.Writer }

func (f frames) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(done+chunk, len(p))]
		if _, err := f.w.Write(append(fmt.Appendf(nil, "%d\n", len(part)), part...)); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

func (f frames) end() error {
	_, err := io.WriteString(f.w, "0\n")
	return err
}

// noiseKept bounds what is kept of the output before the mark.
const noiseKept = 4 << 10

// afterMark passes on what follows the line that is the mark, and keeps the
// start of what precedes it.
type afterMark struct {
	mark []byte // with its newline
	w    io.Writer
	seen chan struct{} // closed at the mark

	mu    sync.Mutex
	found bool
	tail  []byte // may be the beginning of the mark
	noise []byte
}

func newAfterMark(mark string, w io.Writer) *afterMark {
	return &afterMark{mark: []byte(mark + "\n"), w: w, seen: make(chan struct{})}
}

func (a *afterMark) Write(p []byte) (int, error) {
	a.mu.Lock()
	if a.found {
		a.mu.Unlock()
		return a.w.Write(p)
	}
	all := append(a.tail, p...)
	i := bytes.Index(all, a.mark)
	if i < 0 {
		keep := min(len(all), len(a.mark)-1)
		a.keep(all[:len(all)-keep])
		a.tail = bytes.Clone(all[len(all)-keep:])
		a.mu.Unlock()
		return len(p), nil
	}
	a.keep(all[:i])
	a.found, a.tail = true, nil
	close(a.seen)
	a.mu.Unlock()
	if rest := all[i+len(a.mark):]; len(rest) > 0 {
		if _, err := a.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (a *afterMark) keep(p []byte) {
	if room := noiseKept - len(a.noise); room > 0 {
		a.noise = append(a.noise, p[:min(room, len(p))]...)
	}
}

// before returns what came before the mark, or all there was without one.
func (a *afterMark) before() (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.TrimSpace(string(a.noise) + string(a.tail)), a.found
}

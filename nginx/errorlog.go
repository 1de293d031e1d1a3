package nginx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// What a master process says of a reload stands in its error log only: nginx -s
// reload has ended by then. Of a log just what was appended since a mark is
// read, through a rotation as well.

// A logMark is a place in an error log.
type logMark struct {
	name  string
	inode string // "-" = the file was not there
	size  string
	why   string // why the log cannot be read; "" = it can
}

// errorLogs says where the master process writes its [emerg]: to every error_log
// outside of all blocks, whatever its level, and to the program's default when
// none of them is a file (ngx_log_open_default; syslog and memory do not count).
func (p *instance) errorLogs(t *Tree) (marks []logMark) {
	file := false
	for _, args := range p.directives(t, "error_log") {
		if len(args) == 0 {
			continue
		}
		switch name := args[0]; {
		case strings.HasPrefix(name, "syslog:"):
			marks = append(marks, logMark{name: name, why: "it goes to " + name})
		case strings.HasPrefix(name, "memory:"):
			marks = append(marks, logMark{name: name, why: "it stays in nginx's memory"})
		default:
			file = true
			marks = append(marks, p.logFile(name))
		}
	}
	if !file {
		marks = append(marks, p.logFile(cmpOr(p.initial, p.build.errorLog)))
	}
	return marks
}

// logFile is the file behind a name. Standard error is the master's, not ours;
// that of a master in the background is the log itself or /dev/null.
func (p *instance) logFile(name string) logMark {
	switch name {
	case "stderr", "/dev/stderr", "/proc/self/fd/2", "/dev/fd/2":
		return logMark{name: fmt.Sprintf("/proc/%d/fd/2", p.master.pid)}
	case "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1":
		return logMark{name: fmt.Sprintf("/proc/%d/fd/1", p.master.pid)}
	case "/dev/null":
		return logMark{name: name, why: "it goes to /dev/null"}
	}
	return logMark{name: p.absolute(name)}
}

// markScript prints for each log where it ends now.
func markScript(marks []logMark) string {
	var b strings.Builder
	b.WriteString(`upg_mark() {
	upg_l=$2
	case $upg_l in /proc/*) upg_l=$(readlink "$2") || { echo "log $1 - - it cannot be seen where it goes ($2)"; return; } ;; esac
	if [ -f "$upg_l" ] && [ -r "$upg_l" ]; then
		printf 'log %s %s %s\n' "$1" "$(stat -L -c '%i %s' "$upg_l")" "$upg_l"
	elif [ -e "$upg_l" ] && [ -f "$upg_l" ]; then
		echo "log $1 - - $upg_l is not ours to read"
	elif [ -e "$upg_l" ] || [ "$upg_l" != "$2" ]; then
		echo "log $1 - - it goes to $upg_l, which is not a file"
	elif [ -d "${upg_l%/*}" ] && [ -x "${upg_l%/*}" ]; then
		printf 'log %s - 0 %s\n' "$1" "$upg_l"
	else
		echo "log $1 - - $upg_l cannot be reached"
	fi
}
`)
	for i, m := range marks {
		if m.why == "" {
			fmt.Fprintf(&b, "upg_mark %d %s\n", i, shellq.Quote(m.name))
		}
	}
	return b.String()
}

// parseMarks fills in what markScript printed.
func parseMarks(marks []logMark, text string) error {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "log ")
		if !ok {
			continue
		}
		f := strings.SplitN(rest, " ", 4)
		if len(f) < 4 {
			return fmt.Errorf("internal error: a mark in an error log is %q", line)
		}
		i, err := strconv.Atoi(f[0])
		if err != nil || i < 0 || i >= len(marks) {
			return fmt.Errorf("internal error: a mark in an error log is %q", line)
		}
		if f[1] == "-" && f[2] == "-" {
			marks[i].why = f[3]
			continue
		}
		marks[i].inode, marks[i].size, marks[i].name = f[1], f[2], f[3]
	}
	return nil
}

// unread says why what the master writes cannot be read; "" when at least one
// of its logs can.
func unread(marks []logMark) string {
	why := ""
	for _, m := range marks {
		if m.why == "" {
			return ""
		}
		if why != "" {
			why += "; "
		}
		why += m.why
	}
	return why
}

// emergScript prints the [emerg] lines that were appended since the marks. A
// log that was rotated is read to its end under its new name beside the old,
// and from the start under the old; one that was truncated, from the start.
func emergScript(marks []logMark) string {
	var b strings.Builder
	for _, m := range marks {
		if m.why == "" {
			fmt.Fprintf(&b, "upg_emerg %s %s %s\n", shellq.Quote(m.name), shellq.Quote(m.inode), shellq.Quote(m.size))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return `upg_tail() { tail -c "+$2" "$1" | tr -d '\000' | LC_ALL=C grep -F '[emerg]' | head -n 100 | sed 's/^/emerg /'; }
upg_emerg() {
	upg_now=- upg_size=0
	[ -f "$1" ] && upg_now=$(stat -L -c %i "$1") && upg_size=$(stat -L -c %s "$1")
	if [ "$upg_now" = "$2" ]; then
		[ "$upg_size" -lt "$3" ] && { upg_tail "$1" 1; return; }
		[ "$upg_size" -gt "$3" ] && upg_tail "$1" "$(($3 + 1))"
		return
	fi
	[ "$upg_now" = - ] || upg_tail "$1" 1
	[ "$2" = - ] && return
	for upg_o in "$1"?*; do
		[ -f "$upg_o" ] && [ "$(stat -c %i "$upg_o")" = "$2" ] && upg_tail "$upg_o" "$(($3 + 1))"
	done
}
` + b.String() + ":\n"
}

// parseEmerg returns what the master process wrote at level emerg, each message
// once, without date and level. Lines of other processes are not about this reload: several nginx
// may share a log, and anybody's nginx -t writes there.
func parseEmerg(text string, master int) []string {
	var out []string
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "emerg ")
		if !ok {
			continue
		}
		_, rest, ok = strings.Cut(rest, " [emerg] ")
		pid, msg, found := strings.Cut(rest, "#")
		if n, err := strconv.Atoi(pid); !ok || !found || err != nil || n != master {
			continue
		}
		if _, after, ok := strings.Cut(msg, ": "); ok {
			msg = after
		}
		if !slices.Contains(out, msg) { // a port that is taken is tried five times
			out = append(out, msg)
		}
	}
	return out
}

package hostos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// RestartDir holds the restart values of hosts: a directory for each key, mode
// 0700, with files of mode 0600 that belong to root.
const RestartDir = jobRoot + "/restart"

// A Kept says what CaptureRestart found about one process, without any of the
// values: those stay on the host.
type Kept struct {
	Service string   `json:"service"`
	PID     int      `json:"pid"`
	UID     int      `json:"uid"`
	Args    int      `json:"args"`   // how many arguments, the program's name included
	Env     int      `json:"env"`    // how many environment variables
	Output  string   `json:"output"` // where its standard output goes: a file, or "" = nowhere
	Problem string   `json:"problem,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// ErrNotRunning says that a process does not run whose restart values were to
// be kept. Those of the others are kept.
var ErrNotRunning = errors.New("it does not run")

// A RestartError reports processes that could not be started again from what
// is known of them.
type RestartError struct{ Kept []Kept }

func (e *RestartError) Error() string {
	var parts []string
	for _, k := range e.Kept {
		if k.Problem != "" {
			parts = append(parts, fmt.Sprintf("service %s, process %d: %s", k.Service, k.PID, k.Problem))
		}
	}
	return "cannot keep what a restart needs: " + listed(parts, 5) + "; give the service a start command"
}

// restarts works on the restart values below root: RestartDir, but in tests.
type restarts struct{ root string }

// CaptureRestart keeps what starting the processes of services again needs, on
// the host, under key ([a-z0-9-], at most 64 bytes): all arguments and the
// whole environment byte by byte, working directory, user and groups, umask,
// limits, and where standard output and standard error go. It looks at services
// of the kinds Java and Process without a Start command; each has to run.
//
// Nothing of the values leaves the host. It needs root. What was kept under a
// key is never replaced: a second call says what is there. A process that
// could not be started again from its values is a *RestartError, and nothing is
// kept then.
func CaptureRestart(ctx context.Context, h Host, key string, services []Service) ([]Kept, error) {
	return restarts{RestartDir}.capture(ctx, h, key, services)
}

// CheckRestart looks whether CaptureRestart would succeed, and changes nothing.
func CheckRestart(ctx context.Context, h Host, services []Service) ([]Kept, error) {
	return restarts{RestartDir}.capture(ctx, h, "", services)
}

// RemoveRestart deletes what was kept under keys. It may be called again.
func RemoveRestart(ctx context.Context, h Host, keys ...string) error {
	return restarts{RestartDir}.remove(ctx, h, keys)
}

// ListRestart lists the keys under which the host keeps restart values, sorted.
func ListRestart(ctx context.Context, h Host) ([]string, error) {
	return restarts{RestartDir}.list(ctx, h)
}

// NeedRestart gives those of services that are started from kept values.
func NeedRestart(services []Service) []Service {
	var out []Service
	for _, s := range services {
		if s.kept() {
			out = append(out, s)
		}
	}
	return out
}

// restartFuncs are what both scripts begin with.
const restartFuncs = `LC_ALL=C
export LC_ALL
umask 077
`

// captureScript looks at each process that the scan finds, and with a key keeps
// it in a directory of its own; it prints a line about each. Everything is
// written under a temporary name first: what is kept under a key is whole, and
// nothing is while there is a problem. A process that ends meanwhile, or becomes
// another program, is a problem too: what was read would not belong together.
const captureScript = `root=@ROOT@ keep=@KEEP@
[ "$(id -u)" = 0 ] || { echo "only root may read the values of other users' processes" >&2; exit 1; }
if [ -n "$keep" ]; then
	if [ -d "$root/$keep" ]; then cat "$root/$keep/list"; exit 0; fi
	mkdir -p "$root" && chmod 700 "$root" || exit 1
	t=$root/.$keep.$$
	rm -rf "$t" && mkdir "$t" || exit 1
	trap 'rm -rf "$t"' EXIT
fi
n=0 bad= lines=

stamp() { sed -n -e 's/.*) [A-Za-z] //p' <"$p/stat" | cut -d ' ' -f 19; }
ends() { [ "$(tail -c 1 <"$1" | tr -d '\000' | wc -c)" -eq 0 ]; }

# target sets o to where a file descriptor leads.
target() {
	o=$(readlink "$p/fd/$1" 2>/dev/null)
	o=${o%" (deleted)"}
	case "$o" in
	/dev/null|/dev/pts/*|/dev/tty*|/dev/console|'') o= ;;
	pipe:*) o= problem="its descriptor $1 is a pipe to another program" ;;
	socket:*) o= notes="$notes,descriptor-$1-was-a-socket" ;;
	/*) ;;
	*) o= problem="its descriptor $1 is no file" ;;
	esac
}

capture() {
	n=$((n+1)) svc=$1 problem= notes=
	began=$(stamp)
	argv=$p/cmdline env=$p/environ
	if [ -n "$keep" ]; then
		k=$t/$svc:$n
		mkdir "$k" && cat "$argv" >"$k/argv" && cat "$env" >"$k/environ" || problem="its arguments and environment cannot be read and kept"
		argv=$k/argv env=$k/environ
	fi
	d=$(readlink "$p/cwd")
	d=${d%" (deleted)"}
	exe=$(readlink "$p/exe")
	exe=${exe%" (deleted)"}
	u= g= gs= um=
	while read -r a b; do
		case "$a" in Uid:) u=$b ;; Gid:) g=$b ;; Groups:) gs=$b ;; Umask:) um=$b ;; esac
	done <"$p/status"
	if [ -z "$um" ]; then um=0022 notes="$notes,umask-unknown-0022-taken"; fi
	set -- $u
	[ "$1 $1 $1" = "$2 $3 $4" ] || problem="it changed its user"
	uid=${1:-0}
	set -- $g
	gid=${1:-0} groups=
	for x in $gs; do groups=$groups${groups:+,}$x; done
	[ "$(readlink "$p/root")" = / ] || problem="its root directory is another one"
	ns=$(readlink "$p/ns/mnt")
	[ -z "$ns" ] || [ "$ns" = "$(readlink /proc/self/ns/mnt)" ] || problem="it has a mount namespace of its own"
	target 2
	err=$o
	target 1
	out=$o
	ac=$(tr -c -d '\000' <"$argv" | wc -c)
	ec=$(tr -c -d '\000' <"$env" | wc -c)
	if ! ends "$argv"; then
		problem="it rewrote its command line"
		[ "$(wc -c <"$argv")" -ne 4096 ] || problem="this kernel shows only the first 4096 bytes of its command line"
	elif [ "$ac" -eq 0 ]; then
		problem="it has no command line"
	elif ! ends "$env" || tr '\000\n' '\n\001' <"$env" | grep -a -q -v -E '^[^=]+='; then
		problem="its environment was overwritten"
	else
		x=$(tr '\000\n' '\n\001' <"$env" | sed -n -e 's/=.*//p' | sort | uniq -d | head -n 1 | tr -c '!-~' '?')
		[ -z "$x" ] || problem="its environment has the variable ${x%[?]} twice"
		a=$(tr '\000' '\n' <"$argv" | head -n 1)
		path=$(tr '\000\n' '\n\001' <"$env" | sed -n -e 's/^PATH=//p')
		case "$a" in
		*=*) problem="the name of its program has an equals sign" ;;
		*/*) f=$a ;;
		*)
			f=$(cd "$d" && PATH=$path && command -v "$a")
			;;
		esac
		case "$f" in
		/*|'') ;;
		*) f=$d/$f ;;
		esac
		[ -z "$f" ] || f=$(readlink -f "$f")
		if [ -z "$problem" ] && [ -z "$f" ]; then
			problem="its program is not found where its PATH leads"
		elif [ -z "$problem" ] && [ "$f" != "$exe" ]; then
			problem="its name leads to another program by now than the one that runs"
		fi
	fi
	[ "$began" = "$(stamp)" ] || problem="it ended meanwhile"
	if [ -n "$keep" ]; then
		printf %s "$d" >"$k/cwd" && printf %s "$out" >"$k/fd1" && printf %s "$err" >"$k/fd2" &&
			printf '%s\n' "uid $uid" "gid $gid" "groups ${groups:-$gid}" "umask $um" >"$k/meta" &&
			limits "$p" >"$k/limits" || problem="its values cannot be kept"
	fi
	[ -z "$problem" ] || bad=1
	lines="$lines$svc ${p#/proc/} $uid $ac $ec \"$(printf %s "$out" | tr -c '!-~' '?')\" ${notes:-,} $problem
"
}

{
@SCAN@
} 2>/dev/null
if [ -z "$keep" ] || [ -n "$bad" ]; then
	printf %s "$lines"
	exit 0
fi
printf %s "$lines" >"$t/list"
sync
if ! mv -T "$t" "$root/$keep" 2>/dev/null && [ ! -d "$root/$keep" ]; then
	echo "cannot keep the values in $root/$keep" >&2
	exit 1
fi
sync
cat "$root/$keep/list"
`

// limitNames are the limits of /proc/PID/limits by their names for prlimit.
var limitNames = [...][2]string{
	{"Max cpu time", "cpu"}, {"Max file size", "fsize"}, {"Max data size", "data"}, {"Max stack size", "stack"},
	{"Max core file size", "core"}, {"Max resident set", "rss"}, {"Max processes", "nproc"}, {"Max open files", "nofile"},
	{"Max locked memory", "memlock"}, {"Max address space", "as"}, {"Max file locks", "locks"},
	{"Max pending signals", "sigpending"}, {"Max msgqueue size", "msgqueue"}, {"Max nice priority", "nice"},
	{"Max realtime priority", "rtprio"}, {"Max realtime timeout", "rttime"},
}

// limitsFunc prints the limits of a process as NAME=SOFT:HARD, a line each.
func limitsFunc() string {
	b := "limits() {\n\twhile read -r x; do\n\t\tcase \"$x\" in\n"
	for _, l := range limitNames {
		b += fmt.Sprintf("\t\t%q*) set -- ${x#%q}; echo %s=$1:$2 ;;\n", l[0]+" ", l[0], l[1])
	}
	return b + "\t\tesac\n\tdone <\"$1/limits\"\n}\n"
}

func (r restarts) capture(ctx context.Context, h Host, key string, services []Service) ([]Kept, error) {
	if key != "" && !validKey.MatchString(key) {
		return nil, fmt.Errorf("cannot keep restart values under %q: a key has 1 to 64 of a-z, 0-9 and -", key)
	}
	need := NeedRestart(services)
	if len(need) == 0 {
		return nil, nil
	}
	names := ""
	for i, s := range need {
		if err := s.Check(); err != nil {
			return nil, err
		}
		names += fmt.Sprintf("%d) capture %s ;; ", i, s.Name)
	}
	script := restartFuncs + limitsFunc() + strings.NewReplacer("@ROOT@", shellq.Quote(r.root), "@KEEP@", key,
		"@SCAN@", scanScript(need, `case "$i" in `+names+`esac`)).Replace(captureScript)
	out, err := output(ctx, h, script, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot look at what a restart needs: %w", err)
	}
	kept, err := parseKept(out)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(kept, func(k Kept) bool { return k.Problem != "" }) {
		return kept, &RestartError{kept}
	}
	for _, s := range need {
		if !slices.ContainsFunc(kept, func(k Kept) bool { return k.Service == s.Name }) {
			return kept, fmt.Errorf("no process of service %s in %s to take restart values from; start it, or give it a start command: %w", s.Name, s.Dir, ErrNotRunning)
		}
	}
	return kept, nil
}

// parseKept reads the lines of captureScript.
func parseKept(out string) ([]Kept, error) {
	var all []Kept
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		head, rest, ok1 := strings.Cut(line, ` "`)
		output, rest, ok2 := strings.Cut(rest, `" `)
		notes, problem, ok3 := strings.Cut(rest, " ")
		f := strings.Fields(head)
		var n [4]int
		ok := ok1 && ok2 && ok3 && len(f) == 5
		for i := 0; ok && i < 4; i++ {
			var err error
			n[i], err = strconv.Atoi(f[i+1])
			ok = err == nil
		}
		if !ok {
			return nil, fmt.Errorf("cannot look at what a restart needs: unexpected answer %q", firstBytes(line, 120))
		}
		k := Kept{Service: f[0], PID: n[0], UID: n[1], Args: n[2], Env: n[3], Output: output, Problem: problem}
		for note := range strings.SplitSeq(notes, ",") {
			if note != "" {
				k.Notes = append(k.Notes, strings.ReplaceAll(note, "-", " "))
			}
		}
		all = append(all, k)
	}
	return all, nil
}

func (r restarts) remove(ctx context.Context, h Host, keys []string) error {
	var dirs []string
	for _, k := range keys {
		if !validKey.MatchString(k) {
			return fmt.Errorf("cannot remove restart values of %q: a key has 1 to 64 of a-z, 0-9 and -", k)
		}
		dirs = append(dirs, shellq.Quote(r.root+"/"+k))
	}
	if len(dirs) == 0 {
		return nil
	}
	// The directory itself goes when nothing is left in it.
	if _, err := output(ctx, h, "rm -rf "+strings.Join(dirs, " ")+" && { rmdir "+shellq.Quote(r.root)+" 2>/dev/null || :; }", nil); err != nil {
		return fmt.Errorf("cannot remove the restart values: %w", err)
	}
	return nil
}

func (r restarts) list(ctx context.Context, h Host) ([]string, error) {
	keys, err := fields(ctx, h, "ls -1 "+shellq.Quote(r.root)+" 2>/dev/null || [ ! -e "+shellq.Quote(r.root)+" ]")
	if err != nil {
		return nil, fmt.Errorf("cannot list the restart values: %w", err)
	}
	slices.Sort(keys)
	return keys, nil
}

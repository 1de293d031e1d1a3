package hostos

import (
	"context"
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

// restartFuncs are what both scripts use.
const restartFuncs = `LC_ALL=C
export LC_ALL
umask 077
# one prints a text that a file holds as one word without blanks.
plain() { tr -c '!-~' '?'; }
`

// captureScript keeps each process that the scan finds in a directory of its
// own, and prints a line about it. Everything is written under a temporary name
// first: what is kept under a key is whole. A process that ends meanwhile, or
// becomes another program, is a problem: its files would not belong together.
const captureScript = `root=@ROOT@ key=@KEY@ keep=@KEEP@
[ "$(id -u)" = 0 ] || { echo "only root may read the values of other users' processes" >&2; exit 1; }
if [ -n "$keep" ] && [ -d "$root/$key" ]; then cat "$root/$key/list"; exit 0; fi
if [ -n "$keep" ]; then
	mkdir -p "$root" && chmod 700 "$root" || exit 1
	t=$root/.$key.$$
else
	t=/dev/shm/upgradectl.$$
	[ -d /dev/shm ] || t=/run/upgradectl.$$
fi
rm -rf "$t" && mkdir "$t" || exit 1
trap 'rm -rf "$t"' EXIT
: >"$t/list"
n=0

stamp() { sed -e 's/.*) [A-Za-z]//' "$p/stat" 2>/dev/null | cut -d ' ' -f 20; }

# target prints where a file descriptor leads, and sets problems.
target() {
	o=$(readlink "$p/fd/$1" 2>/dev/null)
	o=${o%" (deleted)"}
	case "$o" in
	/dev/null|/dev/pts/*|/dev/tty*|/dev/console|'') o= ;;
	pipe:*) o=; problem="descriptor $1 is a pipe to another program" ;;
	socket:*) o=; notes="$notes,descriptor-$1-was-a-socket" ;;
	/*) ;;
	*) o=; problem="descriptor $1 is no file" ;;
	esac
	printf '%s' "$o" >"$k/fd$1"
}

capture() {
	n=$((n+1))
	k=$t/$1:$n
	problem= notes=
	mkdir "$k" || exit 1
	began=$(stamp)
	cat "$p/cmdline" >"$k/argv" 2>/dev/null && cat "$p/environ" >"$k/environ" 2>/dev/null || problem="its arguments or its environment cannot be read"
	d=$(readlink "$p/cwd" 2>/dev/null)
	printf '%s' "${d%" (deleted)"}" >"$k/cwd"
	exe=$(readlink "$p/exe" 2>/dev/null)
	exe=${exe%" (deleted)"}
	u= g= gs= um=0022
	while read -r a b; do
		case "$a" in
		Uid:) u=$b ;;
		Gid:) g=$b ;;
		Groups:) gs=$b ;;
		Umask:) um=$b ;;
		esac
	done <"$p/status" 2>/dev/null
	grep -q '^Umask:' "$p/status" 2>/dev/null || notes="$notes,umask-unknown-0022-taken"
	set -- "$1" $u
	[ "$2 $2 $2" = "$3 $4 $5" ] || problem="it changed its user"
	uid=$2
	set -- "$1" $g
	gid=$2
	set -- "$1" $gs
	svc=$1
	shift
	groups=
	for x do groups=$groups${groups:+,}$x; done
	{ echo "uid $uid"; echo "gid $gid"; echo "groups ${groups:-$gid}"; echo "umask $um"; } >"$k/meta"
	limits "$p" >"$k/limits"
	[ "$(readlink "$p/root" 2>/dev/null)" = / ] || problem="its root directory is another one"
	ns=$(readlink "$p/ns/mnt" 2>/dev/null)
	[ -z "$ns" ] || [ "$ns" = "$(readlink /proc/self/ns/mnt)" ] || problem="it has a mount namespace of its own"
	target 2
	target 1
	ac=$(tr -c -d '\000' <"$k/argv" | wc -c)
	ec=$(tr -c -d '\000' <"$k/environ" | wc -c)
	size=$(wc -c <"$k/argv")
	if [ "$(tail -c 1 "$k/argv" | tr -d '\000' | wc -c)" -ne 0 ]; then
		problem="it rewrote its command line"
		[ "$size" -ne 4096 ] || problem="this kernel shows only the first 4096 bytes of its command line"
	elif [ "$size" -eq 0 ]; then
		problem="it has no command line"
	elif [ "$(tail -c 1 "$k/environ" | tr -d '\000' | wc -c)" -ne 0 ] || tr '\000\n' '\n\001' <"$k/environ" | grep -a -q -v -E '^[^=]+='; then
		problem="its environment was overwritten"
	else
		x=$(tr '\000\n' '\n\001' <"$k/environ" | sed -e 's/=.*//' | sort | uniq -d | head -n 1 | plain)
		[ -z "$x" ] || problem="its environment has the variable $x twice"
		a=$(tr '\000' '\n' <"$k/argv" | head -n 1)
		path=$(tr '\000\n' '\n\001' <"$k/environ" | sed -n -e 's/^PATH=//p')
		case "$a" in
		*=*) problem="the name of its program has an equals sign" ;;
		*)
			f=$(cd "$(cat "$k/cwd")" && PATH=$path && command -v -- "$a")
			case "$f" in /*|'') ;; *) f=$(cat "$k/cwd")/$f ;; esac
			f=$(readlink -f "$f" 2>/dev/null)
			if [ -z "$f" ]; then
				problem="its program is not found where its PATH leads"
			elif [ "$f" != "$exe" ]; then
				problem="its PATH leads to another program by now than the one that runs"
			fi
			;;
		esac
	fi
	[ "$began" = "$(stamp)" ] || problem="it ended meanwhile"
	printf '%s %s %s %s %s "%s" %s %s\n' "$svc" "${p#/proc/}" "${uid:-0}" "$ac" "$ec" "$(plain <"$k/fd1")" "${notes:-,}" "$problem" >>"$t/list"
}

@SCAN@
if [ -n "$keep" ] && ! grep -q '" [^ ]* ..*$' "$t/list"; then
	sync
	if ! mv -T "$t" "$root/$key" 2>/dev/null && [ ! -d "$root/$key" ]; then
		echo "cannot keep the values in $root/$key" >&2
		exit 1
	fi
	sync
	cat "$root/$key/list"
	exit 0
fi
cat "$t/list"
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
	return b + "\t\tesac\n\tdone <\"$1/limits\" 2>/dev/null\n}\n"
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
	script := restartFuncs + limitsFunc() + strings.NewReplacer("@ROOT@", shellq.Quote(r.root), "@KEY@", key, "@KEEP@", key,
		"@SCAN@", scanScript(need, `case "$i" in `+names+`esac`)).Replace(captureScript)
	out, err := output(ctx, h, script, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot look at what a restart needs: %w", err)
	}
	kept, err := parseKept(out)
	if err != nil {
		return nil, err
	}
	for _, s := range need {
		if !slices.ContainsFunc(kept, func(k Kept) bool { return k.Service == s.Name }) {
			return kept, fmt.Errorf("service %s does not run in %s: there is nothing to take its restart values from; start it, or give it a start command", s.Name, s.Dir)
		}
	}
	if slices.ContainsFunc(kept, func(k Kept) bool { return k.Problem != "" }) {
		return kept, &RestartError{kept}
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

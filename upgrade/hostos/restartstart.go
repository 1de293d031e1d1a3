package hostos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// ErrNoRestart says that a process has to be started from kept values and none
// are there.
var ErrNoRestart = errors.New("no restart values are kept on this host")

// startScript starts those processes of a service that were kept and do not
// run: as many as are missing, and of those the ones whose arguments no running
// process has. The bytes of environment and arguments go from the files through
// xargs to env and from there to the program; no shell reads them as text.
//
// Not cmp: it takes the size of 0 that files of /proc have for their length.
//
// setsid twice: the first makes a group leader of the second, and a group
// leader forks. That leaves a daemon behind without a background job of the
// shell, which would run with SIGINT and SIGQUIT ignored. The limits are set
// before the user is, because only root may raise them.
const startScript = `[ "$(id -u)" = 0 ] || { echo "only root may start processes of other users" >&2; exit 1; }
s=
for key in @KEYS@; do
	if [ -d @ROOT@/$key ] && grep -q '^@NAME@ ' @ROOT@/$key/list; then s=@ROOT@/$key; break; fi
done
[ -n "$s" ] || { echo "no restart values" >&2; exit 66; }
have= count=0 want=0
found() { have="$have $p"; count=$((count+1)); }
@SCAN@
for k in "$s"/@NAME@:*; do
	[ -d "$k" ] || continue
	want=$((want+1))
done
missing=$((want-count))

# trusted tells that nobody but root can have put a file where it is.
trusted() {
	[ ! -L "$1" ] && [ -f "$1" ] || return 1
	f=$1
	while :; do
		set -- $(stat -c '%u %a' "$f")
		[ "$1" = 0 ] || return 1
		case "$2" in *[2367]|*[2367]?) return 1 ;; esac
		[ "$f" != / ] || return 0
		f=${f%/*}
		f=${f:-/}
	done
}

start() {
	k=$1
	uid= gid= groups= um=
	while read -r a b; do
		case "$a" in uid) uid=$b ;; gid) gid=$b ;; groups) groups=$b ;; umask) um=$b ;; esac
	done <"$k/meta"
	if [ "$uid" = 0 ]; then as=; else as="chroot --userspec=+$uid:+$gid --groups=$groups /"; fi
	cwd=$(cat "$k/cwd"; echo .)
	cwd=${cwd%.}
	out=$(cat "$k/fd1"; echo .) err=$(cat "$k/fd2"; echo .)
	out=${out%.} err=${err%.}
	out=${out:-/dev/null} err=${err:-/dev/null}
	umask "$um"
	now=$(limits "/proc/$$") lim=
	while read -r l; do
		case "
$now
" in *"
$l
"*) ;;
		*) lim="$lim --$l" ;;
		esac
	done <"$k/limits"
	[ -z "$lim" ] || lim="prlimit$lim"
	# Seen before anything is launched: what fails later fails unseen.
	how=$($lim $as /bin/sh -c 'cd "$1" || exit
		for f in "$2" "$3"; do
			if { : >>"$f"; } 2>/dev/null; then echo user; else echo root; fi
		done' sh "$cwd" "$out" "$err") || exit 1
	set -- $how
	rout=/dev/null rerr=/dev/null
	if [ "$1" = root ]; then trusted "$out" || { echo "user $uid cannot write to its output $out" >&2; exit 1; }; rout=$out; fi
	if [ "$2" = root ]; then trusted "$err" || { echo "user $uid cannot write to its output $err" >&2; exit 1; }; rerr=$err; fi
	cat "$k/environ" "$k/argv" | xargs -0 -x -n 1000000 -s 2000000 $lim setsid setsid $as /bin/sh -c 'cd "$1" || exit
		if [ "$2" = user ]; then exec >>"$3"; fi
		if [ "$4" = user ]; then exec 2>>"$5"; fi
		shift 5
		exec env -i -- "$@"' sh "$cwd" "$1" "$out" "$2" "$err" >>"$rout" 2>>"$rerr"
}

for k in "$s"/@NAME@:*; do
	[ "$missing" -gt 0 ] || break
	rest=
	hit=
	for p in $have; do
		if [ -z "$hit" ] && [ "$(sha256sum <"$p/cmdline")" = "$(sha256sum <"$k/argv")" ]; then hit=1; else rest="$rest $p"; fi
	done
	have=$rest
	[ -z "$hit" ] || continue
	(start "$k") >&2 || exit 1
	missing=$((missing-1))
done
echo $want
`

// start starts a service from what the first of keys has kept about it, and
// gives how many processes it has to have.
func (r restarts) start(ctx context.Context, h Host, s Service, keys []string) (want int, err error) {
	if len(keys) == 0 {
		return 0, fmt.Errorf("cannot start service %s: it has no start command, and %w", s.Name, ErrNoRestart)
	}
	for _, k := range keys {
		if !validKey.MatchString(k) {
			return 0, fmt.Errorf("cannot start service %s from the values of %q: bad key", s.Name, k)
		}
	}
	script := restartFuncs + limitsFunc() + strings.NewReplacer("@KEYS@", strings.Join(keys, " "), "@ROOT@", shellq.Quote(r.root), "@NAME@", s.Name,
		"@SCAN@", scanScript([]Service{s}, "found")).Replace(startScript)
	out, err := output(ctx, h, script, nil)
	if st, ran := exitStatus(err); ran && st == 66 {
		return 0, fmt.Errorf("cannot start service %s: it has no start command, and %w", s.Name, ErrNoRestart)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot start service %s: %w", s.Name, err)
	}
	if want, err = strconv.Atoi(strings.TrimSpace(out)); err != nil {
		return 0, fmt.Errorf("cannot start service %s: unexpected answer %q", s.Name, firstBytes(out, 80))
	}
	return want, nil
}

package hostos

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// program is the base name of the program of a service's processes.
func (s Service) program() string {
	if s.Kind == Java {
		return "java"
	}
	return s.Program
}

// scanScript is a script that runs do for each process of the host itself that
// belongs to one of services: its working directory is the service's, also when
// that was deleted meanwhile, its program the service's, and Match one of its
// arguments. do finds the service's number in $i and the process's directory in
// /proc in $p.
//
// It reads /proc itself: ps and pgrep differ between releases, and lose
// directories with blanks. The first look is the shell's own, so that a host
// with thousands of processes is not made to start thousands more. A process in
// a container has a directory of the container's; it is not meant.
func scanScript(services []Service, do string) string {
	var some, dirs []string
	var which strings.Builder
	for i, s := range services {
		some = append(some, "*"+shellq.Quote(s.program())+"*")
		dirs = append(dirs, shellq.Quote(s.Dir))
		cond := fmt.Sprintf(`[ "$d" = %s ] && [ "${a##*/}" = %s ]`, shellq.Quote(s.Dir), shellq.Quote(s.program()))
		if s.Match != "" {
			cond += fmt.Sprintf(` && { tr '\000' '\n' <"$p/cmdline" | grep -F -x -q -e %s; } 2>/dev/null`, shellq.Quote(s.Match))
		}
		fmt.Fprintf(&which, "\tif %s; then i=%d; fi\n", cond, i)
	}
	return `for p in /proc/[0-9]*; do
	a=
	{ read -r a <"$p/cmdline"; } 2>/dev/null
	case "$a" in ` + strings.Join(some, "|") + `) ;; *) continue;; esac
	d=$(readlink "$p/cwd" 2>/dev/null)
	d=${d%" (deleted)"}
	case "$d" in ` + strings.Join(dirs, "|") + `) ;; *) continue;; esac
	a=$({ tr '\000' '\n' <"$p/cmdline" | head -n 1; } 2>/dev/null)
	i=
` + which.String() + `	[ -n "$i" ] || continue
	case "$(cat "$p/cgroup" 2>/dev/null)" in */docker/*|*/docker-*|*/kubepods*|*/libpod*|*/containerd*) continue;; esac
	` + do + `
done
`
}

// servicePIDs gives the IDs of the service's processes, and sends each SIGTERM when
// term is true.
func servicePIDs(ctx context.Context, h Host, s Service, term bool) ([]string, error) {
	do, what := `echo "${p#/proc/}"`, "list"
	if term {
		// Listed and signalled in one go: an ID is not given anew in between.
		do, what = do+"\n\t"+`kill "${p#/proc/}" || [ ! -e "$p" ] || s=1`, "terminate"
	}
	out, err := output(ctx, h, "s=0\n"+scanScript([]Service{s}, do)+"exit $s", nil)
	if err != nil {
		return nil, fmt.Errorf("cannot %s the processes of service %s: %w", what, s.Name, err)
	}
	ids := strings.Fields(out)
	for _, p := range ids {
		if n, err := strconv.Atoi(p); err != nil || n < 2 {
			return nil, fmt.Errorf("cannot %s the processes of service %s: unexpected answer %q", what, s.Name, firstBytes(out, 80))
		}
	}
	return ids, nil
}

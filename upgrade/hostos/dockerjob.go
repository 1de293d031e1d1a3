package hostos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// The exit statuses of DockerPlan.Script, and what each says.
var dockerStages = map[int]string{
	20: "keep what there is",
	21: "get the repository's file",
	22: "find the new packages",
	23: "resolve the removal of the old packages",
	24: "stop docker",
	25: "remove the old packages",
	26: "install the new packages",
	27: "put daemon.json in place",
}

// A DockerError says at which point the replacement of Docker has ended. What
// was done before stays, and UpgradeDocker under another key goes on from there.
type DockerError struct {
	Stage string // as "install the new packages"
	Err   error  // a *JobError
}

func (e *DockerError) Error() string { return "cannot " + e.Stage + ": " + e.Err.Error() }
func (e *DockerError) Unwrap() error { return e.Err }

// dockerScript is the body of the job. Every part looks first whether it is
// done, so that the whole may run again after it was cut off anywhere; what
// was there before the first run is kept once. Nothing is removed before all
// that can be known about the new packages is known.
const dockerScript = `set -u
umask 022
LC_ALL=C DEBIAN_FRONTEND=noninteractive
export LC_ALL DEBIAN_FRONTEND
d=@DIR@
die() { s=$1; shift; echo "upgradectl: $*"; exit "$s"; }
@MANAGER@
active() { [ "$(systemctl is-active docker 2>/dev/null)" = active ]; }
# What there was.
if [ ! -e "$d/kept" ]; then
	list >"$d/packages.before" || die 20 "cannot list the packages"
	rm -f "$d/daemon.json.before" "$d/repo.before"
	[ ! -e @DAEMON@ ] || cp -p @DAEMON@ "$d/daemon.json.before" || die 20 "cannot keep daemon.json"
	if [ -n @REPO@ ] && [ -e @REPO@ ]; then cp -p @REPO@ "$d/repo.before" || die 20 "cannot keep the repository's file"; fi
	sync
	: >"$d/kept" || die 20 "cannot write to $d"
fi
# The repository.
if [ -n @REPO@ ]; then
	t=@REPO@.@KEY@
	rm -f "$t"
	if command -v curl >/dev/null; then
		timeout 120 curl -fsSL -o "$t" @URL@ || die 21 "cannot download" @URL@
	else
		timeout 120 wget -q -O "$t" @URL@ || die 21 "cannot download" @URL@
	fi
	s=@SUM@
	if [ -n "$s" ] && [ "$(sha256sum <"$t")" != "$s  -" ]; then
		rm -f "$t"
		die 21 @URL@ "has another SHA-256 than docker.repo_sha256"
	fi
	if ! valid "$t"; then
		rm -f "$t"
		die 21 @URL@ "is no repository file"@SECTION@
	fi
	chmod 644 "$t" && sync && mv -f "$t" @REPO@ || die 21 "cannot write" @REPO@
	refresh || die 21 "the repository does not answer"
fi
# Which of the old packages are there, and which of the new ones are not.
old=
for n in @REMOVE@; do
	if has "$n"; then old="$old $n"; fi
done
new=
for n in @CHECK@; do
	if ! has "$n"; then new=1; fi
done
if [ -n "$new" ]; then
	offered || die 22 "no repository offers" @INSTALL@
fi
if [ -n "$old" ]; then
	alone $old || die 23 "other packages would go along with$old; remove them by hand if that is right"
fi
if [ -n "$old$new" ]; then
	systemctl stop docker.socket >/dev/null 2>&1
	systemctl stop docker || ! active || die 24 "docker does not stop"
	if active; then die 24 "docker was stopped and runs again"; fi
fi
if [ -n "$old" ]; then
	remove $old || die 25 "the package manager has failed"
	for n in $old; do
		if has "$n"; then die 25 "$n is still installed"; fi
	done
fi
if [ -n "$new" ]; then
	install @INSTALL@ || die 26 "the package manager has failed"
	for n in @CHECK@; do
		has "$n" || die 26 "$n is not installed, although the package manager says so"
	done
	systemctl daemon-reload
fi
list >"$d/packages.after.tmp" && mv -f "$d/packages.after.tmp" "$d/packages.after" || die 20 "cannot list the packages"
# daemon.json. The old package may have taken its file along.
if [ -n @NEW@ ]; then
	want=@NEW@
	cat >"$d/daemon.json.new" <<'END-@KEY@'
@AFTER@END-@KEY@
	v=$(dockerd --version) || die 27 "there is no dockerd"
	v=${v#Docker version }
	v=${v%%.*}
	case "$v" in ''|*[!0-9]*) v=0;; esac
	if [ -n @NEXT@ ] && [ "$v" -ge 25 ]; then
		want=@NEXT@
		cat >"$d/daemon.json.new" <<'END-@KEY@'
@NEWER@END-@KEY@
	fi
	if [ "$want" = @OLD@ ]; then cp -p "$d/daemon.json.before" "$d/daemon.json.new" || die 27 "the kept daemon.json is gone"; fi
	is=
	if [ -e @DAEMON@ ]; then is=$(sha256sum <@DAEMON@) && is=${is%% *}; fi
	if [ "$is" != "$want" ]; then
		[ -z "$is" ] || [ "$is" = @OLD@ ] || die 27 "daemon.json was changed by somebody else meanwhile"
		if dockerd --help 2>&1 | grep -q -- --validate; then
			dockerd --validate --config-file "$d/daemon.json.new" || die 27 "dockerd refuses the new daemon.json"
		fi
		mkdir -p /etc/docker || die 27 "cannot make /etc/docker"
		t=@DAEMON@.@KEY@
		if [ -e "$d/daemon.json.before" ]; then cp -p "$d/daemon.json.before" "$t"; else rm -f "$t"; fi
		cat "$d/daemon.json.new" >"$t" && sync && mv -f "$t" @DAEMON@ || die 27 "cannot write daemon.json"
		if [ -z "$old$new" ] && active; then systemctl stop docker || die 24 "docker does not stop"; fi
	fi
fi
exit 0
`

// What the two kinds of package managers do.
const (
	rpmManager = `pm=yum
command -v yum >/dev/null || pm=dnf
list() { rpm -qa --qf '%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}\n' | sort; }
has() { rpm -q "$1" >/dev/null 2>&1; }
# Nothing but sections, comments and settings, and the section that is meant.
valid() {
	grep -q -x -F @SECTIONLINE@ "$1" && grep -q -E '^(baseurl|mirrorlist|metalink) *=' "$1" &&
		! grep -q -v -E '^[[:space:]]*($|[#;]|\[[^]]*][[:space:]]*$|[A-Za-z0-9_.-]+[[:space:]]*=)' "$1"
}
refresh() { :; }
offered() {
	for n in @INSTALL@; do
		$pm -q list "$n" >/dev/null || { echo "$n is not offered"; return 1; }
	done
}
alone() { rpm -e --test "$@"; }
remove() { $pm -y --setopt=clean_requirements_on_remove=0 remove "$@"; }
install() { $pm -y install "$@"; }`

	aptManager = `list() { dpkg-query -W -f '${db:Status-Abbrev} ${Package}=${Version}\n' | grep '^.i' | cut -d ' ' -f 3 | sort; }
has() {
	case "$1" in
	*=*) [ "$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}' "${1%%=*}" 2>/dev/null)" = "ii  ${1#*=}" ];;
	*) dpkg-query -W -f '${db:Status-Abbrev}\n' "$1" 2>/dev/null | grep -q '^.i';;
	esac
}
valid() { grep -q -E '^(deb[[:space:]]|Types:.*deb)' "$1" && ! grep -q -i -e '<html' "$1"; }
refresh() { apt-get -o DPkg::Lock::Timeout=300 -q update; }
offered() { apt-get -s -q install @INSTALL@; }
# What a simulated removal would take along.
alone() {
	out=$(apt-get -s -q remove "$@") || { echo "$out"; return 1; }
	for n in $(echo "$out" | grep '^Remv ' | cut -d ' ' -f 2); do
		case " $* " in *" $n "*) ;; *) echo "$n would go along"; return 1;; esac
	done
}
remove() { apt-get -o DPkg::Lock::Timeout=300 -y -q remove "$@"; }
install() { apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -y -q install "$@"; }
dpkg --configure -a || die 20 "dpkg has unfinished work that it cannot finish"`
)

// Script is what UpgradeDocker runs on the host as a job under key: the whole
// of p, each part of which is done once. It holds the content of daemon.json,
// so it is as secret as that.
func (p *DockerPlan) Script(key string) (string, error) {
	if !validKey.MatchString(key) {
		return "", fmt.Errorf("cannot upgrade Docker: bad key %q", key)
	}
	if why := p.Refusals(); len(why) > 0 {
		return "", fmt.Errorf("cannot upgrade Docker: %s", strings.Join(why, "; "))
	}
	manager, section, line := rpmManager, "", ""
	if p.Manager == "apt" {
		manager = aptManager
	}
	repo := DockerRepo{}
	if p.Repo != nil {
		repo = *p.Repo
	}
	if repo.Section != "" {
		line = "[" + repo.Section + "]"
		section = " " + shellq.Quote("with the section "+line)
	}
	var check []string
	for _, x := range p.Install {
		check = append(check, checkName(p.Manager, x))
	}
	r := strings.NewReplacer("@DIR@", shellq.Quote(jobRoot+"/"+key), "@KEY@", key, "@DAEMON@", daemonJSON,
		"@REPO@", quoteOrEmpty(repo.File), "@URL@", shellq.Quote(repo.URL), "@SUM@", quoteOrEmpty(repo.SHA256), "@SECTION@", section, "@SECTIONLINE@", shellq.Quote(line),
		"@REMOVE@", words(p.Remove), "@INSTALL@", words(p.Install), "@CHECK@", words(check),
		"@OLD@", quoteOrEmpty(p.Config.OldSum), "@NEW@", quoteOrEmpty(p.Config.NewSum), "@NEXT@", quoteOrEmpty(p.Config.NextSum))
	// Contents come last: a replacer does not look at what it has put in.
	out := r.Replace(strings.Replace(dockerScript, "@MANAGER@", manager, 1))
	return strings.NewReplacer("@AFTER@", newline(p.Config.After), "@NEWER@", newline(p.Config.Newer)).Replace(out), nil
}

// quoteOrEmpty is shellq.Quote, with the empty word written out.
func quoteOrEmpty(s string) string {
	if s == "" {
		return "''"
	}
	return shellq.Quote(s)
}

func words(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = shellq.Quote(s)
	}
	return strings.Join(quoted, " ")
}

// newline ends a text with a newline, as a here-document needs it.
func newline(b []byte) string {
	if len(b) == 0 || b[len(b)-1] == '\n' {
		return string(b)
	}
	return string(b) + "\n"
}

// checkName is how the database of packages is asked for an item of Install:
// rpm -q knows no epochs there.
func checkName(manager, x string) string {
	if manager != "rpm" {
		return x
	}
	if i := strings.IndexByte(x, ':'); i >= 0 {
		if j := strings.LastIndexByte(x[:i], '-'); j >= 0 {
			return x[:j+1] + x[i+1:]
		}
	}
	return x
}

// A DockerResult is what a replacement has done.
type DockerResult struct {
	Installed    []string `json:"installed,omitempty"` // packages that came or changed, for DockerOptions.Replay
	Removed      []string `json:"removed,omitempty"`   // packages that went or changed
	DaemonSHA256 string   `json:"daemon_json_sha256,omitempty"`
	Attempts     int      `json:"attempts"` // jobs it took: more than 1 when one was cut off by a reboot or a kill
}

// dockerAttempts is how often a job that was cut off is begun again.
const dockerAttempts = 3

// attemptKey names the job of an attempt; the first has the key itself.
func attemptKey(key string, n int) string {
	if n == 1 {
		return key
	}
	suffix := "-" + strconv.Itoa(n)
	return strings.TrimRight(key[:min(len(key), 64-len(suffix))], "-") + suffix
}

// UpgradeDocker runs script (DockerPlan.Script for the same key) as a detached
// job, waits for its end, asking every poll (0: 3 seconds), and says what it has
// changed. It may be called again at any point: what has ended is not done
// again. A job that was cut off by a reboot or a kill is begun again, since
// each part of it looks first what is done; not when a package transaction is
// unfinished (*TransactionError), which takes a person. A bad end is a
// *DockerError.
//
// Docker is stopped afterwards if anything had to change: StartDocker and
// StartContainers bring it back.
func UpgradeDocker(ctx context.Context, h Host, key, script string, poll time.Duration) (*DockerResult, error) {
	for n := 1; ; n++ {
		k := attemptKey(key, n)
		st, err := GetJob(ctx, h, k)
		if err != nil {
			return nil, err
		}
		if st.Phase == JobAbsent {
			// Never a second transaction on top of half a first one.
			if err := CheckTransactions(ctx, h); err != nil {
				return nil, err
			}
			if err := StartJob(ctx, h, k, script); err != nil {
				return nil, err
			}
		}
		_, err = WaitJob(ctx, h, k, poll, nil)
		var job *JobError
		switch {
		case err == nil:
			return dockerResult(ctx, h, key, n)
		case errors.As(err, &job) && job.State.Phase == JobLost && n < dockerAttempts:
			continue
		case errors.As(err, &job) && job.State.Phase == JobExited:
			stage, ok := dockerStages[job.State.Status]
			if !ok {
				stage = "replace Docker"
			}
			return nil, &DockerError{stage, err}
		}
		return nil, err
	}
}

// dockerResult reads what the job has written down.
func dockerResult(ctx context.Context, h Host, key string, attempts int) (*DockerResult, error) {
	d := shellq.Quote(jobRoot + "/" + key)
	out, err := output(ctx, h, "cd "+d+" && cat packages.before && echo @ && cat packages.after && echo @ && if [ -e "+daemonJSON+" ]; then sha256sum <"+daemonJSON+"; fi", nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read what the replacement of Docker has changed: %w", err)
	}
	parts := strings.Split("\n"+out, "\n@\n")
	if len(parts) != 3 {
		return nil, fmt.Errorf("cannot read what the replacement of Docker has changed: unexpected answer %q", firstBytes(out, 80))
	}
	before, after := packageSet(parts[0]), packageSet(parts[1])
	r := &DockerResult{Attempts: attempts}
	for _, p := range slices.Sorted(maps.Keys(after)) {
		if !before[p] {
			r.Installed = append(r.Installed, p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(before)) {
		if !after[p] {
			r.Removed = append(r.Removed, p)
		}
	}
	r.DaemonSHA256, _, _ = strings.Cut(strings.TrimSpace(parts[2]), " ")
	return r, nil
}

func packageSet(text string) map[string]bool {
	out := map[string]bool{}
	for p := range strings.FieldsSeq(text) {
		// A key that was imported is no package of the transaction.
		if !strings.HasPrefix(p, "gpg-pubkey-") {
			out[p] = true
		}
	}
	return out
}

// Check compares what was done with the plan: a package that went although it
// was not planned, or a recorded package that did not come, is an error.
func (r *DockerResult) Check(p *DockerPlan) error {
	came := map[string]bool{}
	for _, x := range r.Installed {
		came[packageName(x)] = true
	}
	var wrong []string
	for _, x := range r.Removed {
		if n := packageName(x); !came[n] && !slices.Contains(p.Remove, n) {
			wrong = append(wrong, x+" was removed along")
		}
	}
	if p.Exact {
		for _, x := range r.Installed {
			if !slices.Contains(p.Install, x) {
				wrong = append(wrong, x+" was installed, the recorded transaction does not have it")
			}
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the packages of Docker are not as planned: %s", strings.Join(wrong, "; "))
	}
	return nil
}

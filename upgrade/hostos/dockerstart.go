package hostos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// EnableDocker has the daemon started now and at every boot, and reads both
// back: "systemctl enable" of the runbook is a wish until is-enabled says so.
func EnableDocker(ctx context.Context, h Host) error {
	if _, err := output(ctx, h, "systemctl enable docker && systemctl start docker && systemctl is-enabled docker && systemctl is-active docker", nil); err != nil {
		return fmt.Errorf("cannot enable and start docker: %w", err)
	}
	return nil
}

// ErrDaemon means that the Docker daemon does not start.
var ErrDaemon = errors.New("the Docker daemon does not start")

// A ContainerStartError means that the daemon runs, but starts no container:
// the kernel, a limit, a security module, or a runtime stands in the way of
// all of them.
type ContainerStartError struct {
	Message string   // the daemon's own
	Limit   string   // of default-ulimits, that the message complains of; "" = it is not that
	TooHigh []string // those of daemon.json above what the host allows, as "nofile 1024000 > 20000"; nil = none, or unknown
}

func (e *ContainerStartError) Error() string {
	s := "docker runs, but no container starts"
	if e.Limit != "" {
		s += ": the limit " + e.Limit + " of default-ulimits in daemon.json is higher than the host allows"
	}
	if len(e.TooHigh) > 0 {
		s += " (" + strings.Join(e.TooHigh, ", ") + ")"
	}
	return s + ": " + e.Message
}

// probeScript starts a container and sees it end well, from an image of its
// own that is made on the spot and removed: nothing is fetched, and no image
// of the host's is asked for a program that it may not have. The image holds one
// program that is linked statically on ordinary hosts: Docker's own init, or
// ldconfig of the C library. One that is not makes the kernel say that a file is missing,
// after everything else about the container is done, limits among it: what had
// to be proved is proved then too. docker import, run --network none and --rm
// with a client of 1.13 do what they do with one of 28.
//
// Status 33: no container starts.
const probeScript = `probe() {
	b=@DIR@.probe
	i=upgradectl-probe:@KEY@
	docker rm -f upgradectl-probe-@KEY@ >/dev/null 2>&1
	rm -rf "$b" && mkdir -p "$b/root" || return 34
	said=
	for f in $(command -v docker-init) /usr/libexec/docker/docker-init /usr/libexec/docker/docker-init-current /sbin/ldconfig.real /sbin/ldconfig /bin/true; do
		[ -f "$f" ] || continue
		cp "$f" "$b/root/probe" && chmod 755 "$b/root/probe" && tar -cf "$b/image.tar" -C "$b/root" probe || return 34
		docker import "$b/image.tar" "$i" >/dev/null || return 34
		timeout 120 docker run --rm --name upgradectl-probe-@KEY@ --network none "$i" /probe --version >"$b/out" 2>&1
		s=$?
		said=$(head -c 2000 "$b/out")
		docker rm -f upgradectl-probe-@KEY@ >/dev/null 2>&1
		docker rmi "$i" >/dev/null 2>&1
		[ $s != 0 ] || break
		case "$said" in
		*rlimit*) break;;
		*/probe*"no such file or directory"*|*"exec user process caused"*"no such file or directory"*) s=0;;
		*) break;;
		esac
	done
	rm -rf "$b"
	[ $s = 0 ] || { echo "$said" >&2; return 33; }
}
`

// ProbeContainers proves that the daemon starts containers, by one that it
// makes and removes; key names it. A daemon that runs and starts none is a
// *ContainerStartError.
func ProbeContainers(ctx context.Context, h Host, key string) error {
	if !validKey.MatchString(key) {
		return fmt.Errorf("cannot probe docker: bad key %q", key)
	}
	var stderr capped
	err := h.Run(ctx, withKey(probeScript, key)+"probe\n", nil, &capped{}, &stderr)
	return probeError(err, stderr.String())
}

func withKey(script, key string) string {
	return strings.NewReplacer("@DIR@", shellq.Quote(jobRoot+"/"+key), "@KEY@", key).Replace(script)
}

// rlimits are the numbers of the limits in the messages of container runtimes
// (getrlimit(2)).
var rlimits = map[string]string{"3": "stack", "4": "core", "6": "nproc", "7": "nofile", "8": "memlock"}

var rlimitType = regexp.MustCompile(`rlimit type (\d+)`)

func probeError(err error, stderr string) error {
	if err == nil {
		return nil
	}
	msg := firstBytes(strings.TrimSpace(stderr), 600)
	if status, ran := exitStatus(err); ran && status == 33 {
		e := &ContainerStartError{Message: msg}
		if m := rlimitType.FindStringSubmatch(msg); m != nil {
			e.Limit = rlimits[m[1]]
			if e.Limit == "" {
				e.Limit = "rlimit " + m[1]
			}
		}
		return e
	}
	if msg != "" {
		err = fmt.Errorf("%w: %s", err, msg)
	}
	return fmt.Errorf("cannot probe whether docker starts containers: %w", err)
}

// startDocker enables and starts the daemon and probes it. When that fails
// with a daemon.json that the job of the same directory has put in place, the
// one from before is put back and the daemon started with it.
const startDocker = probeScript + `d=@DIR@
daemon() {
	said=$(systemctl enable docker 2>&1) || { echo "$said" >&2; return 31; }
	[ "$(systemctl is-enabled docker)" = enabled ] || { echo "docker is not enabled" >&2; return 31; }
	systemctl start docker && [ "$(systemctl is-active docker)" = active ] && return 0
	if command -v journalctl >/dev/null; then
		journalctl -u docker -n 30 --no-pager -o cat 2>/dev/null | grep -E 'level=(error|fatal)|unable to|failed to' | tail -n 5 >&2
	fi
	return 32
}
daemon
s=$?
if [ $s = 0 ]; then @CHMOD@probe; s=$?; fi
case $s in
32|33)
	if [ -e "$d/daemon.json.new" ] && [ -e @DAEMON@ ] && [ "$(sha256sum <@DAEMON@)" = "$(sha256sum <"$d/daemon.json.new")" ]; then
		if [ -e "$d/daemon.json.before" ]; then
			cmp -s "$d/daemon.json.before" @DAEMON@ && exit $s
			cp -p "$d/daemon.json.before" @DAEMON@.@KEY@ && sync && mv -f @DAEMON@.@KEY@ @DAEMON@ || exit $s
		else
			rm -f @DAEMON@ || exit $s
		fi
		systemctl reset-failed docker >/dev/null 2>&1
		systemctl restart docker >/dev/null 2>&1
		echo restored "$(systemctl is-active docker)"
	fi;;
esac
exit $s
`

// StartDocker has the daemon started now and at every boot, reads both back,
// and proves by a container of its own that containers start. key is that of
// UpgradeDocker: when the daemon does not start (ErrDaemon), or starts no
// container (*ContainerStartError), with the daemon.json that was put in place
// there, the one from before is put back and the daemon started with it; the
// error says so. With chmodSocket every user may use the socket afterwards.
//
// before, when not nil, is the state of the host when everything ran: another
// storage driver or data root than it had is an error, because images and
// containers are hidden then. It returns the state the host is in.
func StartDocker(ctx context.Context, h Host, key string, before *Docker, chmodSocket bool) (*Docker, error) {
	if !validKey.MatchString(key) {
		return nil, fmt.Errorf("cannot start docker: bad key %q", key)
	}
	chmod := ""
	if chmodSocket {
		chmod = "chmod 666 /var/run/docker.sock && "
	}
	cmd := strings.NewReplacer("@CHMOD@", chmod, "@DAEMON@", daemonJSON).Replace(withKey(startDocker, key))
	var stdout, stderr capped
	if err := h.Run(ctx, cmd, nil, &stdout, &stderr); err != nil {
		return nil, startError(ctx, h, key, err, stdout.String(), stderr.String())
	}
	now, err := GetDocker(ctx, h)
	if err != nil {
		return nil, err
	}
	return now, sameStore(now, before)
}

func startError(ctx context.Context, h Host, key string, err error, stdout, stderr string) error {
	status, _ := exitStatus(err)
	msg := firstBytes(strings.TrimSpace(stderr), 600)
	switch status {
	case 31:
		return fmt.Errorf("cannot enable docker: %w: %s", err, msg)
	case 32:
		err = fmt.Errorf("%w: %s", ErrDaemon, msg)
	case 33:
		e := probeError(err, stderr)
		if c, ok := errors.AsType[*ContainerStartError](e); ok && c.Limit != "" {
			c.TooHigh = tooHigh(ctx, h, key)
		}
		err = e
	default:
		return probeError(err, stderr)
	}
	if state, ok := strings.CutPrefix(strings.TrimSpace(stdout), "restored "); ok {
		err = fmt.Errorf("%w; the daemon.json from before is back in place, docker is %s with it", err, state)
	}
	return err
}

// tooHigh compares the limits of the daemon.json that was tried, or else of the
// one in place, with what the host allows; nil where that cannot be read.
func tooHigh(ctx context.Context, h Host, key string) []string {
	now, err := GetDocker(ctx, h)
	if err != nil {
		return nil
	}
	data, err := h.ReadFile(ctx, jobRoot+"/"+key+"/daemon.json.new")
	if err != nil {
		data = now.DaemonJSON
	}
	return limitsAbove(data, now.Limits)
}

// sameStore sees that the daemon works on the images and containers that it
// had before.
func sameStore(now, before *Docker) error {
	if now.ServerVersion == "" {
		return fmt.Errorf("docker cannot be asked after its start: %s", now.Trouble)
	}
	if before == nil || before.ServerVersion == "" {
		return nil
	}
	if now.StorageDriver != before.StorageDriver {
		return fmt.Errorf("the storage driver of docker was %s and is %s: images and containers of before are hidden; set storage-driver in daemon.json back", before.StorageDriver, now.StorageDriver)
	}
	if now.DataRoot != before.DataRoot {
		return fmt.Errorf("the data root of docker was %s and is %s: images and containers of before are hidden; set data-root in daemon.json back", before.DataRoot, now.DataRoot)
	}
	return nil
}

package hostos

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// bootID is the form of /proc/sys/kernel/random/boot_id.
var bootID = regexp.MustCompile(`^[0-9a-fA-F-]{36}$`)

// Boot is what tells one boot of a host from another.
type Boot struct {
	ID      string `json:"boot_id"`
	Kernel  string `json:"kernel"`  // /proc/sys/kernel/osrelease
	Release string `json:"release"` // first line of /etc/redhat-release, or PRETTY_NAME
}

// GetBoot reads the boot ID, the running kernel, and the release.
func GetBoot(ctx context.Context, h Host) (Boot, error) {
	out, err := output(ctx, h, `cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease || exit 1
if [ -r /etc/redhat-release ]; then cat /etc/redhat-release
elif [ -r /etc/os-release ]; then . /etc/os-release; echo "$PRETTY_NAME"; fi`, nil)
	if err != nil {
		return Boot{}, fmt.Errorf("cannot read the boot ID: %w", err)
	}
	l := strings.Split(strings.TrimSpace(out), "\n")
	if len(l) < 2 || !bootID.MatchString(l[0]) {
		return Boot{}, fmt.Errorf("cannot read the boot ID: unexpected answer %q", firstBytes(out, 80))
	}
	b := Boot{ID: l[0], Kernel: l[1]}
	if len(l) > 2 {
		b.Release = strings.TrimSpace(l[2])
	}
	return b, nil
}

// StartReboot asks the host to reboot a second from now, provided that it is
// still in the boot with ID from. The delay lets the command return before
// the connection drops; the check makes a repeated call harmless: a host that
// has rebooted already is left alone.
func StartReboot(ctx context.Context, h Host, from string) error {
	if !bootID.MatchString(from) {
		return fmt.Errorf("cannot reboot: %q is no boot ID", firstBytes(from, 40))
	}
	_, err := output(ctx, h, `[ "$(cat /proc/sys/kernel/random/boot_id)" = '`+from+`' ] || exit 0
setsid /bin/sh -c 'sleep 1; exec shutdown -r now' >/dev/null 2>&1 </dev/null &
`, nil)
	if err != nil {
		return fmt.Errorf("cannot reboot: %w", err)
	}
	return nil
}

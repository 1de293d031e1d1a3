package upgrade

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
)

// HostExtra is what detectors need of the host besides its inventory.
type HostExtra struct {
	Network      []hostinv.Line `json:"network,omitempty"`      // lines of network scripts with addresses of the card or the host
	Databases    []OpenFile     `json:"databases,omitempty"`    // databases in a file that a process has open
	Certificates []Certificate  `json:"certificates,omitempty"` // of its nginx
	Crypt        []CryptDevice  `json:"crypt,omitempty"`        // encrypted block devices
}

// A CryptDevice is a block device that the host itself encrypts (LUKS, dm-crypt).
type CryptDevice struct {
	Name    string   `json:"name"`              // of the mapping
	Source  string   `json:"source,omitempty"`  // in /etc/crypttab; "" = it has no line there
	Key     string   `json:"key,omitempty"`     // file or device of the key; "" = none: somebody is asked
	Options []string `json:"options,omitempty"` // of its line
	Open    bool     `json:"open"`              // the mapping is there now
}

// An OpenFile is a file that a process has open.
type OpenFile struct {
	Path string `json:"path"`
	By   string `json:"by"` // as "process 4711"
}

// A Certificate is one of an X.509 certificate file, the first in it.
type Certificate struct {
	Path      string    `json:"path"`
	Names     []string  `json:"names,omitempty"`
	Addresses []string  `json:"addresses,omitempty"` // IP addresses that it is for
	NotAfter  time.Time `json:"not_after,omitzero"`
}

// extraScript reads what HostExtra holds. It changes nothing, and what is not
// there it leaves out. Databases are known by their names, as SQLite, H2 and
// Derby have them; a process's files only root sees. $1 is put before every
// path, for tests.
const extraScript = `set -u
LC_ALL=C; export LC_ALL
echo '== network'
for f in "$1"/etc/sysconfig/network-scripts/ifcfg-* "$1"/etc/udev/rules.d/70-persistent-net.rules "$1"/etc/netplan/*.yaml "$1"/etc/network/interfaces "$1"/etc/network/interfaces.d/* "$1"/etc/NetworkManager/system-connections/*; do
	[ -f "$f" ] && [ -r "$f" ] || continue
	grep -H -E 'HWADDR|IPADDR|ATTR\{address\}|address' "$f"
done
echo '== databases'
ls -l "$1"/proc/[0-9]*/fd 2>/dev/null | grep -E '^"?/|:$|\.(sqlite|sqlite3|db|db3|mv\.db|h2\.db)$'
echo '== crypttab'
[ ! -r "$1/etc/crypttab" ] || cat "$1/etc/crypttab"
echo '== crypt'
grep -H CRYPT- "$1"/sys/block/dm-*/dm/uuid 2>/dev/null
echo '== certificates'
for d in /etc/nginx /usr/local/nginx/conf /usr/local/openresty/nginx/conf /etc/tengine; do
	[ -d "$1$d" ] || continue
	grep -r -h -o -E '^[[:space:]]*ssl_certificate[[:space:]]+[^;$]+' "$1$d" | head -n 20 | while read -r word file; do
		case "$file" in
		/*) ;;
		*) file="$d/$file" ;;
		esac
		[ -f "$1$file" ] && [ -r "$1$file" ] || continue
		echo "-- $file"
		head -c 16384 "$1$file"
		echo
	done
done
echo '== end'
`

// maxExtra bounds what collectExtra takes from a host.
const maxExtra = 1 << 20

// collectExtra reads the host with one command.
func collectExtra(ctx context.Context, h hostinv.Host) (*HostExtra, error) {
	var out bytes.Buffer
	if err := h.Run(ctx, "/bin/sh -s ''", strings.NewReader(extraScript), &limited{w: &out, left: maxExtra}, io.Discard); err != nil {
		return nil, fmt.Errorf("cannot look for what a copy must not share: %w", err)
	}
	return parseExtra(out.Bytes()), nil
}

// limited takes the beginning of what is written and drops the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if n > 0 {
		if _, err := l.w.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// luksUUID is the UUID in the name that device mapper has for a LUKS device.
var luksUUID = regexp.MustCompile(`^[0-9a-f]{32}-`)

// openFile is the end of a line of ls -l of a descriptor.
var openFile = regexp.MustCompile(` -> (/.*)$`)

// notOurs are directories whose databases belong to the system.
var notOurs = regexp.MustCompile(`^/(usr|run|proc|sys|dev|boot|etc|var/lib/(rpm|dnf|yum|sss|PackageKit|mlocate|plocate|dpkg|apt|NetworkManager|systemd|docker/network|containerd|docker/buildkit|fwupd|snapd|command-not-found|cloud)|var/cache|usr/local/(aegis|share/aliyun-assist|cloudmonitor))/`)

// parseExtra reads the output of extraScript. It is pure, and takes whatever
// does not have the form for not being there.
func parseExtra(out []byte) *HostExtra {
	e := &HostExtra{}
	part, owner, file := "", "", ""
	var pemText []byte
	certs := map[string]Certificate{}
	flush := func() {
		if file != "" {
			if b, _ := pem.Decode(pemText); b != nil && b.Type == "CERTIFICATE" {
				if c, err := certificate(file, b.Bytes); err == nil {
					certs[file] = c
				}
			}
		}
		file, pemText = "", nil
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if name, ok := strings.CutPrefix(line, "== "); ok {
			flush()
			part, owner = name, ""
			continue
		}
		switch part {
		case "network":
			src, text, ok := strings.Cut(line, ":")
			text = strings.TrimSpace(text)
			if ok && text != "" && !strings.HasPrefix(text, "#") && strings.HasPrefix(src, "/") {
				e.Network = append(e.Network, hostinv.Line{Source: src, Text: text})
			}
		case "databases":
			if strings.HasPrefix(line, "/proc/") && strings.HasSuffix(line, "/fd:") {
				owner = "process " + strings.TrimSuffix(strings.TrimPrefix(line, "/proc/"), "/fd:")
			} else if m := openFile.FindStringSubmatch(line); m != nil && owner != "" && !notOurs.MatchString(m[1]) {
				if !slices.ContainsFunc(e.Databases, func(o OpenFile) bool { return o.Path == m[1] }) {
					e.Databases = append(e.Databases, OpenFile{Path: m[1], By: owner})
				}
			}
		case "crypttab":
			// NAME SOURCE [KEY [OPTIONS]]; none and - are no key (crypttab(5)).
			f := strings.Fields(line)
			if len(f) < 2 || strings.HasPrefix(f[0], "#") {
				continue
			}
			d := CryptDevice{Name: f[0], Source: f[1]}
			if len(f) > 2 && f[2] != "none" && f[2] != "-" {
				d.Key = f[2]
			}
			if len(f) > 3 {
				d.Options = strings.Split(f[3], ",")
			}
			e.Crypt = append(e.Crypt, d)
		case "crypt":
			// CRYPT-TYPE-UUID-NAME, where PLAIN has no UUID (cryptsetup).
			_, uuid, ok := strings.Cut(line, ":CRYPT-")
			if !ok {
				continue
			}
			_, name, _ := strings.Cut(uuid, "-")
			if m := luksUUID.FindString(name); m != "" {
				name = name[len(m):]
			}
			name = strings.TrimLeft(name, "-")
			if i := slices.IndexFunc(e.Crypt, func(d CryptDevice) bool { return d.Name == name }); i >= 0 {
				e.Crypt[i].Open = true
			} else if name != "" {
				e.Crypt = append(e.Crypt, CryptDevice{Name: name, Open: true})
			}
		case "certificates":
			if name, ok := strings.CutPrefix(line, "-- /"); ok {
				flush()
				file = "/" + name
				continue
			}
			pemText = append(append(pemText, line...), '\n')
		}
	}
	flush()
	for _, k := range sortedKeys(certs) {
		e.Certificates = append(e.Certificates, certs[k])
	}
	return e
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

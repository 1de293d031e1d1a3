package sim

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
)

// WriteOperatorFiles writes into dir, which it makes, what an operator of
// this world has: upgrade.yaml, ssh_config, known_hosts and id_ed25519.
func (w *Rebuild) WriteOperatorFiles(dir string) (Operator, error) {
	return w.op.write(dir, w, w.key)
}

func (w *Rebuild) sshConfig(o Operator) string {
	quoted := func(p string) string { return `"` + filepath.ToSlash(p) + `"` }
	port := 0
	if a, ok := w.ln.Addr().(*net.TCPAddr); ok {
		port = a.Port
	}
	return fmt.Sprintf(`Host firstbox %s
    HostName 127.0.0.1
    Port %d
    User root
    HostKeyAlias %s
    IdentityFile %s
    IdentitiesOnly yes
    UserKnownHostsFile %s
    StrictHostKeyChecking yes

Host 192.0.2.* !%s
    ProxyJump firstbox
    User root
    IdentityFile %s
    IdentitiesOnly yes
    UserKnownHostsFile %s
    StrictHostKeyChecking yes
`, firstbox.FirstboxAddr, port, firstbox.FirstboxAddr, quoted(o.Identity), quoted(o.KnownHosts),
		firstbox.FirstboxAddr, quoted(o.Identity), quoted(o.KnownHosts))
}

// knownHosts has the hosts that there are now, by address, and not the VMs to
// come.
func (w *Rebuild) knownHosts() string {
	var lines []string
	for _, m := range w.site.Machines() {
		if a := m.Addresses(); len(a) > 0 {
			lines = append(lines, a[0]+" "+m.Host.HostKey())
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

package firstbox

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const dirMode = fs.ModeDir

// cmdPgrep is pgrep -x NAME.
func (s *Site) cmdPgrep(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 3 || p.Args[1] != "-x" {
		return p.Refusef("only pgrep -x NAME")
	}
	entries, _ := p.Host.ReadDir("/proc")
	found := false
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		comm, err := p.Host.ReadFile("/proc/" + e.Name() + "/comm")
		name := strings.TrimSpace(string(comm))
		if name == "crond" {
			name = "cron" // Debian's name of it
		}
		if err == nil && name == p.Args[2] {
			fmt.Fprintln(p.Stdout, e.Name())
			found = true
		}
	}
	return b2i(!found)
}

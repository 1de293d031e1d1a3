package upgrade

import (
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/hostinv"
)

// supervised tells whether supervisord started a process, or one of its
// parents: it starts it again too.
func supervised(inv *hostinv.Inventory, pid int) bool {
	for range 64 { // an inventory is a file: it may hold a circle
		i := slices.IndexFunc(inv.Processes, func(p hostinv.Process) bool { return p.PID == pid && pid > 1 })
		if i < 0 {
			return false
		}
		if p := inv.Processes[i]; strings.Contains(p.Program, "supervisord") {
			return true
		}
		pid = inv.Processes[i].PPID
	}
	return false
}

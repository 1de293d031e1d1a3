package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
)

// Digest is a hash of everything about the host that a command can change: its
// files (names, modes, owners, contents; not their times), containers, packages,
// the boot, and the processes. Two digests are equal when nothing has changed in
// between, but for what skip names. It costs a walk through the whole tree.
func (h *Host) Digest(skip func(file string) bool) string {
	sum := sha256.New()
	h.mu.Lock()
	fmt.Fprintln(sum, h.bootID, h.kernel, h.boot != nil)
	for _, pid := range slices.Sorted(maps.Keys(h.procs)) {
		p := h.procs[pid]
		fmt.Fprintf(sum, "%d %q %q %d\n", pid, p.args, p.title, len(p.service))
	}
	h.mu.Unlock()
	for _, c := range h.dock.freeze().list {
		fmt.Fprintf(sum, "%+v\n", c)
	}
	packs := h.pk.clone()
	fmt.Fprintln(sum, packs.bootKernel, packs.list)
	h.tree.mu.RLock()
	defer h.tree.mu.RUnlock()
	h.tree.root.digest(sum, "", skip)
	return hex.EncodeToString(sum.Sum(nil))
}

func (n *node) digest(sum hash.Hash, name string, skip func(string) bool) {
	if name == "/proc" || skip != nil && skip(name) {
		return
	}
	fmt.Fprintf(sum, "%q %s %d %d %q %d\n", name, n.mode, n.uid, n.gid, n.link, len(n.data))
	sum.Write(n.data)
	for _, kid := range slices.Sorted(maps.Keys(n.kids)) {
		n.kids[kid].digest(sum, name+"/"+kid, skip)
	}
}

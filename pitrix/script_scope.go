package pitrix

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Scope is the nodes that a script of the firstbox is to work on. It can be
// made by [NewScope] only, which holds it against the role that is allowed, so
// that no command line of this package names a node outside of it. The zero
// Scope is refused everywhere.
type Scope struct {
	nodes []string // sorted, never empty
	all   bool     // the group of that name
}

// NewScope resolves words, a list of groups and nodes as the scripts take it,
// and holds the nodes against allow. A scope outside of it gives a *ScopeError.
func NewScope(fleet Fleet, groups Groups, words string, allow Allow) (Scope, error) {
	nodes, err := groups.Allow(fleet, words, allow)
	if err != nil {
		return Scope{}, err
	}
	for _, n := range nodes {
		if err := checkNode(n); err != nil {
			return Scope{}, fmt.Errorf("cannot work on %q: %w", words, err)
		}
	}
	nodes = slices.Compact(slices.Sorted(slices.Values(nodes)))
	if len(nodes) == 0 {
		return Scope{}, &ScopeError{Scope: words, Why: "it holds no node; name a group or nodes that have a settings file"}
	}
	// The group of all nodes is longer than a command line should be.
	return Scope{nodes: nodes, all: allow.KnownHosts && strings.TrimSpace(words) == "all"}, nil
}

// Nodes returns the names, sorted.
func (s Scope) Nodes() []string { return slices.Clone(s.nodes) }

// String returns what the scripts are given: the names with commas between
// them, and not the group they came from, whose list on the firstbox may be
// older than the settings. The one exception is the group all.
func (s Scope) String() string {
	if s.all {
		return "all"
	}
	return strings.Join(s.nodes, ",")
}

func (s Scope) has(node string) bool { return slices.Contains(s.nodes, node) }

// check refuses the zero Scope, and the group all where it is not the one
// command that it is allowed for.
func (s Scope) check() error {
	switch {
	case len(s.nodes) == 0:
		return errors.New("the scope is empty; make it with NewScope")
	case s.all:
		return &ScopeError{Scope: "all", Why: "only the clean-up of known_hosts goes to all nodes; name the nodes of one role"}
	}
	return nil
}

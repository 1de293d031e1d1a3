package pitrix

import (
	"fmt"
	"slices"
	"strings"
)

// A ScopeError says why a scope must not be given to a command of the
// installer. Nothing was run.
type ScopeError struct {
	Scope   string
	Why     string   // and what to do
	Outside []string // the nodes that it would reach and must not
}

// Error returns the scope, the reason and the nodes.
func (e *ScopeError) Error() string {
	s := fmt.Sprintf("refused the scope %q: %s", e.Scope, e.Why)
	if len(e.Outside) > 0 {
		s += " (" + list(e.Outside) + ")"
	}
	return s
}

// scopeItems splits a scope as the installer's commands do.
func scopeItems(scope string) []string {
	return strings.FieldsFunc(scope, func(r rune) bool { return r == ',' || r == ' ' })
}

// Resolve returns the nodes that exec_nodes and update_nodes would reach with
// the scope: a list, separated by commas or blanks, of groups and nodes, where
// a group wins over a node of its name; in ascending order, each once. What the
// commands call invalid, and a scope without nodes, is a *ScopeError.
func (g Groups) Resolve(fleet Fleet, scope string) ([]string, error) {
	var nodes []string
	for _, item := range scopeItems(scope) {
		if members, ok := g[item]; ok {
			nodes = append(nodes, members...)
		} else {
			nodes = append(nodes, item)
		}
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	if len(nodes) == 0 {
		return nil, &ScopeError{Scope: scope, Why: "it has no nodes, which some commands take for success; name a group that has some, or a node"}
	}
	var unknown []string
	for _, n := range nodes {
		if fleet[n] == nil {
			unknown = append(unknown, n)
		}
	}
	if len(unknown) > 0 {
		why := "neither a group nor a settings file has this name; correct it"
		if slices.ContainsFunc(unknown, func(n string) bool { return strings.Contains(n, "/") }) {
			why = "neither a group nor a settings file has this name; proxy0/1 in the documents means proxy0 or proxy1, so write one of them"
		}
		return nil, &ScopeError{Scope: scope, Why: why, Outside: unknown}
	}
	return nodes, nil
}

// Allow says which scopes a procedure may use.
type Allow struct {
	Role string // its nodes alone
	Zone string // and of those the nodes of this zone; empty: of any
	// Nodes, if not nil, is a further limit: no other node may be reached.
	Nodes []string
	// KnownHosts permits the scope "all", for the one thing that has to be done
	// everywhere: to remove a rebuilt node's host keys.
	KnownHosts bool
}

// Allow returns the nodes of the scope when a permits all of them. A scope is
// made of the role's group and names of nodes: any other group is refused even
// if it has the same nodes now, for its list is read again by the command. The
// error is a *ScopeError.
func (g Groups) Allow(fleet Fleet, scope string, a Allow) ([]string, error) {
	refuse := func(outside []string, format string, args ...any) ([]string, error) {
		return nil, &ScopeError{Scope: scope, Why: fmt.Sprintf(format, args...), Outside: outside}
	}
	if a.KnownHosts && scope == "all" {
		return g.Resolve(fleet, scope)
	}
	if _, ok := g[a.Role]; a.Role == "" || !ok {
		return refuse(nil, "%q is not a role with a node list; name one as proxy or webservice", a.Role)
	}
	group := a.Role
	if zoned := a.Zone + "-" + a.Role; a.Zone != "" {
		if _, ok := g[zoned]; ok {
			group = zoned // in region mode
		}
	}
	for _, item := range scopeItems(scope) {
		if _, ok := g[item]; !ok || item == group || item == a.Role {
			continue
		}
		if item == "all" {
			return refuse(nil, "all nodes is never the scope of a change; name the role, %s", group)
		}
		return refuse(g[item], "the group %s is not that of the role; name the role, %s, or its nodes", item, group)
	}
	nodes, err := g.Resolve(fleet, scope)
	if err != nil {
		return nil, err
	}
	var outside []string
	for _, name := range nodes {
		n := &node{name: name, s: fleet[name]}
		n.role, n.zone = n.get("role"), n.get("zone_id")
		// A list holds every node whose role contains the word.
		isRole := n.is(a.Role) || a.Role == "pgserver" && (n.is("pgmaster") || n.is("pgslave"))
		if !isRole || !slices.Contains(g[group], name) || a.Zone != "" && n.zone != a.Zone || a.Nodes != nil && !slices.Contains(a.Nodes, name) {
			outside = append(outside, name)
		}
	}
	if len(outside) > 0 {
		what := "the role " + a.Role
		if a.Zone != "" {
			what += " in the zone " + a.Zone
		}
		if a.Nodes != nil {
			what += " and the nodes " + list(a.Nodes)
		}
		return refuse(outside, "it reaches nodes outside %s", what)
	}
	return nodes, nil
}

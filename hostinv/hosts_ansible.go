package hostinv

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An AnsibleInventory is a static Ansible inventory: an INI or a YAML file and
// the group_vars and host_vars beside it. Of the variables only those that say
// how a host is reached are looked at. Rules: ansible-core's inventory plugins
// ini and yaml and vars plugin host_group_vars; TestAnsibleJudge holds them
// against ansible-inventory itself.
type AnsibleInventory struct {
	file   string
	groups map[string]*ansibleGroup
	hosts  map[string]*ansibleHost
	order  []*ansibleHost // as they first stand in the file
	bad    problems
	files  map[string]varsFile // of group_vars and host_vars, read once
	dirs   map[string]bool     // whether these directories exist
}

type ansibleGroup struct {
	name     string
	at       position
	children []string
	parents  []string
	hosts    map[string]bool
	vars     map[string]ansibleVar
	priority int
	depth    int  // longest way from all
	ranked   bool // depth is known
}

type ansibleHost struct {
	name   string
	at     position
	groups map[string]bool // that name it themselves
	vars   map[string]ansibleVar
}

// ansibleVar is the value of one variable.
type ansibleVar struct {
	text string
	why  string // why it cannot be used; empty = it can
	at   position
}

// varsFile are the variables of one file of group_vars or host_vars.
type varsFile struct {
	vars map[string]ansibleVar
	bad  problems
}

func (a *AnsibleInventory) group(name string, at position) *ansibleGroup {
	g := a.groups[name]
	if g == nil {
		g = &ansibleGroup{name: name, at: at, hosts: map[string]bool{}, vars: map[string]ansibleVar{}, priority: 1}
		a.groups[name] = g
	}
	return g
}

func (a *AnsibleInventory) host(name, group string, at position) *ansibleHost {
	h := a.hosts[name]
	if h == nil {
		h = &ansibleHost{name: name, at: at, groups: map[string]bool{}, vars: map[string]ansibleVar{}}
		a.hosts[name] = h
		a.order = append(a.order, h)
	}
	h.groups[group] = true
	a.group(group, at).hosts[name] = true
	return h
}

// child makes a group a child of another.
func (a *AnsibleInventory) child(parent, child string, at position) {
	p, c := a.group(parent, at), a.group(child, at)
	if parent == child || a.above(p, child) {
		a.bad.add(at, "group %s is a child of %s, which is a child of %s", child, parent, child)
		return
	}
	if !slices.Contains(p.children, child) {
		p.children = append(p.children, child)
		c.parents = append(c.parents, parent)
	}
}

// above says whether name stands above g.
func (a *AnsibleInventory) above(g *ansibleGroup, name string) bool {
	return slices.ContainsFunc(g.parents, func(p string) bool { return p == name || a.above(a.groups[p], name) })
}

// set sets a variable of a group, and takes the priority out of it.
func (a *AnsibleInventory) set(g *ansibleGroup, key string, v ansibleVar) {
	if key != "ansible_group_priority" {
		g.vars[key] = v
		return
	}
	n, err := strconv.Atoi(v.text)
	if v.why != "" || err != nil {
		a.bad.add(v.at, "ansible_group_priority %q is no number", v.text)
		return
	}
	g.priority = n
}

// rank finds the depth of a group.
func (a *AnsibleInventory) rank(g *ansibleGroup) int {
	if g.name == "all" {
		return 0
	}
	if !g.ranked {
		g.depth, g.ranked = 1, true
		for _, p := range g.parents {
			g.depth = max(g.depth, a.rank(a.groups[p])+1)
		}
	}
	return g.depth
}

// memberships returns the groups of a host and all above them, in the order in
// which their variables apply, without all and ungrouped.
func (a *AnsibleInventory) memberships(h *ansibleHost) []*ansibleGroup {
	in := map[string]bool{}
	var up func(name string)
	up = func(name string) {
		if in[name] || name == "all" {
			return
		}
		in[name] = true
		for _, p := range a.groups[name].parents {
			up(p)
		}
	}
	for g := range h.groups {
		up(g)
	}
	if len(in) > 1 {
		delete(in, "ungrouped")
	}
	var l []*ansibleGroup
	for name := range in {
		l = append(l, a.groups[name])
	}
	slices.SortFunc(l, func(x, y *ansibleGroup) int {
		return cmp.Or(cmp.Compare(a.rank(x), a.rank(y)), cmp.Compare(x.priority, y.priority), cmp.Compare(x.name, y.name))
	})
	return l
}

// LoadAnsible reads an Ansible inventory file: .yml, .yaml and .json as YAML,
// .ini as INI, and others as YAML when they look like it. What is not
// understood is an error, all of it at once as file:line:col in a
// *ConfigError: nothing is skipped that could mean other hosts. Vaulted files,
// executable inventories and configurations of inventory plugins are refused;
// so are directories.
func LoadAnsible(name string) (*AnsibleInventory, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the Ansible inventory: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("cannot read the Ansible inventory %s: it is a directory; name one file of it", name)
	}
	src, err := readLimited(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the Ansible inventory: %w", err)
	}
	if bytes.HasPrefix(src, []byte("#!")) {
		return nil, fmt.Errorf("cannot read the Ansible inventory %s: it is a program, and programs are not run; "+
			"run ansible-inventory --list --yaml --output FILE and give that file", name)
	}
	return ParseAnsible(name, src)
}

// ParseAnsible is LoadAnsible for content that was read already. group_vars
// and host_vars are looked for beside name when hosts are asked for.
func ParseAnsible(name string, src []byte) (*AnsibleInventory, error) {
	a := &AnsibleInventory{file: name, groups: map[string]*ansibleGroup{}, hosts: map[string]*ansibleHost{}, files: map[string]varsFile{}, dirs: map[string]bool{}}
	a.group("all", position{name, 1, 1})
	a.group("ungrouped", position{name, 1, 1})
	if isVault(src) {
		a.bad.add(position{name, 1, 1}, "the file is vaulted; decrypt it with ansible-vault view, or give the hosts as a list")
		return nil, a.bad.err()
	}
	switch filepath.Ext(name) {
	case ".yml", ".yaml", ".json":
		a.parseYAML(src)
	case ".ini":
		a.parseINI(src)
	default:
		if looksLikeYAML(src) {
			a.parseYAML(src)
		} else {
			a.parseINI(src)
		}
	}
	if err := a.bad.err(); err != nil {
		return nil, err
	}
	for _, h := range a.order {
		if a.groups[h.name] != nil {
			a.bad.add(h.at, "%s is the name of a host and of a group", h.name)
		}
	}
	if err := a.bad.err(); err != nil {
		return nil, err
	}
	return a, nil
}

func isVault(src []byte) bool { return bytes.HasPrefix(src, []byte("$ANSIBLE_VAULT;")) }

// yamlStart is the beginning of a YAML inventory: a document mark, or a group
// as a key. No line of an INI inventory ends with a colon.
var yamlStart = regexp.MustCompile(`^(---|\{|["']?[\w.-]+["']?\s*:\s*(#.*)?$)`)

func looksLikeYAML(src []byte) bool {
	for _, line := range lines(src) {
		if t := strings.TrimSpace(line); t != "" && t[0] != '#' {
			return yamlStart.MatchString(line)
		}
	}
	return false
}

// Groups returns the names of the groups, sorted, all and ungrouped included.
func (a *AnsibleInventory) Groups() []string {
	var l []string
	for n := range a.groups {
		l = append(l, n)
	}
	slices.Sort(l)
	return l
}

// Hosts returns the hosts that limit selects, in the order of the file; an
// empty limit selects all. limit is a pattern as of Ansible's --limit: names
// of hosts and groups with * and ?, separated by commas or colons, ! before
// what is left out and & before what must be true as well. Each that names
// nothing is an error.
//
// How a host is reached comes from ansible_host, ansible_port, ansible_user
// and ansible_ssh_private_key_file, of the inventory and of group_vars and
// host_vars beside it. A selected host with a variable that would change the
// connection in a way that is not supported (a password, ssh arguments, a
// connection other than ssh, a template, a vaulted value) is an error.
func (a *AnsibleInventory) Hosts(limit string) ([]FleetHost, error) {
	selected, err := a.selection(limit)
	if err != nil {
		return nil, err
	}
	var out []FleetHost
	var bad problems
	said := map[string]bool{} // problems of groups come once for many hosts
	for _, h := range a.order {
		if selected != nil && !selected[h.name] {
			continue
		}
		f, p := a.resolve(h)
		for _, text := range p {
			if !said[text] {
				said[text] = true
				bad = append(bad, text)
			}
		}
		out = append(out, f)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// selection evaluates a limit; nil = all.
func (a *AnsibleInventory) selection(limit string) (map[string]bool, error) {
	if strings.TrimSpace(limit) == "" {
		return nil, nil
	}
	var plain, with, without []string
	for _, p := range strings.FieldsFunc(limit, func(r rune) bool { return r == ',' || r == ':' || r == ';' }) {
		p = strings.TrimSpace(p)
		switch {
		case p == "":
			continue
		case strings.HasPrefix(p, "~") || strings.HasPrefix(p, "@") || strings.ContainsAny(p, "[]"):
			return nil, fmt.Errorf("--limit %q: regular expressions, files and subscripts are not supported; use names with * and ?", p)
		case p[0] == '!':
			without = append(without, p[1:])
		case p[0] == '&':
			with = append(with, p[1:])
		default:
			plain = append(plain, p)
		}
	}
	if plain == nil {
		plain = []string{"all"}
	}
	selected := map[string]bool{}
	for _, p := range plain {
		m, err := a.match(p)
		if err != nil {
			return nil, err
		}
		for h := range m {
			selected[h] = true
		}
	}
	for _, p := range with {
		m, err := a.match(p)
		if err != nil {
			return nil, err
		}
		for h := range selected {
			if !m[h] {
				delete(selected, h)
			}
		}
	}
	for _, p := range without {
		m, err := a.match(p)
		if err != nil {
			return nil, err
		}
		for h := range m {
			delete(selected, h)
		}
	}
	if len(selected) == 0 {
		return nil, fmt.Errorf("--limit %q selects no host of %s", limit, a.file)
	}
	return selected, nil
}

// match returns the hosts of the groups and the hosts that a name means.
func (a *AnsibleInventory) match(p string) (map[string]bool, error) {
	found, known := map[string]bool{}, false
	for _, g := range a.groups {
		if glob(p, g.name) {
			known = true
			a.members(g, found)
		}
	}
	for _, h := range a.order {
		if glob(p, h.name) {
			known, found[h.name] = true, true
		}
	}
	if !known {
		return nil, fmt.Errorf("--limit: %s has no host and no group %q; its groups: %s", a.file, p, strings.Join(a.Groups(), " "))
	}
	return found, nil
}

func (a *AnsibleInventory) members(g *ansibleGroup, into map[string]bool) {
	if g.name == "all" {
		for _, h := range a.order {
			into[h.name] = true
		}
		return
	}
	for h := range g.hosts {
		if g.name != "ungrouped" || len(a.memberships(a.hosts[h])) == 1 && a.memberships(a.hosts[h])[0].name == "ungrouped" {
			into[h] = true
		}
	}
	for _, c := range g.children {
		a.members(a.groups[c], into)
	}
}

// The variables that are looked at. Where several mean the same, all are read.
var (
	hostVars     = []string{"ansible_host", "ansible_ssh_host"}
	portVars     = []string{"ansible_port", "ansible_ssh_port"}
	userVars     = []string{"ansible_user", "ansible_ssh_user"}
	keyVars      = []string{"ansible_ssh_private_key_file", "ansible_private_key_file"}
	refusedVars  = []string{"ansible_password", "ansible_ssh_pass", "ansible_ssh_password"}
	argumentVars = []string{"ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_executable", "ansible_ssh_host_key_checking", "ansible_host_key_checking", "ansible_paramiko_proxy_command"}
)

// resolve says how a host is reached.
func (a *AnsibleInventory) resolve(h *ansibleHost) (FleetHost, problems) {
	var bad problems
	vars := map[string]ansibleVar{}
	apply := func(m map[string]ansibleVar) {
		for k, v := range m {
			vars[k] = v
		}
	}
	applyFiles := func(dir, name string) {
		for _, f := range a.varsFiles(dir, name, &bad) {
			apply(f)
		}
	}
	groups := a.memberships(h)
	// The order is ansible's: the file's groups, group_vars, the file's host,
	// host_vars.
	apply(a.groups["all"].vars)
	for _, g := range groups {
		apply(g.vars)
	}
	applyFiles("group_vars", "all")
	for _, g := range groups {
		applyFiles("group_vars", g.name)
	}
	apply(h.vars)
	applyFiles("host_vars", h.name)

	// one returns the value of the first of several names that mean the same.
	one := func(names []string) (ansibleVar, bool) {
		var got ansibleVar
		var by string
		for _, n := range names {
			v, ok := vars[n]
			if !ok {
				continue
			}
			if v.why != "" {
				bad.add(v.at, "host %s: %s cannot be used: %s", h.name, n, v.why)
				return v, false
			}
			if by != "" && v.text != got.text {
				bad.add(v.at, "host %s: %s is %q, but %s is %q", h.name, n, v.text, by, got.text)
				return v, false
			}
			got, by = v, n
		}
		return got, by != "" && got.text != ""
	}
	f := FleetHost{Name: h.name, Source: fmt.Sprintf("%s:%d", h.at.file, h.at.line)}
	for _, g := range groups {
		if g.name != "ungrouped" {
			f.Groups = append(f.Groups, g.name)
		}
	}
	slices.Sort(f.Groups)
	if v, ok := one([]string{"ansible_connection"}); ok {
		switch v.text {
		case "ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh":
		default:
			bad.add(v.at, "host %s is reached by ansible_connection %s, not by ssh", h.name, v.text)
		}
	}
	for _, n := range refusedVars {
		if v, ok := vars[n]; ok {
			bad.add(v.at, "host %s has %s; passwords are not taken from an inventory: use a key or an agent", h.name, n)
		}
	}
	for _, n := range argumentVars {
		if v, ok := vars[n]; ok && (v.why != "" || v.text != "") {
			bad.add(v.at, "host %s has %s, which is not supported; write it into ssh_config", h.name, n)
		}
	}
	address := h.name
	where := h.at
	if v, ok := one(hostVars); ok {
		address, where = v.text, v.at
	}
	if err := checkHost(address); err != nil {
		bad.add(where, "host %s: %v", h.name, err)
	}
	f.Target = address
	if v, ok := one(portVars); ok {
		if err := checkPort(v.text); err != nil {
			bad.add(v.at, "host %s: %v", h.name, err)
		}
		f.Target = net.JoinHostPort(address, v.text)
	}
	if v, ok := one(userVars); ok {
		if err := checkUser(v.text); err != nil {
			bad.add(v.at, "host %s: %v", h.name, err)
		}
		f.Target = v.text + "@" + f.Target
	}
	if v, ok := one(keyVars); ok {
		f.Identity = v.text
	}
	return f, bad
}

// varsFiles returns the variables of the files that dir holds for a name:
// NAME, NAME.yml, NAME.yaml or NAME.json, the first that exists, and of a
// directory all files in it, sorted.
func (a *AnsibleInventory) varsFiles(dir, name string, bad *problems) []map[string]ansibleVar {
	if strings.ContainsAny(name, `/\`) {
		return nil
	}
	dir = filepath.Join(filepath.Dir(a.file), dir)
	there, ok := a.dirs[dir]
	if !ok {
		info, err := os.Stat(dir)
		there = err == nil && info.IsDir()
		a.dirs[dir] = there
	}
	if !there {
		return nil
	}
	base := filepath.Join(dir, name)
	for _, ext := range []string{"", ".yml", ".yaml", ".json"} {
		info, err := os.Stat(base + ext)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			*bad = append(*bad, err.Error())
			return nil
		}
		files := []string{base + ext}
		if info.IsDir() {
			files = varsDir(base+ext, bad)
		}
		var out []map[string]ansibleVar
		for _, f := range files {
			v, ok := a.files[f]
			if !ok {
				v = readVars(f)
				a.files[f] = v
			}
			*bad = append(*bad, v.bad...)
			out = append(out, v.vars)
		}
		return out
	}
	return nil
}

// varsDir lists the files of a directory of variables.
func varsDir(dir string, bad *problems) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		*bad = append(*bad, err.Error())
	}
	var out []string
	for _, e := range list {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch ext := filepath.Ext(name); {
		case err != nil:
			*bad = append(*bad, err.Error())
		case info.IsDir() && ext == "":
			out = append(out, varsDir(path, bad)...)
		case !info.IsDir() && slices.Contains([]string{"", ".yml", ".yaml", ".json"}, ext):
			out = append(out, path)
		}
	}
	return out
}

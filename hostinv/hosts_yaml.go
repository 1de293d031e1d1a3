package hostinv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// yaml11 are plain scalars that are texts for YAML 1.2 and truth values or
// numbers for Ansible's YAML 1.1.
var yaml11 = regexp.MustCompile(`^((?i:yes|no|on|off|true|false)|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?0[0-7_]+)$`)

func isYAML11(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0 && yaml11.MatchString(n.Value)
}

// maxYAMLDepth bounds groups within groups.
const maxYAMLDepth = 100

// readYAML returns the mapping that a file consists of, or nil when it is
// empty or cannot be read.
func readYAML(file string, src []byte, bad *problems) *yaml.Node {
	at := position{file, 1, 1}
	l, err := yaml.NewLoader(bytes.NewReader(src))
	if err != nil {
		bad.add(at, "not YAML: %v", err)
		return nil
	}
	var doc, more yaml.Node
	if err := l.Load(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil
	} else if err != nil {
		bad.add(yamlError(file, err))
		return nil
	}
	switch err := l.Load(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		bad.add(yamlError(file, err))
		return nil
	default:
		bad.add(position{file, more.Line, more.Column}, "a second document begins here")
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		bad.add(position{file, root.Line, root.Column}, "this is %s, not a mapping", kindOf(root))
		return nil
	}
	return root
}

// yamlError gives the arguments of problems.add.
func yamlError(file string, err error) (position, string, any) {
	at := position{file, 1, 1}
	text := err.Error()
	var le *yaml.LoadError
	if errors.As(err, &le) {
		at.line, at.col = max(1, le.Mark.Line), max(1, le.Mark.Column)
		text = le.Message
	}
	return at, "not YAML: %s", text
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return fmt.Sprintf("the value %q", clip(n.Value, 40))
}

// pairs calls f for every key of a mapping. Keys that stand twice, keys that
// are no text and merges are problems.
func (a *AnsibleInventory) pairs(n *yaml.Node, f func(key string, at position, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := position{a.file, k.Line, k.Column}
		switch {
		case k.Kind != yaml.ScalarNode || k.Tag == "!!null":
			a.bad.add(at, "a key must be a text, not %s", kindOf(k))
		case k.Tag == "!!merge":
			a.bad.add(at, "merging by << is not supported")
		case k.Tag != "!!str" || isYAML11(k):
			a.bad.add(at, "the key %s is not a text; put it in quotes", k.Value)
		case seen[k.Value] != 0:
			a.bad.add(at, "%s stands in line %d already", k.Value, seen[k.Value])
		default:
			seen[k.Value] = k.Line
			for v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			f(k.Value, at, v)
		}
	}
}

// section returns the mapping below a key; nothing or a single text is one
// too, as in ansible.
func (a *AnsibleInventory) section(what string, at position, n *yaml.Node) *yaml.Node {
	switch {
	case n.Kind == yaml.MappingNode:
		return n
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return &yaml.Node{Kind: yaml.MappingNode}
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{n, {Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}}}
	}
	a.bad.add(at, "%s must be a mapping, not %s", what, kindOf(n))
	return &yaml.Node{Kind: yaml.MappingNode}
}

// parseYAML reads the format of ansible's yaml plugin.
func (a *AnsibleInventory) parseYAML(src []byte) {
	root := readYAML(a.file, src, &a.bad)
	if root == nil {
		if a.bad == nil {
			a.bad.add(position{a.file, 1, 1}, "the file is empty")
		}
		return
	}
	a.pairs(root, func(name string, at position, v *yaml.Node) {
		switch name {
		case "plugin":
			a.bad.add(at, "this is the configuration of an inventory plugin, which asks a service for the hosts; "+
				"run ansible-inventory --list --yaml --output FILE and give that file")
		case "_meta":
			a.bad.add(at, "this is the output of ansible-inventory --list; add --yaml to it")
		default:
			a.yamlGroup(name, at, v, 0)
		}
	})
}

func (a *AnsibleInventory) yamlGroup(name string, at position, n *yaml.Node, depth int) {
	if name == "" || strings.ContainsAny(name, " \t:]") {
		a.bad.add(at, "%q is not the name of a group", name)
		return
	}
	if depth > maxYAMLDepth {
		a.bad.add(at, "groups stand in one another more than %d deep", maxYAMLDepth)
		return
	}
	g := a.group(name, at)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		a.bad.add(at, "group %s must be a mapping, not %s", name, kindOf(n))
		return
	}
	a.pairs(n, func(key string, at position, v *yaml.Node) {
		switch key {
		case "vars":
			a.pairs(a.section("vars of "+name, at, v), func(k string, at position, v *yaml.Node) {
				a.set(g, k, yamlVar(a.file, v))
			})
		case "children":
			a.pairs(a.section("children of "+name, at, v), func(k string, at position, v *yaml.Node) {
				a.yamlGroup(k, at, v, depth+1)
				a.child(name, k, at)
			})
		case "hosts":
			a.pairs(a.section("hosts of "+name, at, v), func(k string, at position, v *yaml.Node) {
				names, port, err := hostPattern(k)
				if err != nil {
					a.bad.add(at, "%v", err)
					return
				}
				vars := map[string]ansibleVar{}
				if v.Kind != yaml.MappingNode && (v.Kind != yaml.ScalarNode || v.Tag != "!!null") {
					a.bad.add(at, "the variables of host %s must be a mapping, not %s", k, kindOf(v))
					return
				}
				if v.Kind == yaml.MappingNode {
					a.pairs(v, func(key string, at position, v *yaml.Node) { vars[key] = yamlVar(a.file, v) })
				}
				a.addHosts(names, port, name, vars, at)
			})
		default:
			a.bad.add(at, "group %s has %s; known are hosts, children and vars", name, key)
		}
	})
}

// yamlVar takes a scalar. Whatever else stands there is only a problem if the
// variable is needed.
func yamlVar(file string, n *yaml.Node) ansibleVar {
	v := ansibleVar{text: n.Value, at: position{file, n.Line, n.Column}}
	switch {
	case n.Tag == "!vault":
		v.text, v.why = "", "it is vaulted"
	case n.Kind != yaml.ScalarNode:
		v.text, v.why = "", "it is "+kindOf(n)
	case n.Tag == "!!null":
		v.text = ""
	case isYAML11(n):
		v.why = fmt.Sprintf("%s is not a text for Ansible; put it in quotes", n.Value)
	case n.Tag == "!!str":
	case n.Tag == "!!int":
		if strings.Trim(n.Value, "0123456789") != "" || len(n.Value) > 1 && n.Value[0] == '0' {
			v.why = fmt.Sprintf("%s is a number in another notation; put it in quotes", n.Value)
		}
	default:
		v.why = fmt.Sprintf("%s is not a text; put it in quotes", n.Value)
	}
	return templated(v)
}

// readVars reads a file of group_vars or host_vars.
func readVars(file string) varsFile {
	var out varsFile
	src, err := readLimited(file)
	if err != nil {
		out.bad = append(out.bad, err.Error())
		return out
	}
	if isVault(src) {
		out.bad.add(position{file, 1, 1}, "the file is vaulted and may say how hosts are reached; "+
			"decrypt it with ansible-vault view, or give the hosts as a list")
		return out
	}
	root := readYAML(file, src, &out.bad)
	if root == nil {
		return out
	}
	out.vars = map[string]ansibleVar{}
	inv := &AnsibleInventory{file: file}
	inv.pairs(root, func(key string, _ position, v *yaml.Node) { out.vars[key] = yamlVar(file, v) })
	out.bad = append(out.bad, inv.bad...)
	return out
}

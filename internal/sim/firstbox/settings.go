package firstbox

import (
	"slices"
	"strings"
)

// The directories of the firstbox.
const (
	settingsDir  = "/pitrix/conf/settings"
	nodesDir     = "/pitrix/conf/nodes"
	variablesDir = "/pitrix/conf/variables"
	repoDir      = "/pitrix/repo/indep"
)

// values are the variables of a settings file after it was sourced.
type values map[string]string

// source does to a settings file what bash does to it after empty_setting: the
// last assignment wins, quotes of both kinds, a quote left open swallows the
// lines up to the next one. What bash would execute is returned in odd.
func source(text string) (v values, odd []string) {
	v = values{}
	for len(text) > 0 {
		line, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimLeft(line, " \t")
		text = rest
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(trimmed, "=")
		if !ok || !isName(key) {
			odd = append(odd, trimmed)
			continue
		}
		var b strings.Builder
		for i := 0; i < len(value); i++ {
			switch c := value[i]; c {
			case '"', '\'':
				end := strings.IndexByte(value[i+1:], c)
				for end < 0 && text != "" {
					line, rest, _ := strings.Cut(text, "\n")
					value += "\n" + line
					text = rest
					end = strings.IndexByte(value[i+1:], c)
				}
				if end < 0 {
					odd = append(odd, trimmed)
					b.WriteString(value[i+1:])
					i = len(value)
					break
				}
				inside := value[i+1 : i+1+end]
				if c == '"' && strings.ContainsAny(inside, "$`") {
					odd = append(odd, trimmed)
				}
				b.WriteString(inside)
				i += end + 1
			case ' ', '\t', ';':
				if after := strings.TrimSpace(value[i:]); after != "" && after[0] != '#' {
					odd = append(odd, trimmed)
				}
				i = len(value)
			case '$', '`':
				odd = append(odd, trimmed)
			default:
				b.WriteByte(c)
			}
		}
		v[key] = b.String()
	}
	return v, odd
}

func isName(s string) bool {
	for i, c := range s {
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// fleet reads every settings file, by file name.
func (s *Site) fleet() (map[string]values, []string) {
	entries, _ := s.firstbox.Host.ReadDir(settingsDir)
	all, names := map[string]values{}, []string{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") { // as settings/* in bash
			continue
		}
		if v, ok := s.setting(e.Name()); ok {
			all[e.Name()] = v
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return all, names
}

// setting sources one settings file.
func (s *Site) setting(name string) (values, bool) {
	if strings.ContainsAny(name, "/") || name == "" {
		return nil, false
	}
	data, err := s.firstbox.Host.ReadFile(settingsDir + "/" + name)
	if err != nil {
		return nil, false
	}
	v, odd := source(string(data))
	for _, line := range odd {
		s.firstbox.Host.Refuse("source "+settingsDir+"/"+name, line)
	}
	return v, true
}

// kinds are the node lists that gen_node_list writes, with their rules.
var kinds = []struct {
	name string
	has  func(values) bool
}{
	{"all", func(values) bool { return true }},
	{"phy", func(v values) bool { return !isVM(v) }},
	{"vm", isVM},
	{"ks", isKS},
	{"ks-phy", func(v values) bool { return isKS(v) && !isVM(v) }},
	{"ks-vm", func(v values) bool { return isKS(v) && !isVM(v) && v["bm_ipmi_network_interface"] == "" }},
	{"ks-bm", func(v values) bool { return isKS(v) && !isVM(v) && v["bm_ipmi_network_interface"] != "" }},
	{"vg", isVG},
	{"vgateway", isVG},
	{"hyper", isHyper},
	{"hyper-local", func(v values) bool { return isHyper(v) && v["container_mode"] == "local" }},
	{"hyper-pair", func(v values) bool { return isHyper(v) && v["container_mode"] == "pair" }},
	{"hyper-repl", func(v values) bool { return isHyper(v) && v["container_mode"] == "repl" }},
	{"hyper-sanc", func(v values) bool { return isHyper(v) && v["container_mode"] == "sanc" }},
	{"non-ks", func(v values) bool { return !isKS(v) }},
	{"non-vg", func(v values) bool { return !isVG(v) }},
	{"non-vg-phy", func(v values) bool { return !isVG(v) && !isVM(v) }},
	{"non-hyper", func(v values) bool { return !isHyper(v) }},
	{"non-hyper-phy", func(v values) bool { return !isHyper(v) && !isVM(v) }},
	{"ntp", func(values) bool { return false }},
	{"non-ntp", func(values) bool { return true }},
	{"dns", func(v values) bool {
		return strings.Contains(v["role"], "dnsmaster") || strings.Contains(v["role"], "dnsslave")
	}},
	kind("seed"), kind("vbr"), kind("snapshot"), kind("proxy"), kind("dnsmaster"), kind("webservice"), kind("zookeeper"),
	kind("zoocassa"), kind("pgpool"), kind("pgmaster"), kind("pgalone"), kind("pgslave"), kind("pgserver"), kind("bm"),
	kind("vdi"), kind("eipctl"), kind("boss"),
}

func kind(name string) struct {
	name string
	has  func(values) bool
} {
	return struct {
		name string
		has  func(values) bool
	}{name, func(v values) bool { return strings.Contains(v["role"], name) }}
}

func isVM(v values) bool    { return v["physical_host_network_interface"] != "" }
func isVG(v values) bool    { return strings.Contains(v["role"], "vgateway") }
func isHyper(v values) bool { return v["feature_hypernode"] == "on" }
func isKS(v values) bool    { return !isHyper(v) && !isVG(v) }

// scope resolves the <nodes> of a script: a group file wins over a node. bad is
// the first item that is neither.
func (s *Site) scope(words string) (nodes []string, bad string) {
	for _, item := range strings.FieldsFunc(words, func(r rune) bool { return r == ',' || r == ' ' }) {
		if data, err := s.firstbox.Host.ReadFile(nodesDir + "/" + item); err == nil {
			inside, _, _ := strings.Cut(string(data), ")")
			_, inside, _ = strings.Cut(inside, "(")
			for _, n := range strings.Fields(inside) {
				if _, ok := s.setting(n); !ok {
					return nil, n
				}
				nodes = append(nodes, n)
			}
			continue
		}
		if _, ok := s.setting(item); !ok {
			return nil, item
		}
		nodes = append(nodes, item)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes), ""
}

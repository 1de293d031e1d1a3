package upgrade

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/upgradectl/upgradectl/ecs"
)

// YAML writes the draft as a commented upgrade.yaml: comments in lang, zh or
// else English. ParseConfig takes it as it stands. It is pure.
func (s *Surroundings) YAML(lang string, now time.Time) ([]byte, error) {
	w := &draftWriter{s: s, lang: lang}
	root := w.document(Detect(s.Config, s.Facts, now), now)
	var b bytes.Buffer
	d, err := yaml.NewDumper(&b, yaml.WithIndent(2), yaml.WithCompactSeqIndent(false), yaml.WithLineWidth(-1), yaml.WithUnicode(true))
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	if err := d.Dump(root); err != nil {
		return nil, fmt.Errorf("internal error: cannot write the configuration: %w", err)
	}
	if err := d.Close(); err != nil {
		return nil, fmt.Errorf("internal error: cannot write the configuration: %w", err)
	}
	return b.Bytes(), nil
}

type draftWriter struct {
	s    *Surroundings
	lang string
}

func (w *draftWriter) t(en, zh string) string { return Note{en, zh}.In(w.lang) }

// block is a mapping under construction.
type block struct{ n *yaml.Node }

func newBlock() block { return block{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }

func (b block) empty() bool { return len(b.n.Content) == 0 }

// add appends a key; comment lines stand above it.
func (b block) add(key string, v *yaml.Node, comment ...string) {
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, HeadComment: comments(comment)}
	b.n.Content = append(b.n.Content, k, v)
}

// text appends a key if there is something to say.
func (b block) text(key, v string, comment ...string) {
	if v != "" {
		b.add(key, str(v), comment...)
	}
}

// comments makes lines of comments of texts that may have several lines and
// whatever characters hosts use.
func comments(lines []string) string {
	var out []string
	for _, l := range lines {
		for part := range strings.SplitSeq(l, "\n") {
			part = strings.TrimRight(strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff {
					return ' '
				}
				return r
			}, strings.ToValidUTF8(part, "?")), " ")
			out = append(out, strings.TrimRight("# "+part, " "))
		}
	}
	return strings.Join(out, "\n")
}

func str(v string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v}
}

func boolean(v bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
}

// oneRow is a list on one line.
func oneRow(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle, Content: items}
}

func strs(words []string) *yaml.Node {
	n := oneRow()
	for _, w := range words {
		n.Content = append(n.Content, str(w))
	}
	return n
}

func ints(all []int) *yaml.Node {
	n := oneRow()
	for _, i := range all {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(i)})
	}
	return n
}

// document builds the file.
func (w *draftWriter) document(findings []Finding, now time.Time) *yaml.Node {
	s, c, f := w.s, w.s.Config, w.s.Facts
	root := newBlock()
	head := []string{
		fmt.Sprintf(w.t("Written by upgradectl init at %s: what was found around %s (%s, %s; %s, kernel %s).", "由 upgradectl init 于 %s 生成：%s（%s，%s；%s，内核 %s）及其周边的现状。"),
			now.UTC().Format(time.RFC3339), orWord(f.Instance.Name, c.Host), c.Instance, c.Address, f.Boot.Release, f.Boot.Kernel),
		w.t("Go through the lines with TODO, then: upgradectl validate, upgradectl plan. Every key: docs/config.md", "请先处理带 TODO 的行，然后执行：upgradectl validate、upgradectl plan。各项说明见 docs/config.md"),
	}
	for _, n := range s.Todo {
		head = append(head, "TODO: "+n.In(w.lang))
	}
	for _, x := range findings {
		if x.open() && !acceptable(x.ID) {
			head = append(head, w.t("TODO, or there will be no plan: ", "TODO，否则无法制定计划：")+x.Evidence+fmt.Sprintf(" [%s]", x.ID))
		}
	}
	root.add("version", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"}, head...)
	root.add("procedure", str(ProcedureTransition))
	root.text("host", c.Host)
	root.text("instance", c.Instance)
	root.text("address", c.Address)

	b := newBlock()
	b.text("region", orWord(c.Cloud.Region, f.Instance.Region))
	b.text("endpoint", c.Cloud.Endpoint)
	b.text("profile", c.Cloud.Profile)
	if !b.empty() {
		root.add("cloud", b.n)
	}

	b = newBlock()
	b.text("config", c.SSH.Config)
	if len(c.SSH.KnownHosts) > 0 {
		b.add("known_hosts", strs(c.SSH.KnownHosts))
	}
	if c.SSH.Sudo {
		b.add("sudo", boolean(true))
	}
	b.text("sudo_password_file", c.SSH.SudoPasswordFile)
	b.text("password_file", c.SSH.PasswordFile)
	b.text("passphrase_file", c.SSH.PassphraseFile)
	if c.SSH.AllowSHA1 {
		b.add("allow_sha1", boolean(true))
	}
	if !b.empty() {
		root.add("ssh", b.n)
	}

	root.add("nginx", w.nginx(), w.nginxComments()...)
	root.add("balancers", str(BalancersAuto), w.balancerComments()...)
	root.add("services", w.services(), w.t("What has to run afterwards as it did before.", "升级后必须照原样运行的服务。"))

	b = newBlock()
	name := transitionName(f.Instance.Name, c.Host)
	b.text("name", name)
	b.add("auto_release", str("24h"), w.t("the cloud deletes the transition host after so long while no traffic may reach it", "没有流量可能到达时，过渡机到期由云端自动释放"))
	b.add("quarantine", w.quarantine().n, w.heldComments()...)
	root.add("transition", b.n)

	b = newBlock()
	b.add("strategy", str(StrategyYumUpdate))
	docker := DockerUpgrade
	if c.OS.Docker == DockerKeep {
		docker = DockerKeep
	}
	b.add("docker", str(docker), w.t("upgrade: replace Docker by docker-ce as section 3.5 does; keep: leave it", "upgrade：按 3.5 节换成 docker-ce；keep：保持不变"))
	b.add("reboot", boolean(true))
	root.add("os", b.n)

	b = newBlock()
	b.add("check", str(PathsAuto), w.pathComments()...)
	root.add("paths", b.n)

	root.add("accept", oneRow(), w.acceptComments(findings)...)
	root.add("gates", oneRow(section1("4.1"), section1("4.4"), section1("5.3")), w.t("before these sections a person is asked", "执行到这些章节前须人工确认"))
	return root.n
}

// quarantine is the block of what a person may change of what is held back.
func (w *draftWriter) quarantine() block {
	b := newBlock()
	b.add("hold", strs(nil), w.t("further units that must not run on the copy", "过渡机上另外不得运行的单元"))
	b.add("allow", strs(nil), w.t("units that may run on both", "允许在两台主机上同时运行的单元"))
	return b
}

// heldComments say what the first boot of the copy holds back by itself, and
// what it cannot.
func (w *draftWriter) heldComments() []string {
	q := PlanQuarantine(w.s.Facts.Inventory, w.s.Config)
	out := []string{w.t("The copy boots with everything enabled that production has. Held back by itself:", "过渡机启动时带着生产机启用的一切。以下单元将自动扣留：")}
	for _, u := range q.Units {
		out = append(out, "  "+u.Unit+": "+u.Reason)
	}
	if len(q.Units) == 0 {
		out = []string{w.t("The copy boots with everything enabled that production has; nothing was found to hold back.", "过渡机启动时带着生产机启用的一切；没有发现需要扣留的单元。")}
	}
	for _, k := range q.Known {
		out = append(out, "TODO: "+k)
	}
	cron, _ := ListJobs(w.s.Facts.Inventory)
	for _, l := range cron {
		out = append(out, "  "+l.Source+": "+l.Text)
	}
	return out
}

// section1 is a section as people write it; to YAML it is a float.
func section1(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: s}
}

// transitionName makes a name for the transition host of the instance's, "" to
// leave it to the default.
func transitionName(instance, host string) string {
	if name := instance + "-transition"; instance != "" && nameCheck(name) == "" && instance != targetHost(host) {
		return name
	}
	return ""
}

func (w *draftWriter) nginx() *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, h := range w.s.Config.Nginx {
		b := newBlock()
		b.text("host", h.Host)
		if h.Conf != "" && h.Conf != "/etc/nginx/nginx.conf" {
			b.text("conf", h.Conf)
		}
		n.Content = append(n.Content, b.n)
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

func (w *draftWriter) nginxComments() []string {
	out := []string{w.t("Hosts whose nginx leads to it. Looked at:", "nginx 指向该主机的各主机。已查看：")}
	for _, l := range w.s.Looked {
		out = append(out, fmt.Sprintf("  %s (%s): %s", l.Host, l.Why, l.Result))
	}
	for _, l := range leads(w.s.Facts) {
		if !l.balancer {
			out = append(out, fmt.Sprintf("  %s → %d", l.text, l.port))
		}
	}
	for _, d := range w.s.Domains {
		out = append(out, fmt.Sprintf("  server_name %s (%s) → %d", d.Name, d.Nginx, d.Port))
	}
	if len(out) == 1 {
		return []string{w.t("TODO: hosts whose nginx leads to it; none was found", "TODO：nginx 指向该主机的各主机；没有找到")}
	}
	return out
}

func (w *draftWriter) balancerComments() []string {
	out := []string{w.t("auto: look for it in every group of the region. Found:", "auto：在本地域所有服务器组中查找。已找到：")}
	for _, m := range w.s.Facts.Memberships {
		for _, l := range m.Listeners {
			out = append(out, fmt.Sprintf("  %s, %s → %d, weight %d of %d members", groupLabel(m), l, max(m.Backend.Port, l.BackendPort), m.Backend.Weight, len(m.Backends)))
		}
		if len(m.Listeners) == 0 {
			out = append(out, fmt.Sprintf("  %s, weight %d, %s", groupLabel(m), m.Backend.Weight, w.t("no listener", "无监听")))
		}
	}
	if len(out) == 1 {
		return []string{w.t("auto: look for it in every group of the region; none has it now", "auto：在本地域所有服务器组中查找；目前没有")}
	}
	return out
}

func (w *draftWriter) services() *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, p := range ListProjects(w.s).Projects {
		i := slices.IndexFunc(w.s.Config.Services, func(s Service) bool { return s.Name == p.Name })
		sv := w.s.Config.Services[i]
		b := newBlock()
		b.text("name", sv.Name)
		b.text("kind", sv.Kind)
		b.text("dir", sv.Dir, jar(p)...)
		b.text("user", sv.User)
		b.text("program", sv.Program)
		b.text("match", sv.Match)
		if sv.Kind == KindJava || sv.Kind == KindProcess {
			b.text("start", sv.Start)
		}
		b.text("container", sv.Container)
		b.text("unit", sv.Unit)
		if len(sv.Ports) > 0 {
			says := w.portComments(p)
			if sv.Health == "" {
				// Above the key: a comment below the last one would stand in the next item.
				says = append(says, w.t("TODO: health: /path of an HTTP GET; without it an open port is the proof", "TODO：health: /路径（HTTP GET）；不写则只以端口可连为准"))
			}
			b.add("ports", ints(sv.Ports), says...)
		}
		b.text("health", sv.Health)
		n.Content = append(n.Content, b.n)
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

func jar(p Project) []string {
	if p.Jar == "" {
		return nil
	}
	return []string{p.Jar}
}

// portComments say what leads to each port of a project.
func (w *draftWriter) portComments(p Project) (out []string) {
	for _, pp := range p.Ports {
		for _, l := range slices.Concat(pp.Balancers, pp.Nginx) {
			out = append(out, fmt.Sprintf("%d ← %s", pp.Port, l))
		}
		for _, ip := range pp.Peers {
			out = append(out, fmt.Sprintf("%d ← %s %s", pp.Port, ip, w.t("(past nginx and the balancers)", "（不经 nginx 与负载均衡）")))
		}
		if !pp.Leads() {
			out = append(out, fmt.Sprintf("%d: %s", pp.Port, w.t("nothing leads there", "没有任何入口指向该端口")))
		}
	}
	return out
}

func (w *draftWriter) pathComments() []string {
	out := []string{w.t("auto: ask the cloud for ways past the balancers and for allow lists that hold the address.", "auto：向云端查询绕过负载均衡的入口，以及含有该地址的白名单。")}
	for _, p := range w.s.Facts.Paths {
		out = append(out, "  "+p.String())
	}
	if len(w.s.Trust) > 0 {
		out = append(out, w.t("TODO: who may let the host in by its address? The transition host has another. Connected now:", "TODO：谁按地址放行该主机？过渡机地址不同。当前连接："))
		for _, p := range w.s.Trust {
			out = append(out, fmt.Sprintf("  %s, %d", p, p.Count))
		}
	}
	var lists []string
	for _, t := range w.s.Facts.Trust {
		if t.Kind != ecs.TrustNotChecked {
			lists = append(lists, "  "+t.Evidence)
		}
	}
	if len(lists) > 0 {
		out = append(out, w.t("TODO: these let production in by its address; add the block, or 3.4-trust stops until the transition host's address is in:", "TODO：以下白名单按地址放行生产机；请加入整个网段，否则 3.4-trust 会停下，直到放行过渡机地址："))
		out = append(out, lists...)
	}
	return out
}

// acceptComments list what would refuse a plan as things are, ready to be taken
// on, and the warnings.
func (w *draftWriter) acceptComments(findings []Finding) []string {
	out := []string{w.t("Findings that a person takes on (docs/preflight.md).", "经人工判断可接受的发现项（见 docs/preflight.md）。")}
	for _, f := range findings {
		if f.open() && acceptable(f.ID) {
			out = append(out, fmt.Sprintf("TODO: - %s  # %s", quoteYAML(f.entry()), f.Evidence))
		}
	}
	for _, f := range findings {
		if f.Severity == FindingWarning {
			out = append(out, fmt.Sprintf("%s %s: %s", w.t("warning", "警告"), f.entry(), f.Evidence))
		}
	}
	return out
}

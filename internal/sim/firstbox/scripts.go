package firstbox

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const stamp = "2006-01-02 15:04:05"

// dashes is the line between the parts of a header.
var dashes = strings.Repeat("-", 48)

// promptLimit bounds a script that asks and gets no answer: the real one asks
// for ever and burns a CPU; here somebody finds it after this time and kills it.
const promptLimit = 10 * time.Minute

// confirm asks as the scripts do. Without input it spins until it is killed.
func (s *Site) confirm(ctx context.Context, p *host.Proc, question string) (yes bool, status int) {
	in := bufio.NewScanner(p.Stdin)
	for in.Scan() {
		switch strings.ToLower(strings.TrimSpace(in.Text())) {
		case "y", "yes":
			return true, 0
		case "n", "no":
			return false, 0
		}
	}
	t := time.NewTimer(time.Duration(float64(promptLimit) / s.opt.Speed))
	defer t.Stop()
	s.hurt("%s asks %q with nobody to answer, and never ends", p.Args[0], question)
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return false, 137
}

// logs appends to a file of the firstbox.
func (s *Site) logs(name, text string) {
	s.log.Lock()
	defer s.log.Unlock()
	_ = s.firstbox.Host.Append(name, []byte(text)) // the disk is ours
}

// pingSettings asks the address that the settings of a node name, twice.
func (s *Site) pingSettings(v values) bool {
	ip, err := netip.ParseAddr(v["mgmt_network_address"])
	for range 2 {
		if err == nil && s.ping(s.firstbox, ip) {
			return true
		}
	}
	return false
}

// splitForce takes -f away, where it is the first argument.
func splitForce(args []string) (force bool, rest []string) {
	if len(args) > 0 && (args[0] == "-f" || args[0] == "--force-yes") {
		return true, args[1:]
	}
	return false, args
}

// cmdExecNodes is /pitrix/upgrade/exec_nodes.sh. What a remote command ended
// with is lost: its status is that of tee.
func (s *Site) cmdExecNodes(ctx context.Context, p *host.Proc) int {
	usage := func() int {
		fmt.Fprintf(p.Stdout, "Usage: exec_nodes.sh [-f|--force-yes] <nodes> <cmd>\n")
		return 1
	}
	if len(p.Args) > 1 && (p.Args[1] == "-h" || p.Args[1] == "--help") {
		return usage()
	}
	force, args := splitForce(p.Args[1:])
	if len(args) < 2 {
		return usage()
	}
	command := strings.Join(args[1:], " ")
	nodes, bad := s.scope(args[0])
	if bad != "" {
		fmt.Fprintf(p.Stdout, "Error: The node [%s] is invalid, can not find it in /pitrix/conf/settings!\n", bad)
		return 1
	}
	if len(nodes) == 0 {
		fmt.Fprintf(p.Stdout, "Warning: the nodes %s is empty, please check it!\n", args[0])
		return 0
	}
	fmt.Fprintf(p.Stdout, "%s\nTARGET NODES:\n    %s\n%s\nTARGET COMMAND:\n    %s\n%s\n", dashes, strings.Join(nodes, ","), dashes,
		strings.NewReplacer(`\t`, "\t", `\n`, "\n", `\\`, `\`).Replace(command), dashes)
	if !force {
		yes, status := s.confirm(ctx, p, "Are you sure to exec the nodes [y/N]?")
		if !yes {
			return status
		}
	}
	// The line goes through parallel --colsep '#' and is split again, unquoted.
	command, _, _ = strings.Cut(command, "#")
	command = strings.Join(s.words(command), " ")
	const all = "/pitrix/log/exec_nodes/exec_nodes.log"
	s.logs(all, fmt.Sprintf("\n%s Exec nodes [%s] with [%s]\n", time.Now().Format(stamp), strings.Join(nodes, ","), command))
	var mu sync.Mutex // one block at a time
	var wg sync.WaitGroup
	unreachable := false
	slots := make(chan struct{}, 20)
	for _, name := range nodes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, _ := s.setting(name)
			var block string
			if !s.pingSettings(v) {
				block = fmt.Sprintf("Error: The node [%s] is unreachable. Please check the network!\n", name)
			} else {
				_, out, far := s.remote(ctx, s.firstbox, name, command)
				if far != nil {
					s.noteStranger(name, far)
				}
				block = fmt.Sprintf("Execing [%s] with [%s] ...\n%s\n", name, command, out)
			}
			s.logs("/pitrix/log/exec_nodes/exec_"+name+".log", fmt.Sprintf("\n%s %s%s OK.\n", time.Now().Format(stamp), block, time.Now().Format(stamp)))
			s.logs(all, block)
			mu.Lock()
			defer mu.Unlock()
			unreachable = unreachable || strings.HasPrefix(block, "Error: The node")
			_, _ = p.Stdout.Write([]byte(block))
		})
	}
	wg.Wait()
	if unreachable {
		return 1
	}
	fmt.Fprintln(p.Stdout, "Done.")
	s.logs(all, time.Now().Format(stamp)+" Done.\n")
	return 0
}

// noteStranger remembers that a script worked on another machine than the one
// whose settings it read.
func (s *Site) noteStranger(name string, far *Machine) {
	if far.Name != name {
		s.hurt("a script logged in to %s as %s", far.label, name)
	}
}

// words splits a command as an unquoted expansion does: blanks collapse, and a
// pattern that matches files of the firstbox becomes their names.
func (s *Site) words(command string) []string {
	var out []string
	for _, w := range strings.Fields(command) {
		if strings.ContainsAny(w, "*?[") && strings.HasPrefix(w, "/") {
			if found := s.glob(w); len(found) > 0 {
				out = append(out, found...)
				continue
			}
		}
		out = append(out, w)
	}
	return out
}

// glob expands a pattern with the files of the firstbox.
func (s *Site) glob(pattern string) []string {
	found := []string{""}
	for _, part := range strings.Split(strings.TrimPrefix(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?[") {
				if _, err := s.firstbox.Host.Stat(dir + "/" + part); err == nil {
					next = append(next, dir+"/"+part)
				}
				continue
			}
			entries, _ := s.firstbox.Host.ReadDir(dir + "/")
			for _, e := range entries {
				if matchPart(part, e.Name()) {
					next = append(next, dir+"/"+e.Name())
				}
			}
		}
		found = next
	}
	return found
}

// matchPart matches one part of a path; ranges are not simulated, and match
// nothing.
func matchPart(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	switch pattern[0] {
	case '*':
		for i := 0; i <= len(name); i++ {
			if matchPart(pattern[1:], name[i:]) {
				return true
			}
		}
		return false
	case '?':
		return name != "" && matchPart(pattern[1:], name[1:])
	}
	return name != "" && name[0] == pattern[0] && matchPart(pattern[1:], name[1:])
}

// packageGroups are the names that update.sh takes for both arguments at once.
var packageGroups = []string{
	"common", "global-website", "global-webservice", "zone-website", "zone-webservice", "proxy", "dns", "bm", "vdi",
	"boss", "seed", "vbr", "vgateway", "hyper", "sdwan", "tag",
}

// cmdUpdate is update.sh, the front of update_nodes.sh.
func (s *Site) cmdUpdate(ctx context.Context, p *host.Proc) int {
	args := p.Args[1:]
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" {
		fmt.Fprintln(p.Stdout, "Usage: update.sh [-f|--force-yes] <nodes> <packages>")
		return 1
	}
	if len(args) == 1 && slices.Contains(packageGroups, args[0]) {
		args = []string{args[0], args[0]}
	}
	force, args := splitForce(args)
	switch len(args) {
	case 0:
		fmt.Fprintln(p.Stdout, "Error: The argument <nodes> is empty, please check it!")
		return 1
	case 1:
		fmt.Fprintln(p.Stdout, "Error: The argument <packages> is empty, please check it!")
		return 1
	}
	nodes, bad := s.scope(args[0])
	if bad != "" {
		fmt.Fprintf(p.Stdout, "Error: The node [%s] is invalid, can not find it in /pitrix/conf/settings!\n", bad)
		return 1
	}
	var packages []string
	for _, item := range strings.FieldsFunc(strings.Join(args[1:], " "), func(r rune) bool { return r == ',' || r == ' ' }) {
		if data, err := p.Host.ReadFile("/pitrix/upgrade/packages/" + item); err == nil {
			_, inside, _ := strings.Cut(string(data), "(")
			inside, _, _ = strings.Cut(inside, ")")
			for _, n := range strings.Fields(inside) {
				packages = append(packages, strings.Trim(n, "'\""))
			}
			continue
		}
		packages = append(packages, item)
	}
	for _, pkg := range packages {
		if !s.inRepo(pkg) {
			fmt.Fprintf(p.Stdout, "Error: The package [%s] is invalid, can not find it in /pitrix/repo or /var/www/repo!\n", pkg)
			return 1
		}
	}
	fmt.Fprintf(p.Stdout, "%s\nTARGET NODES:\n    %s\n%s\nTARGET PACKAGES:\n    %s\n%s\n", dashes, strings.Join(nodes, ","), dashes, strings.Join(packages, ","), dashes)
	if !force {
		yes, status := s.confirm(ctx, p, "Are you sure to update the nodes [y/N]?")
		if !yes {
			return status
		}
	}
	shown := packages[0]
	if len(packages) > 1 {
		shown += " ~ "
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := false
	for _, name := range nodes {
		wg.Go(func() {
			ok := s.updateNode(ctx, name, packages)
			word := "OK."
			if !ok {
				word = "Error!"
			}
			line := fmt.Sprintf("  Updating [%s] with [%s] ... %s\n", name, shown, word)
			mu.Lock()
			defer mu.Unlock()
			failed = failed || !ok
			fmt.Fprint(p.Stdout, line)
			s.logs("/pitrix/log/update_nodes/update_nodes.log", line)
		})
	}
	wg.Wait()
	return b2i(failed)
}

// updateNode is _update_node.sh.
func (s *Site) updateNode(ctx context.Context, name string, packages []string) bool {
	file := "/pitrix/log/update_nodes/update_" + name + ".log"
	v, _ := s.setting(name)
	if !s.pingSettings(v) {
		s.logs(file, fmt.Sprintf("Error: The node [%s] is unreachable. Please check the network!\n", name))
		return false
	}
	_, out, far := s.remote(ctx, s.firstbox, name, "apt-get update")
	s.logs(file, string(out))
	if far == nil {
		return false
	}
	s.noteStranger(name, far)
	opts := ""
	switch version := v["os_version"]; {
	case strings.HasPrefix(version, "12.04"), strings.HasPrefix(version, "14.04"):
		opts = "--yes --force-yes --allow-unauthenticated --reinstall "
	case strings.HasPrefix(version, "16.04"):
		opts = "--yes --allow-unauthenticated --reinstall "
	}
	status, out, _ := s.remote(ctx, s.firstbox, name, "apt-get "+opts+"install "+strings.Join(packages, " "))
	s.logs(file, string(out))
	return status == 0
}

// cmdGenNodeList is gen_node_list: it takes no arguments.
func (s *Site) cmdGenNodeList(_ context.Context, p *host.Proc) int {
	if len(p.Args) > 1 {
		return p.Refusef("arguments")
	}
	s.generate()
	fmt.Fprintln(p.Stdout, "The nodes list have been generated in [/pitrix/conf/nodes] successfully.")
	return 0
}

// generate writes the node lists: hostnames, not file names.
func (s *Site) generate() {
	all, names := s.fleet()
	for _, k := range kinds {
		var in []string
		for _, n := range names {
			if k.has(all[n]) {
				in = append(in, all[n]["hostname"])
			}
		}
		_ = s.firstbox.Host.WriteFile(nodesDir+"/"+k.name, fmt.Appendf(nil, "nodes=( %s );\n", strings.Join(in, " ")), 0o644)
	}
}

// cmdGenMAC is gen_mac.py: one address, which nobody has compared with others.
func (s *Site) cmdGenMAC(_ context.Context, p *host.Proc) int {
	if len(p.Args) > 1 {
		return p.Refusef("arguments")
	}
	fmt.Fprintln(p.Stdout, newMAC())
	return 0
}

// cmdDumpHosts is dump_hosts.py: the names of the console at the proxies' VIP.
func (s *Site) cmdDumpHosts(_ context.Context, p *host.Proc) int {
	file := ""
	switch {
	case len(p.Args) == 1:
	case len(p.Args) == 3 && p.Args[1] == "-f":
		file = p.Args[2]
	default:
		return p.Refusef("only dump_hosts.py [-f FILE]")
	}
	text := fmt.Sprintf("%s console.lab.example supervisor.lab.example appcenter.lab.example api.lab.example\n%s boss.lab.example\n", ProxyVIP, ProxyVIP)
	if file != "" {
		_ = p.Host.WriteFile(p.Path(file), []byte(text), 0o644)
		return 0
	}
	fmt.Fprint(p.Stdout, text)
	return 0
}

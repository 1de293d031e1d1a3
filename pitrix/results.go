package pitrix

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A ScriptError says that a script of the firstbox did not do what it was
// asked for, or that its output does not show that it did.
type ScriptError struct {
	Script Script   `json:"script"`
	Nodes  []string `json:"nodes,omitempty"` // that are concerned
	Why    string   `json:"why"`
	Status int      `json:"status"`           // the script's own
	Output string   `json:"output,omitempty"` // the end of it
}

func (e *ScriptError) Error() string {
	s := string(e.Script) + ": "
	if len(e.Nodes) > 0 {
		s += nodeList(e.Nodes) + ": "
	}
	s += e.Why
	if e.Status != 0 {
		s += fmt.Sprintf(" (status %d)", e.Status)
	}
	if text := strings.TrimSpace(lastBytes(e.Output, 400)); text != "" {
		s += "; it said: " + text
	}
	return s
}

// nodeList names at most five.
func nodeList(nodes []string) string {
	if len(nodes) > 5 {
		return strings.Join(nodes[:5], ", ") + fmt.Sprintf(" and %d more", len(nodes)-5)
	}
	return strings.Join(nodes, ", ")
}

// An UnreachableError names the nodes that did not answer the script's ping.
// It pings the address in the node's settings.
type UnreachableError struct{ Nodes []string }

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s did not answer the firstbox's ping; check the address in the settings, the network and the VM, then run it again for these nodes", nodeList(e.Nodes))
}

// A LaunchedError says that a VM was not made because the marker NAME.Done
// stands on the host.
type LaunchedError struct{ VM string }

func (e *LaunchedError) Error() string {
	return fmt.Sprintf("launch_vms made no VM %s: /pitrix/kernels/%s.Done stands on the host, so it was launched before; look at the VM there, and park a VM that was put away together with its marker", e.VM, e.VM)
}

// output is what a script has written, as lines.
type scriptOutput struct {
	script Script
	text   string
	status int
}

func (o scriptOutput) fail(nodes []string, format string, args ...any) error {
	return &ScriptError{Script: o.script, Nodes: nodes, Why: fmt.Sprintf(format, args...), Status: o.status, Output: lastBytes(o.text, 2048)}
}

func (o scriptOutput) lines() []string {
	return strings.Split(strings.TrimSuffix(o.text, "\n"), "\n")
}

// refusals are what the scripts print instead of working, some with status 0.
var refusals = regexp.MustCompile(`(?m)^(?:Error: The (?:node|package) \[.*\] is invalid.*|Error: [Tt]he argument .* is empty.*|Warning: the nodes .* is empty.*|[Uu]sage:? .*|.*\[y/N\]\?.*)$`)

// refused finds a line that says that nothing was done.
func (o scriptOutput) refused() error {
	if line := refusals.FindString(o.text); line != "" {
		return o.fail(nil, "it did not begin: %s", strings.TrimSpace(line))
	}
	return nil
}

// steps are lines that say what is done and end in OK. or Error!.
var stepLine = regexp.MustCompile(`^(?:(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) )?\s*(\S.*?)\s*\.\.\.\s*(OK\.|Error!)\s*$`)

// A ScriptStep is one line of a script that tells how far it is.
type ScriptStep struct {
	At   string `json:"at,omitempty"` // YYYY-MM-DD HH:MM:SS in the firstbox's time zone, where it says so
	Text string `json:"text"`
	OK   bool   `json:"ok"`
}

func (o scriptOutput) steps() (steps []ScriptStep, failed error) {
	for _, line := range o.lines() {
		m := stepLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		s := ScriptStep{At: m[1], Text: m[2], OK: m[3] == "OK."}
		steps = append(steps, s)
		if !s.OK && failed == nil {
			failed = o.fail(nil, "%q failed; read its log under /pitrix/log/%s", s.Text, o.script)
		}
	}
	if failed == nil && o.status != 0 {
		failed = o.fail(nil, "it failed; read its log under /pitrix/log/%s", o.script)
	}
	return steps, failed
}

// ParseGenMAC reads the address that gen_mac.py printed.
func ParseGenMAC(out []byte, rc int) (MAC, error) {
	o := scriptOutput{ScriptGenMAC, string(out), rc}
	if rc != 0 {
		return MAC{}, o.fail(nil, "it failed")
	}
	m, err := ParseMAC(strings.TrimSpace(o.text))
	if err == nil && m.unusable() != "" {
		err = errors.New(m.unusable())
	}
	if err != nil {
		return MAC{}, o.fail(nil, "it printed no usable MAC address: %v", err)
	}
	return m, nil
}

// ParseGenNodeList checks that the lists were written.
func ParseGenNodeList(out []byte, rc int) error {
	o := scriptOutput{ScriptGenNodeList, string(out), rc}
	switch {
	case rc != 0:
		return o.fail(nil, "it failed")
	case !strings.Contains(o.text, "have been generated in [") || !strings.Contains(o.text, "successfully."):
		return o.fail(nil, "it does not say that the lists were generated")
	}
	return nil
}

// A BuildResult is what a build script says that it built.
type BuildResult struct {
	Packages []PackageResult `json:"packages"`
	Done     bool            `json:"done"` // it says so at the end; build_global_conf.sh does not
}

// A PackageResult is one package of a build.
type PackageResult struct {
	Package string `json:"package"`
	OK      bool   `json:"ok"`
}

var buildLine = regexp.MustCompile(`^Building \[([^\]]+)\]$`)

// ParseBuild reads the output of build_pkgs_allinone and of build_global_conf,
// whose status is that of the last package alone.
func ParseBuild(out []byte, rc int) (*BuildResult, error) {
	o := scriptOutput{ScriptBuildPackages, string(out), rc}
	if err := o.refused(); err != nil {
		return nil, err
	}
	steps, failed := o.steps()
	r := &BuildResult{Done: strings.Contains(o.text, "Build the packages allinone Done.")}
	var bad []string
	for _, s := range steps {
		if m := buildLine.FindStringSubmatch(s.Text); m != nil {
			r.Packages = append(r.Packages, PackageResult{m[1], s.OK})
			if !s.OK {
				bad = append(bad, m[1])
			}
		}
	}
	switch {
	case len(bad) > 0:
		return r, o.fail(nil, "the packages %s were not built; read /pitrix/log/build_pkgs", strings.Join(bad, ", "))
	case failed != nil:
		return r, failed
	case len(r.Packages) == 0:
		return r, o.fail(nil, "it does not say that a package was built")
	case strings.Contains(o.text, "Building the packages allinone") && !r.Done:
		return r, o.fail(nil, "it does not say that it is done")
	}
	return r, nil
}

// A LaunchResult is what launch_vms.sh says that it did.
type LaunchResult struct {
	Steps []ScriptStep `json:"steps,omitempty"`
}

var launchedLine = regexp.MustCompile(`(?m)^.*The VM \[([^\]]+)\] has been launched\.`)

// ParseLaunch reads the output of launch_vms.sh. An error-free result says
// that the script found nothing wrong; Hypervisor.GetDomain and GetFiles say
// whether the VM is there.
func ParseLaunch(scope Scope, out []byte, rc int) (*LaunchResult, error) {
	o := scriptOutput{ScriptLaunchVMs, string(out), rc}
	if m := launchedLine.FindStringSubmatch(o.text); m != nil {
		return nil, &LaunchedError{VM: m[1]}
	}
	if err := o.refused(); err != nil {
		return nil, err
	}
	steps, failed := o.steps()
	if failed != nil {
		var e *ScriptError
		if errors.As(failed, &e) {
			e.Nodes = scope.nodes
		}
	}
	return &LaunchResult{steps}, failed
}

// An InstallResult is what install_nodes.sh says that it did.
type InstallResult struct {
	Steps []ScriptStep `json:"steps,omitempty"`
}

// ParseInstall reads the output of install_nodes.sh. An error-free result says
// that the script found nothing wrong; what the nodes have become is read from
// them, after the last of their reboots.
func ParseInstall(scope Scope, out []byte, rc int) (*InstallResult, error) {
	o := scriptOutput{ScriptInstallNodes, string(out), rc}
	if err := o.refused(); err != nil {
		return nil, err
	}
	steps, failed := o.steps()
	if failed == nil {
		if m := unreachableAny.FindStringSubmatch(o.text); m != nil {
			failed = &UnreachableError{Nodes: []string{m[1]}}
		}
	}
	var e *ScriptError
	if errors.As(failed, &e) {
		e.Nodes = scope.nodes
	}
	return &InstallResult{steps}, failed
}

var (
	unreachableAny  = regexp.MustCompile(`(?m)^Error: The node \[([^\]]+)\] is unreachable\.`)
	unreachableLine = regexp.MustCompile(`^Error: The node \[([^\]]+)\] is unreachable\.`)
	updateLine      = regexp.MustCompile(`^  Updating \[([^\]]+)\] with \[([^\]]*)\] \.\.\. (OK\.|Error!)\s*$`)
	execLine        = regexp.MustCompile(`^Execing \[([^\]]+)\] with \[`)
)

// An UpdateResult is what update.sh says of one node.
type UpdateResult struct {
	Node        string `json:"node"`
	OK          bool   `json:"ok"`
	Unreachable bool   `json:"unreachable,omitempty"`
}

// ParseUpdate reads the output of update.sh, which names the first package
// only and has no closing line. Every node of the scope must be in it; the
// error names those that are not, that failed (*ScriptError), or that did not
// answer (*UnreachableError). The results are those of the nodes that are
// there, sorted, also with an error.
func ParseUpdate(scope Scope, packages []string, out []byte, rc int) ([]UpdateResult, error) {
	o := scriptOutput{ScriptUpdate, string(out), rc}
	if err := o.refused(); err != nil {
		return nil, err
	}
	seen := map[string]UpdateResult{}
	var odd []string
	for _, line := range o.lines() {
		r := UpdateResult{}
		if m := updateLine.FindStringSubmatch(line); m != nil {
			first, _, _ := strings.Cut(m[2], " ")
			if !slices.Contains(packages, first) {
				odd = append(odd, fmt.Sprintf("the package %q of %s was not asked for", first, m[1]))
			}
			r = UpdateResult{Node: m[1], OK: m[3] == "OK."}
		} else if m := unreachableLine.FindStringSubmatch(line); m != nil {
			r = UpdateResult{Node: m[1], Unreachable: true}
		} else {
			continue
		}
		if _, twice := seen[r.Node]; twice || !scope.has(r.Node) {
			odd = append(odd, fmt.Sprintf("the node %s is there twice or was not asked for", r.Node))
		}
		seen[r.Node] = r
	}
	var results []UpdateResult
	var missing, failed, unreachable []string
	for _, n := range scope.nodes {
		r, ok := seen[n]
		switch {
		case !ok:
			missing = append(missing, n)
			continue
		case r.Unreachable:
			unreachable = append(unreachable, n)
		case !r.OK:
			failed = append(failed, n)
		}
		results = append(results, r)
	}
	switch {
	case len(odd) > 0:
		return results, o.fail(nil, "%s", odd[0])
	case len(missing) > 0:
		return results, o.fail(missing, "not in the output, so it is not known whether they were updated")
	case len(failed) > 0:
		return results, o.fail(failed, "the packages were not installed; read /pitrix/log/update_nodes/update_%s.log", failed[0])
	case len(unreachable) > 0:
		return results, &UnreachableError{Nodes: unreachable}
	case rc != 0:
		return results, o.fail(nil, "it failed, although it says OK of every node")
	}
	return results, nil
}

// An ExecResult is what a command did on one node.
type ExecResult struct {
	Node   string `json:"node"`
	Output string `json:"output"` // standard output and error of the command, as they came
	// Status is the command's own exit status; -1: not known, because the
	// connection failed, and Output says why.
	Status      int  `json:"status"`
	Unreachable bool `json:"unreachable,omitempty"` // it did not answer the ping
}

// ParseExec reads the output of a command line of Scripts.Exec with that tag.
// The results are those of all nodes of the scope, sorted. A node that is
// missing, there twice or not of the scope, and output that is cut short give
// a *ScriptError; the status of the script itself says nothing. Whether the
// commands went well is asked of [ExecFailed].
func ParseExec(scope Scope, tag string, out []byte) ([]ExecResult, error) {
	o := scriptOutput{ScriptExec, string(out), 0}
	p := execParser{o: o, trailer: execTrailer(tag), want: map[string]bool{}, seen: map[string]ExecResult{}}
	for _, n := range scope.nodes {
		p.want[n] = true
	}
	if err := p.parse(o.lines()); err != nil {
		return nil, err
	}
	if len(p.seen) == 0 {
		if err := o.refused(); err != nil {
			return nil, err
		}
	}
	var results []ExecResult
	var missing []string
	for _, n := range scope.nodes {
		if r, ok := p.seen[n]; ok {
			results = append(results, r)
		} else {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return nil, o.fail(missing, "not in the output, so it is not known whether the command ran there")
	}
	return results, nil
}

// execParser follows the blocks of exec_nodes.sh, which are never mixed. The
// first line of a block and the last line of ours in it hold the tag, so that
// what a command prints in between is not taken for anything else.
type execParser struct {
	o       scriptOutput
	trailer string
	want    map[string]bool
	seen    map[string]ExecResult
}

// begins returns the node whose block begins with line.
func (p *execParser) begins(line string) string {
	m := execLine.FindStringSubmatch(line)
	if m == nil || !strings.HasSuffix(line, "echo "+p.trailer+"$r] ...") {
		return ""
	}
	return m[1]
}

// unreachable returns the node that a line calls unreachable.
func (p *execParser) unreachable(line string) string {
	m := unreachableLine.FindStringSubmatch(line)
	if m == nil || !p.want[m[1]] {
		return ""
	}
	return m[1]
}

func (p *execParser) parse(lines []string) error {
	for i := 0; i < len(lines); i++ {
		node := p.begins(lines[i])
		if node == "" {
			if n := p.unreachable(lines[i]); n != "" {
				if err := p.add(ExecResult{Node: n, Status: -1, Unreachable: true}); err != nil {
					return err
				}
			}
			continue
		}
		end := i + 1
		for end < len(lines) && !strings.HasPrefix(lines[end], p.trailer) && p.begins(lines[end]) == "" {
			end++
		}
		r := ExecResult{Node: node, Status: -1}
		if end < len(lines) && strings.HasPrefix(lines[end], p.trailer) {
			status, err := strconv.Atoi(lines[end][len(p.trailer):])
			if err != nil || status < 0 || status > 255 {
				return p.o.fail([]string{node}, "the line with the status is damaged: %q", lines[end])
			}
			r.Status, r.Output = status, blockText(lines[i+1:end])
			i = end
		} else {
			// The connection failed, if the script went on after it. Else the
			// output was cut in the middle of the block.
			if lines[len(lines)-1] != "Done." {
				return p.o.fail([]string{node}, "the output ends in the middle of its block")
			}
			stop := i + 1
			for stop < min(end, len(lines)-1) && p.unreachable(lines[stop]) == "" {
				stop++
			}
			r.Output = blockText(lines[i+1 : stop])
			i = stop - 1
		}
		if err := p.add(r); err != nil {
			return err
		}
	}
	return nil
}

// blockText is what a command wrote. One line end at the end comes from our
// own echo or from the script.
func blockText(lines []string) string {
	if n := len(lines); n > 0 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

func (p *execParser) add(r ExecResult) error {
	if _, twice := p.seen[r.Node]; twice {
		return p.o.fail([]string{r.Node}, "it is in the output twice")
	}
	if !p.want[r.Node] {
		return p.o.fail([]string{r.Node}, "it is in the output, but was not asked for")
	}
	p.seen[r.Node] = r
	return nil
}

// An ExecError names the nodes where a command failed, or where it is not
// known whether it ran.
type ExecError struct{ Results []ExecResult }

func (e *ExecError) Error() string {
	var parts []string
	for _, r := range e.Results {
		what := fmt.Sprintf("%s: status %d", r.Node, r.Status)
		if r.Status < 0 {
			what = r.Node + ": not known whether it ran"
		}
		if text := strings.TrimSpace(lastBytes(r.Output, 160)); text != "" {
			what += ": " + text
		}
		parts = append(parts, what)
	}
	return "the command failed on " + strings.Join(parts, "; ")
}

// ExecFailed returns nil when the command ran and ended with status 0 on every
// node, an *ExecError with the results of the others, or an *UnreachableError
// when there is nothing wrong but that.
func ExecFailed(results []ExecResult) error {
	var bad []ExecResult
	var unreachable []string
	for _, r := range results {
		switch {
		case r.Unreachable:
			unreachable = append(unreachable, r.Node)
		case r.Status != 0:
			bad = append(bad, r)
		}
	}
	switch {
	case len(bad) > 0:
		return &ExecError{bad}
	case len(unreachable) > 0:
		return &UnreachableError{unreachable}
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
)

// diffReport is the comparison of many hosts.
type diffReport struct {
	Lost     int        `json:"lost"` // findings of all hosts, and hosts that are missing
	Changed  int        `json:"changed"`
	New      int        `json:"new"`
	Expected int        `json:"expected"`
	Errors   int        `json:"errors"` // hosts that could not be compared
	Hosts    []hostDiff `json:"hosts"`  // sorted by name
}

// hostDiff is the comparison of one host.
type hostDiff struct {
	Name    string `json:"name"`
	Missing string `json:"missing,omitempty"` // before or after: there is no inventory of that time
	Why     string `json:"why,omitempty"`     // what collecting it said
	Error   string `json:"error,omitempty"`   // why an inventory could not be read
	*hostinv.Comparison
}

func newInventoryDiff(a *app) *cobra.Command {
	var expect []string
	var markdown bool
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: a.t("compare inventories; exit status 4 if something was lost", "比较清单；有丢失时退出状态为 4"),
		Long: a.t(`Compares the inventories of one host (two files), or of many (two directories of
"inventory collect -o DIR", or two outputs of "inventory collect --json").

--expect names what the work on the hosts was meant to change: kernel, release,
docker, host (another machine, such as a clone), reboot, or a file: the plan.json of an
upgrade, or an expectation (docs/inventory.md). Meant changes are shown, and are no loss.

Exit status: 0 nothing differs, or only in what was expected, changed or new; 4 something
was lost, or a host has no inventory afterwards; 1 an inventory could not be read.`,
			`比较一台主机的两份清单（两个文件），或多台主机的（“inventory collect -o 目录”的两个目录，
或两份“inventory collect --json”的输出）。

--expect 给出本次工作预期改变的内容：kernel、release、docker、host（另一台机器，如克隆）、
reboot，或文件：升级的 plan.json 或预期文件（docs/inventory.md）。预期的变化会显示，但不算丢失。

退出状态：0 没有差异，或只有预期内的、变化的、新增的；4 有丢失，或某主机之后没有清单；
1 有清单无法读取。`),
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if markdown && a.json {
				return usagef("--markdown and --json are two formats of one output")
			}
			want, err := a.expectation(expect)
			if err != nil {
				return err
			}
			before, err := openInventories(args[0])
			if err != nil {
				return err
			}
			after, err := openInventories(args[1])
			if err != nil {
				return err
			}
			switch {
			case before.single != nil && after.single != nil:
				return a.diffOne(hostinv.Diff(before.single, after.single, want), markdown)
			case before.single != nil || after.single != nil:
				return usagef(a.t("%s is of one host and %s of many", "%s 是一台主机的，%s 是多台的"), oneOf(before, after), manyOf(before, after))
			}
			return a.diffMany(before, after, want, markdown)
		},
	}
	cmd.Flags().StringSliceVar(&expect, "expect", nil, a.t("what was meant to change: kernel, release, docker, host, reboot, or a file (plan.json)", "预期中的变化：kernel、release、docker、host、reboot，或文件（plan.json）"))
	cmd.Flags().BoolVar(&markdown, "markdown", false, a.t("as Markdown, for a ticket", "以 Markdown 输出，便于贴入工单"))
	return cmd
}

func oneOf(a, b *inventorySet) string {
	if a.single != nil {
		return a.name
	}
	return b.name
}

func manyOf(a, b *inventorySet) string {
	if a.single != nil {
		return b.name
	}
	return a.name
}

// expectation puts the words and at most one file of --expect together.
func (a *app) expectation(list []string) (hostinv.Expect, error) {
	var want hostinv.Expect
	file := ""
	for _, e := range list {
		switch e {
		case "kernel", "release", "docker", "host", "reboot":
			continue
		}
		if !strings.ContainsAny(e, `./\`) {
			return want, usagef(a.t("--expect knows kernel, release, docker, host, reboot and files, not %q", "--expect 可取 kernel、release、docker、host、reboot 或文件，不能是 %q"), e)
		}
		if file != "" {
			return want, usagef(a.t("--expect takes one file, not %s and %s", "--expect 只能给一个文件，不能同时给 %s 和 %s"), file, e)
		}
		file = e
	}
	if file != "" {
		info, err := os.Stat(file)
		if err != nil {
			return want, err
		}
		data, err := readRegular(file, info)
		if err != nil {
			return want, err
		}
		if want, err = hostinv.ParseExpect(data); err != nil {
			return want, fmt.Errorf("%s: %w", file, err)
		}
	}
	for _, e := range list {
		switch e {
		case "kernel":
			want.KernelChanged = true
		case "release":
			want.ReleaseChanged = true
		case "docker":
			want.DockerChanged = true
		case "host":
			want.HostChanged = true
		case "reboot":
			want.Rebooted = true
		}
	}
	return want, nil
}

func (a *app) comparisonText(c *hostinv.Comparison, markdown bool) string {
	if markdown {
		return c.Markdown(hostinv.Lang(a.lang))
	}
	return c.Text(hostinv.Lang(a.lang))
}

// diffOne ends the comparison of one host.
func (a *app) diffOne(c *hostinv.Comparison, markdown bool) error {
	if err := a.result(c, func(w io.Writer) { fmt.Fprint(w, a.comparisonText(c, markdown)) }); err != nil {
		return err
	}
	if n := len(c.Losses()); n > 0 {
		return &exitError{exitRefused, fmt.Errorf(a.t("%d losses", "丢失 %d 项"), n)}
	}
	return nil
}

// diffMany compares host by host, two inventories in memory at a time.
func (a *app) diffMany(before, after *inventorySet, want hostinv.Expect, markdown bool) error {
	w := &errWriter{w: a.out}
	rep := diffReport{Hosts: []hostDiff{}}
	equal, lossy := 0, 0
	heading := "== "
	if markdown {
		heading = "## "
	}
	for _, name := range names(before, after) {
		h := compareHost(before, after, name, want)
		lost := 0
		switch {
		case h.Error != "":
			rep.Errors++
		case h.Missing == "after":
			lost = 1
		case h.Missing == "before":
			rep.New++
		default:
			lost = len(h.Losses())
			rep.Changed += h.Count(hostinv.Changed)
			rep.New += h.Count(hostinv.New)
			rep.Expected += h.Count(hostinv.Expected)
		}
		rep.Lost += lost
		if lost > 0 {
			lossy++
		}
		if h.Comparison != nil && len(h.Findings) == 0 {
			equal++
		}
		switch {
		case a.json:
			rep.Hosts = append(rep.Hosts, h)
		case h.Error != "":
			fmt.Fprintf(w, "%s%s\n%s\n\n", heading, name, h.Error)
		case h.Missing == "after":
			fmt.Fprintf(w, "%s%s\n%s\n\n", heading, name, a.t("LOST: there is no inventory afterwards", "丢失：之后没有清单")+because(h.Why))
		case h.Missing == "before":
			fmt.Fprintf(w, "%s%s\n%s\n\n", heading, name, a.t("new: there is no inventory before", "新增：之前没有清单")+because(h.Why))
		case len(h.Findings) > 0:
			fmt.Fprintf(w, "%s%s\n%s\n", heading, name, a.comparisonText(h.Comparison, markdown))
		}
	}
	total := len(names(before, after))
	if a.json {
		if err := a.printJSON(rep); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, a.t("%d hosts, %d without a difference; %d lost, %d changed, %d new, %d expected\n", "%d 台主机，%d 台无差异；丢失 %d，变化 %d，新增 %d，预期 %d\n"),
			total, equal, rep.Lost, rep.Changed, rep.New, rep.Expected)
	}
	switch {
	case w.err != nil:
		return w.err
	case lossy > 0:
		return &exitError{exitRefused, fmt.Errorf(a.t("%d losses on %d of %d hosts", "%d 项丢失，涉及 %d 台主机，共 %d 台"), rep.Lost, lossy, total)}
	case rep.Errors > 0:
		return &exitError{exitFailure, fmt.Errorf(a.t("%d of %d hosts could not be compared", "%d 台主机无法比较，共 %d 台"), rep.Errors, total)}
	}
	return nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// compareHost compares one host. Its errors are its own.
func compareHost(before, after *inventorySet, name string, want hostinv.Expect) hostDiff {
	h := hostDiff{Name: name}
	var errs []error
	load := func(s *inventorySet, when string) *hostinv.Inventory {
		if s.hosts[name] == nil { // never asked, or it did not answer
			h.Missing, h.Why = when, s.failed[name]
			return nil
		}
		inv, err := s.hosts[name]()
		if err != nil {
			errs = append(errs, err)
		}
		return inv
	}
	b, c := load(before, "before"), load(after, "after")
	if err := errors.Join(errs...); err != nil {
		h.Error = err.Error()
		return h
	}
	if b != nil && c != nil {
		h.Comparison = hostinv.Diff(b, c, want)
	}
	return h
}

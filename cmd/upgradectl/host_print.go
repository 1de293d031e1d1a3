package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/upgrade"
)

// block prints a heading and its lines, if there are any.
func block(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	for _, l := range lines {
		fmt.Fprintf(w, "  %s\n", l)
	}
}

func (h *oneHost) printCheck(w io.Writer, r *upgrade.HostCheck) {
	o := r.Assessment.OS
	fmt.Fprintf(w, h.t("host %s: %s, kernel %s, boot %s\n", "主机 %s：%s，内核 %s，启动 %s\n"), r.Host, dash(o.Boot.Release), o.Boot.Kernel, o.Boot.ID)
	fmt.Fprintf(w, h.t("packages: %d, manager %s; kernel started by default: %s\n", "软件包：%d，管理器 %s；默认启动内核：%s\n"), len(o.Packages), dash(o.Manager), dash(o.DefaultKernel))
	if l := r.Lease; l != nil {
		fmt.Fprintf(w, h.t("held by run %s of %s since %s\n", "由运行 %s（%s）持有，自 %s 起\n"), l.Run, l.Holder, l.Since)
	}
	var lines []string
	if t := r.Assessment.Transaction; !t.Empty() {
		lines = append(lines, t.String())
	}
	if r.Assessment.Kernel != "" {
		lines = append(lines, fmt.Sprintf(h.t("kernel afterwards: %s", "升级后内核：%s"), r.Assessment.Kernel))
	}
	lines = append(lines, r.Assessment.Refused...)
	for _, f := range r.Assessment.Findings {
		lines = append(lines, f.String())
	}
	block(w, fmt.Sprintf(h.t("upgrade by %s", "升级策略 %s"), r.Strategy.Strategy), lines)
	block(w, h.t("if it were rebooted now", "若现在重启"), h.checks(func(add func(id string, ok bool, text string)) {
		for _, c := range r.PreReboot {
			add(c.ID, c.OK, strings.TrimSuffix(c.Evidence+"; "+c.Remedy, "; "))
		}
	}))
	if d := r.Docker; d != nil {
		lines = []string{fmt.Sprintf(h.t("version %s, storage driver %s, %d containers, %d compose projects", "版本 %s，存储驱动 %s，容器 %d，compose 工程 %d"), dash(d.ServerVersion), dash(d.StorageDriver), len(d.Containers), len(d.Projects))}
		if d.Trouble != "" {
			lines = append(lines, d.Trouble)
		}
		if r.DockerPlan != nil {
			for _, f := range r.DockerPlan.Findings {
				lines = append(lines, string(f.Severity)+": "+f.String())
			}
		}
		block(w, "Docker", lines)
	}
	lines = nil
	for _, f := range r.Unowned {
		lines = append(lines, f.Text())
	}
	block(w, h.t("services", "服务"), lines)
	lines = nil
	for _, u := range r.Quarantine.Units {
		lines = append(lines, u.Unit+": "+u.Reason)
	}
	block(w, h.t("a copy of it would be kept from running", "其副本将被禁止运行"), append(lines, r.Quarantine.Known...))
	block(w, h.t("could not be read", "未能读取"), r.Incomplete)
	fmt.Fprintln(w)
	if len(r.Blocking) == 0 {
		fmt.Fprintln(w, h.t("nothing speaks against upgrading it", "没有阻碍升级的问题"))
		return
	}
	fmt.Fprintf(w, h.t("findings that speak against upgrading it: %d\n", "阻碍升级的检查项：%d\n"), len(r.Blocking))
}

// checks are one line each, with a mark.
func (h *oneHost) checks(each func(add func(id string, ok bool, text string))) []string {
	var lines []string
	each(func(id string, ok bool, text string) {
		mark := h.t("ok", "通过")
		if !ok {
			mark = h.t("NOT OK", "不通过")
		}
		lines = append(lines, fmt.Sprintf("%s  %s: %s", mark, id, text))
	})
	return lines
}

// filled are the lines of a script that are not empty.
func filled(script string) []string {
	return slices.DeleteFunc(strings.Split(script, "\n"), func(l string) bool { return l == "" })
}

func (h *oneHost) printUpgrade(w io.Writer, r *upgrade.HostUpgrade, reboot bool) {
	a := r.Assessment
	fmt.Fprintf(w, h.t("host %s: %s, kernel %s; job %s\n", "主机 %s：%s，内核 %s；任务 %s\n"), r.Host, dash(a.OS.Boot.Release), a.OS.Boot.Kernel, r.Key)
	if len(a.Refused) > 0 {
		return // the error says why
	}
	block(w, h.t("runs detached on the host first, and refuses the upgrade unless it ends with 0", "先在主机上脱离会话运行；退出状态非 0 即拒绝升级"), filled(r.Strategy.Precheck))
	block(w, h.t("runs detached on the host", "在主机上脱离会话运行"), filled(r.Script))
	if !a.Transaction.Empty() {
		block(w, h.t("transaction", "事务"), []string{a.Transaction.String()})
	}
	var lines []string
	for _, f := range a.Findings {
		lines = append(lines, f.String())
	}
	block(w, h.t("findings", "检查项"), lines)
	if u := r.Upgraded; u != nil {
		block(w, h.t("done", "已完成"), []string{
			fmt.Sprintf(h.t("%d packages came, %d went; kernel of the next boot: %s", "新增软件包 %d，移除 %d；下次启动的内核：%s"), len(u.Installed), len(u.Removed), dash(u.Kernel)),
		})
		block(w, h.t("before a reboot", "重启前检查"), h.checks(func(add func(id string, ok bool, text string)) {
			for _, c := range r.PreReboot {
				add(c.ID, c.OK, strings.TrimSuffix(c.Evidence+"; "+c.Remedy, "; "))
			}
		}))
	}
	fmt.Fprintln(w)
	switch {
	case r.After != nil:
		fmt.Fprintf(w, h.t("rebooted: %s, kernel %s, boot %s\n", "已重启：%s，内核 %s，启动 %s\n"), dash(r.After.Boot.Release), r.After.Boot.Kernel, r.After.Boot.ID)
	case r.Upgraded != nil && !reboot:
		fmt.Fprintln(w, h.t("upgraded; it still runs the old kernel: reboot it when it may be away", "已升级；仍在运行旧内核，请在允许时重启"))
	case !h.execute:
		h.printWaiting(w, r.Phase)
	}
	h.printReported(w, r.Reported)
}

// printWaiting says what --execute would do about a job.
func (h *oneHost) printWaiting(w io.Writer, phase string) {
	if phase == "absent" {
		fmt.Fprintln(w, h.unchanged())
		return
	}
	fmt.Fprintf(w, h.t("the job is %s; --execute shows its result\n", "任务状态 %s；加 --execute 查看结果\n"), phase)
}

func (h *oneHost) printReported(w io.Writer, reported bool) {
	if reported {
		fmt.Fprintln(w, h.t("it was done before; for doing it anew take another --key", "此前已完成；如需重新执行请更换 --key"))
	}
}

func (h *oneHost) printDocker(w io.Writer, r *upgrade.HostDocker) {
	fmt.Fprintf(w, h.t("host %s: Docker %s; job %s\n", "主机 %s：Docker %s；任务 %s\n"), r.Host, dash(r.Before.ServerVersion), r.Key)
	block(w, h.t("what is done", "操作内容"), r.Lines)
	var lines []string
	for _, f := range r.Plan.Findings {
		lines = append(lines, string(f.Severity)+": "+f.String())
	}
	block(w, h.t("findings", "检查项"), lines)
	fmt.Fprintln(w)
	switch {
	case r.Nothing && r.Result == nil:
		fmt.Fprintln(w, h.t("nothing to do", "无需更改"))
	case r.After != nil:
		fmt.Fprintf(w, h.t("Docker %s runs, with %d containers\n", "Docker %s 已运行，容器 %d 个\n"), dash(r.After.ServerVersion), len(r.After.Running()))
	case !h.execute:
		h.printWaiting(w, r.Phase)
	}
	h.printReported(w, r.Reported)
}

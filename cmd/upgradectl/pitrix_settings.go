package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/pitrix"
)

func newPitrixSettings(a *app, p *pitrixFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "settings", Short: a.t("settings files, /pitrix/conf/settings/NODE", "settings 文件，/pitrix/conf/settings/节点")}
	cmd.AddCommand(newSettingsCheck(a, p), newSettingsRender(a, p), newSettingsDiff(a), newSettingsBackup(a, p))
	return cmd
}

// problemsOf returns the problems that are an error's, for a command whose
// result they are.
func problemsOf(err error) ([]pitrix.Problem, bool) {
	var ps pitrix.Problems
	ok := errors.As(err, &ps)
	return ps, ok
}

func newSettingsCheck(a *app, p *pitrixFlags) *cobra.Command {
	var scope string
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: a.t("check all settings files: syntax, and the rules R1 to R10 over the whole fleet", "检查全部 settings 文件：语法，以及全局规则 R1 至 R10"),
		Long: a.t(`Check reads every settings file of the firstbox, or of DIR, a copy of the
directory, and reports all problems at once as FILE:LINE:COLUMN with what to do.
With a firstbox its variables are held against the files too, and its node lists
are compared with the ones that gen_node_list would make now.
It writes nothing. Exit status 3: there are problems.`,
			`读取 firstbox（或目录 DIR 中副本）的全部 settings 文件，一次报告所有问题，
格式为 文件:行:列 与处理办法。若读取 firstbox，还会核对变量，并比较节点列表与
gen_node_list 现在会生成的结果。不写入任何内容。有问题时退出码为 3。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			dir := ""
			if len(args) > 0 {
				dir = args[0]
			}
			var fleet pitrix.Fleet
			var site pitrix.Site
			if dir != "" {
				fleet, err = p.fleet(ctx, a, dir)
			} else {
				fleet, site, err = p.fleetAndSite(ctx, a)
			}
			if ps, ok := problemsOf(err); ok {
				return a.problems(ps, "")
			} else if err != nil {
				return err
			}
			problems := append(pitrix.CheckFleet(fleet), pitrix.CheckSite(fleet, site)...)
			if scope != "" && len(problems) == 0 {
				groups, err := pitrix.GroupsOf(fleet, site)
				if err != nil {
					return err
				}
				nodes, err := groups.Resolve(fleet, scope)
				if err != nil {
					return err
				}
				return a.result(struct {
					Problems []pitrix.Problem `json:"problems"`
					Scope    string           `json:"scope"`
					Nodes    []string         `json:"nodes"`
				}{[]pitrix.Problem{}, scope, nodes}, func(w io.Writer) {
					fmt.Fprintln(w, strings.Join(nodes, "\n"))
				})
			}
			return a.problems(problems, fmt.Sprintf(a.t("%d settings files, no problem", "%d 个 settings 文件，没有问题"), len(fleet)))
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", a.t("print the nodes that a command of the installer would reach with it", "打印安装器命令以此范围会触及的节点"))
	return cmd
}

// fleetAndSite reads the firstbox's settings and variables, and says which of
// its node lists are stale.
func (p *pitrixFlags) fleetAndSite(ctx context.Context, a *app) (_ pitrix.Fleet, site pitrix.Site, err error) {
	box, done, err := p.firstbox(ctx, a)
	if err != nil {
		return nil, site, err
	}
	defer func() { err = errors.Join(err, done()) }()
	fleet, err := box.ReadFleet(ctx)
	if err != nil {
		return nil, site, err
	}
	if site, err = box.ReadSite(ctx); err != nil {
		return nil, site, err
	}
	if p.root == "" { // another root is a copy, whose hosts are not this machine's to ask
		if site.Bridges, err = box.ReadBridges(ctx, fleet); ctx.Err() != nil {
			return nil, site, err
		} else if err != nil {
			a.progress(a.t("not checked: %v", "未核对：%v"), err)
		}
	}
	read, err := box.ReadGroups(ctx)
	if err != nil {
		return nil, site, err
	}
	groups, err := pitrix.GroupsOf(fleet, site)
	if _, names := problemsOf(err); names {
		return fleet, site, nil // CheckFleet says it with everything else
	} else if err != nil {
		return nil, site, err
	}
	for _, line := range groups.Diff(read) {
		a.progress(a.t("stale node list: %s", "节点列表已过时：%s"), line)
	}
	return fleet, site, nil
}

// settingsRender is what the command line of settings render says.
type settingsRender struct {
	dir, out, template, phase string
	vg, newMAC                bool
	values, sets, drops       []string
	r                         pitrix.Replacement
	mac, eipMAC, like         string
	execution
}

func newSettingsRender(a *app, p *pitrixFlags) *cobra.Command {
	r := &settingsRender{}
	cmd := &cobra.Command{
		Use:   "render NODE",
		Short: a.t("the settings of the VM that takes NODE's place, derived from its old file", "由 NODE 的旧 settings 推导新虚机的 settings"),
		Long: a.t(`Render prints the settings file of the VM that is built in NODE's place: NODE's
old file, byte for byte but for what the flags change. Routing rules follow the
addresses. Only where there is no old file, --template ROLE makes one; every
{{ name }} in it takes a --value name=VALUE.
The whole fleet with the new file is checked before anything is printed; problems
end with exit status 3 and nothing written. With --out FILE the file is
written, if --execute is given and FILE is not there yet.`,
			`打印替换 NODE 的新虚机的 settings 文件：以旧文件为基础，除参数所改之处外逐字节
保留，路由规则随地址变化。只有在没有旧文件时才用 --template ROLE 生成，其中每个
{{ name }} 由 --value name=VALUE 填写。打印前先以新文件检查整个集群；有问题则退出码
为 3，且不写入任何内容。加 --out FILE 与 --execute 写入文件（文件不得已存在）。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), a, p, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&r.dir, "settings", "", a.t("a copy of the settings directory (default: that of the firstbox)", "settings 目录的副本（默认取 firstbox）"))
	f.StringVar(&r.r.OSName, "os-name", "", a.t("code name of the release, xenial", "系统代号，如 xenial"))
	f.StringVar(&r.r.OSVersion, "os-version", "", a.t("release, 16.04.5", "系统版本，如 16.04.5"))
	f.StringVar(&r.r.CPUCores, "cpu-cores", "", a.t("number of cores", "CPU 核数"))
	f.StringVar(&r.r.MemorySize, "memory-size", "", a.t("memory in MiB", "内存，MiB"))
	f.StringVar(&r.r.Address, "address", "", a.t("temporary management address", "临时管理地址"))
	f.StringVar(&r.r.Netmask, "netmask", "", a.t("its netmask", "其掩码"))
	f.StringVar(&r.r.Gateway, "gateway", "", a.t("its gateway", "其网关"))
	f.StringVar(&r.r.EIPAddress, "eip-address", "", a.t("temporary outer address, 2.2.2.2", "临时 EIP，如 2.2.2.2"))
	f.StringVar(&r.r.EIPNetmask, "eip-netmask", "", a.t("its netmask", "其掩码"))
	f.StringVar(&r.r.EIPGateway, "eip-gateway", "", a.t("its gateway", "其网关"))
	f.StringVar(&r.r.PhysicalHost, "physical-host", "", a.t("management address of the new physical host", "新物理机的管理地址"))
	f.StringVar(&r.r.Bridge, "bridge", "", a.t("management bridge on it", "其管理网桥"))
	f.StringVar(&r.r.EIPBridge, "eip-bridge", "", a.t("outer bridge on it", "其 EIP 网桥"))
	f.StringVar(&r.mac, "mac", "", a.t("management MAC address", "管理网 MAC 地址"))
	f.StringVar(&r.eipMAC, "eip-mac", "", a.t("outer MAC address", "EIP 网 MAC 地址"))
	f.BoolVar(&r.newMAC, "new-mac", false, a.t("generate the MAC addresses that are not given", "为未给出的 MAC 生成新地址"))
	f.StringArrayVar(&r.sets, "set", nil, a.t("KEY=VALUE, any other key; may be repeated", "KEY=VALUE，其他任意键；可重复"))
	f.StringArrayVar(&r.drops, "drop", nil, a.t("KEY whose line is removed; may be repeated", "要删除其所在行的键；可重复"))
	f.StringVar(&r.phase, "phase", string(pitrix.PhaseBuild), a.t("build, switch or in-place: what the fleet is checked for", "build、switch 或 in-place：按何阶段检查"))
	f.StringVar(&r.like, "final", "", a.t("FILE with the old settings: give the addresses back that it has (--phase switch)", "旧 settings 文件：恢复其中的地址（配合 --phase switch）"))
	f.StringVar(&r.template, "template", "", a.t("role whose template makes the file of a node that has none", "节点没有旧文件时所用模板的角色"))
	f.BoolVar(&r.vg, "vg", false, a.t("with --template: the zone has VG nodes", "配合 --template：该 zone 有 VG 节点"))
	f.StringArrayVar(&r.values, "value", nil, a.t("NAME=VALUE for the template; may be repeated", "模板取值 NAME=VALUE；可重复"))
	f.StringVar(&r.out, "out", "", a.t("write the file here", "写入此文件"))
	r.flag(a, cmd)
	return cmd
}

func (r *settingsRender) run(ctx context.Context, a *app, p *pitrixFlags, name string) error {
	fleet, err := p.fleet(ctx, a, r.dir)
	if err != nil {
		return err
	}
	old := fleet[name]
	next, err := r.make(a, fleet, name)
	if err != nil {
		return err
	}
	planned := maps.Clone(fleet)
	planned[name] = next
	var problems []pitrix.Problem
	if old == nil {
		problems = pitrix.CheckFleet(planned)
	} else {
		was := fleet
		if r.like != "" {
			// The fleet before the rebuild had the old file.
			was = maps.Clone(fleet)
			if was[name], err = readSettings(r.like, name); err != nil {
				return err
			}
		}
		phases := map[string]pitrix.Phase{name: pitrix.Phase(r.phase)}
		problems = pitrix.CheckRebuild(was, planned, phases, nil)
	}
	if len(problems) > 0 {
		return pitrix.Problems(problems)
	}
	if r.out == "" {
		if r.execute {
			return usagef(a.t("--execute needs --out FILE", "--execute 需要 --out FILE"))
		}
		return a.result(settingsResult(next), func(w io.Writer) { _, _ = w.Write(next.Bytes()) })
	}
	what := strings.Split(strings.TrimSuffix(next.Diff(), "\n"), "\n")
	if old == nil {
		what = strings.Split(strings.TrimSuffix(string(next.Bytes()), "\n"), "\n")
	}
	return r.change(a, append([]string{fmt.Sprintf(a.t("write %s", "写入 %s"), r.out)}, what...), func() error {
		return writeNew(r.out, next.Bytes())
	})
}

// make makes the new settings.
func (r *settingsRender) make(a *app, fleet pitrix.Fleet, name string) (*pitrix.Settings, error) {
	old := fleet[name]
	switch pitrix.Phase(r.phase) {
	case pitrix.PhaseBuild, pitrix.PhaseSwitch, pitrix.PhaseInPlace:
	default:
		return nil, usagef("--phase is build, switch or in-place, not %q", r.phase)
	}
	values, err := pairs("value", r.values)
	if err != nil {
		return nil, err
	}
	if r.template != "" {
		if old != nil {
			return nil, usagef(a.t("%s has a file; it is derived from that, without --template", "%s 已有文件；应由其推导，不用 --template"), name)
		}
		text, err := pitrix.Template(r.template, r.vg)
		if err != nil {
			return nil, err
		}
		if slices.Contains(pitrix.Placeholders(text), "hostname") && values["hostname"] == "" {
			values["hostname"] = name
		}
		return pitrix.Render(name, text, values)
	}
	switch {
	case old == nil:
		return nil, fmt.Errorf(a.t("there is no settings file %s to derive from; name a node that is there, or give --template ROLE", "没有可供推导的 settings 文件 %s；请给出已有节点，或用 --template ROLE"), name)
	case len(values) > 0 || r.vg:
		return nil, usagef(a.t("--value and --vg are for --template", "--value 与 --vg 只用于 --template"))
	}
	if r.like != "" {
		was, err := readSettings(r.like, name)
		if err != nil {
			return nil, err
		}
		return pitrix.DeriveFinal(old, was)
	}
	sets, err := pairs("set", r.sets)
	if err != nil {
		return nil, err
	}
	in := r.r
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		in.Extra = append(in.Extra, pitrix.Change{Key: key, Value: sets[key]})
	}
	for _, key := range r.drops {
		in.Extra = append(in.Extra, pitrix.Change{Key: key, Drop: true})
	}
	taken := pitrix.TakenMACs(fleet)
	address := func(flag, given, key string, to *pitrix.MAC) (err error) {
		has, _ := old.Get(key)
		switch {
		case given != "":
			if *to, err = pitrix.ParseMAC(given); err != nil {
				return usagef("--%s: %v", flag, err)
			}
		case r.newMAC && has != "":
			if *to, err = (pitrix.MACGen{}).Next(taken); err != nil {
				return err
			}
			taken[*to] = key
		}
		return nil
	}
	if err := errors.Join(address("mac", r.mac, "mgmt_network_mac_address", &in.MAC), address("eip-mac", r.eipMAC, "eip_network_mac_address", &in.EIPMAC)); err != nil {
		return nil, err
	}
	return pitrix.DeriveTemporary(old, in)
}

// settingsResult is a settings file for machines.
func settingsResult(s *pitrix.Settings) any {
	type key struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	out := struct {
		Name string `json:"name"`
		Text string `json:"text"`
		Keys []key  `json:"keys"`
	}{Name: s.Name(), Text: string(s.Bytes()), Keys: []key{}}
	for _, k := range s.Keys() {
		v, _ := s.Get(k)
		out.Keys = append(out.Keys, key{k, v})
	}
	return out
}

func readSettings(file, name string) (*pitrix.Settings, error) {
	src, err := readLimited(file, maxSettingsFile)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = file
	}
	return pitrix.Parse(name, src)
}

func newSettingsDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: a.t("what two settings files, or two directories of them, say otherwise", "比较两个 settings 文件或目录"),
		Long: a.t(`Diff compares the keys and values of two settings files, or of all files of two
directories; comments, order and quotes do not count. Values of keys that look
like secrets are hidden. Exit status 4: a key or a file was lost.`,
			`比较两个 settings 文件（或两个目录的全部文件）的键与值，不计注释、顺序与引号。
看似机密的键值会隐去。丢失键或文件时退出码为 4。`),
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			old, err := readSettingsSide(args[0])
			if err != nil {
				return err
			}
			now, err := readSettingsSide(args[1])
			if err != nil {
				return err
			}
			return a.settingsDiff(old, now)
		},
	}
}

// readSettingsSide reads a file, under the name "", or a directory.
func readSettingsSide(name string) (pitrix.Fleet, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return readSettingsDir(name)
	}
	s, err := readSettings(name, "")
	return pitrix.Fleet{"": s}, err
}

// settingsDifference is one difference for machines.
type settingsDifference struct {
	File string `json:"file,omitempty"`
	Lost bool   `json:"lost"`
	pitrix.SettingsDifference
}

func (a *app) settingsDiff(old, now pitrix.Fleet) error {
	_, oneOld := old[""]
	_, oneNew := now[""]
	if oneOld != oneNew {
		return usagef(a.t("give two files or two directories", "请给出两个文件或两个目录"))
	}
	res := struct {
		Differences []settingsDifference `json:"differences"`
	}{[]settingsDifference{}}
	lost := false
	names := slices.Sorted(maps.Keys(old))
	for name := range now {
		if old[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		o, n := old[name], now[name]
		if o == nil || n == nil {
			x := settingsDifference{File: name, Lost: n == nil}
			lost = lost || x.Lost
			res.Differences = append(res.Differences, x)
			continue
		}
		for _, d := range pitrix.DiffSettings(o, n) {
			x := settingsDifference{File: name, Lost: d.NewLine == 0, SettingsDifference: d}
			lost = lost || x.Lost
			res.Differences = append(res.Differences, x)
		}
	}
	err := a.result(res, func(w io.Writer) {
		for _, x := range res.Differences {
			switch {
			case x.Key == "" && x.Lost:
				fmt.Fprintf(w, "- %s\n", x.File)
			case x.Key == "":
				fmt.Fprintf(w, "+ %s\n", x.File)
			default:
				fmt.Fprintln(w, strings.TrimSpace(x.File+" "+x.SettingsDifference.String()))
			}
		}
		if len(res.Differences) == 0 {
			fmt.Fprintln(w, a.t("no difference", "没有差异"))
		}
	})
	if err == nil && lost {
		return &exitError{code: exitRefused}
	}
	return err
}

func newSettingsBackup(a *app, p *pitrixFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "backup",
		Short: a.t("copy the firstbox's settings directory beside itself, never over or into anything", "在 firstbox 上将 settings 目录备份到其旁，绝不覆盖或嵌套"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			box, done, err := p.firstbox(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			from := box.Root + "/pitrix/conf/settings"
			if !x.execute {
				return x.change(a, []string{fmt.Sprintf(a.t("copy %s to %s.DATE-TIME", "将 %s 复制到 %s.日期-时间"), from, from)}, nil)
			}
			to, err := box.BackupSettings(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			return x.change(a, []string{fmt.Sprintf(a.t("copied %s to %s", "已将 %s 复制到 %s"), from, to)}, func() error { return nil })
		},
	}
	x.flag(a, cmd)
	return cmd
}

func newPitrixMAC(a *app, p *pitrixFlags) *cobra.Command {
	var dir, prefix string
	var taken []string
	count := 1
	cmd := &cobra.Command{
		Use:   "mac",
		Short: a.t("a new MAC address that nobody has", "生成一个无人使用的 MAC 地址"),
		Long: a.t(`Mac prints an address that no settings file of the firstbox and none of the files
of --taken holds: give the settings' backups and, for every physical host, the
output of virsh dumpxml of every domain, for VMs that are switched off keep
theirs. A file of --taken may be anything with addresses in it, also ip neigh; a
directory stands for all files below it.`,
			`打印一个新 MAC 地址：firstbox 的 settings 与 --taken 的文件中都没有它。请给出
settings 的备份，以及每台物理机上每个虚机的 virsh dumpxml 输出（关机的虚机也保留
其地址）。--taken 可为任意含地址的文本，如 ip neigh；目录代表其下全部文件。`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 || count > 100 {
				return usagef("--count is from 1 to 100, not %d", count)
			}
			gen := pitrix.MACGen{}
			if prefix != "" {
				m, err := pitrix.ParseMAC(prefix + ":00:00:01")
				if err != nil {
					return usagef("--prefix %s: write three octets as in 00:16:3e", prefix)
				}
				gen.Prefix = [3]byte(m[:3])
			}
			fleet, err := p.fleet(cmd.Context(), a, dir)
			if err != nil {
				return err
			}
			used := pitrix.TakenMACs(fleet)
			for _, name := range taken {
				if err := addMACs(used, name); err != nil {
					return err
				}
			}
			out := struct {
				MACs  []string `json:"macs"`
				Taken int      `json:"taken"`
			}{Taken: len(used)}
			for range count {
				m, err := gen.Next(used)
				if err != nil {
					return err
				}
				used[m] = "new"
				out.MACs = append(out.MACs, m.String())
			}
			return a.result(out, func(w io.Writer) { fmt.Fprintln(w, strings.Join(out.MACs, "\n")) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "settings", "", a.t("a copy of the settings directory (default: that of the firstbox)", "settings 目录的副本（默认取 firstbox）"))
	f.StringArrayVar(&taken, "taken", nil, a.t("file or directory with addresses that are taken; may be repeated", "含已占用地址的文件或目录；可重复"))
	f.StringVar(&prefix, "prefix", "", a.t("first three octets (default 00:16:3e)", "前三个字节（默认 00:16:3e）"))
	f.IntVar(&count, "count", count, a.t("how many", "生成个数"))
	return cmd
}

// addMACs adds the addresses in a file, or in all files below a directory.
func addMACs(used map[pitrix.MAC]string, name string) error {
	const limit = 64 << 20
	return filepath.WalkDir(name, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := readLimited(path, limit)
		if err == nil && bytes.IndexByte(text, 0) < 0 {
			pitrix.AddMACs(used, path, text)
		}
		return err
	})
}

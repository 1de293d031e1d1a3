package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/pitrix"
)

// newPitrixRuns are the commands that drive the installer's scripts.
func newPitrixRuns(a *app, p *pitrixFlags) []*cobra.Command {
	return []*cobra.Command{
		newPitrixNodes(a, p), newPitrixBuild(a, p), newPitrixLaunch(a, p), newPitrixInstall(a, p),
		newPitrixUpdate(a, p), newPitrixExec(a, p), newPitrixStatus(a, p), newPitrixKnownHosts(a, p),
		newPitrixSwitch(a, p), newPitrixVM(a, p),
	}
}

// pitrixBox is a firstbox with what its scripts are called by.
type pitrixBox struct {
	*pitrix.Firstbox
	scripts pitrix.Scripts
	fleet   pitrix.Fleet
	groups  pitrix.Groups // as its lists say
}

// with connects to the firstbox, reads it and calls do.
func (p *pitrixFlags) with(ctx context.Context, a *app, do func(b *pitrixBox) error) (err error) {
	f, done, err := p.firstbox(ctx, a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	b := &pitrixBox{Firstbox: f}
	if b.scripts, err = f.GetScripts(ctx); err != nil {
		return err
	}
	if b.fleet, err = f.ReadFleet(ctx); err != nil {
		return err
	}
	if b.groups, err = f.ReadGroups(ctx); err != nil {
		return err
	}
	return do(b)
}

// run runs a command line on the firstbox. What it writes is progress, and is
// returned with its status.
func (b *pitrixBox) run(ctx context.Context, a *app, line string) ([]byte, int, error) {
	keep := &keepWriter{w: a.err}
	err := b.Host.Run(ctx, "{ "+line+"\n} 2>&1", strings.NewReader(""), keep, io.Discard)
	if err == nil {
		return keep.all, 0, nil
	}
	var ran interface{ ExitStatus() int }
	if errors.As(err, &ran) {
		return keep.all, ran.ExitStatus(), nil
	}
	return keep.all, -1, fmt.Errorf("it is not known how the command ended; look at its log on the firstbox before it is run again: %w", err)
}

// keepWriter passes on what is written and keeps it.
type keepWriter struct {
	w   io.Writer
	all []byte
}

func (k *keepWriter) Write(b []byte) (int, error) {
	k.all = append(k.all, b...)
	return k.w.Write(b)
}

// script shows a command line and runs it if it was told to; parse reads what
// it wrote. A dry run and a real one have the line in their result alike.
func (b *pitrixBox) script(ctx context.Context, a *app, x *execution, before []string, line string, parse func(out []byte, status int) error) error {
	return x.change(a, append(before, line), func() error {
		out, status, err := b.run(ctx, a, line)
		if err != nil {
			return err
		}
		return parse(out, status)
	})
}

// roleFlag says of which role the nodes must be.
type roleFlag struct{ role string }

func (r *roleFlag) flag(a *app, cmd *cobra.Command) {
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "\n\n" + a.t("NODES is a role, as in 'proxy', or names of nodes with commas between them; then --role says which role they have.", "NODES 是角色名（如 proxy），或以逗号分隔的节点名；后者需用 --role 指明其角色。")
	}
	cmd.Flags().StringVar(&r.role, "role", "", a.t("the role the nodes must be of (default: NODES itself, as in 'proxy')", "节点必须属于的角色（默认即 NODES 本身，如 proxy）"))
}

// scoped is with for a command on nodes, which must be of the role.
func (p *pitrixFlags) scoped(ctx context.Context, a *app, r *roleFlag, words string, do func(b *pitrixBox, scope pitrix.Scope) error) error {
	return p.with(ctx, a, func(b *pitrixBox) error {
		role := r.role
		if role == "" {
			role = words
		}
		scope, err := pitrix.NewScope(b.fleet, b.groups, words, pitrix.Allow{Role: role})
		if err != nil {
			first, _, _ := strings.Cut(words, ",")
			if n := b.fleet[first]; n != nil && r.role == "" {
				is, _ := n.Get("role")
				err = fmt.Errorf(a.t("%w, or add --role %s", "%w，或加上 --role %s"), err, is)
			}
			return err
		}
		return do(b, scope)
	})
}

func newPitrixNodes(a *app, p *pitrixFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: a.t("generate the node lists, and compare them with the settings", "刷新节点列表，并与 settings 核对"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd.Context(), a, func(b *pitrixBox) error {
				site, err := b.ReadSite(cmd.Context())
				if err != nil {
					return err
				}
				want, err := pitrix.GroupsOf(b.fleet, site)
				if err != nil {
					return err
				}
				stale := want.Diff(b.groups)
				for _, line := range stale {
					a.progress("%s", line)
				}
				return b.script(cmd.Context(), a, x, nil, b.scripts.GenNodeList(), func(out []byte, status int) error {
					if err := pitrix.ParseGenNodeList(out, status); err != nil {
						return err
					}
					got, err := b.ReadGroups(cmd.Context())
					if err != nil {
						return err
					}
					if stale := want.Diff(got); len(stale) > 0 {
						return fmt.Errorf("the lists differ from the settings after they were generated: %s", strings.Join(stale, "; "))
					}
					return nil
				})
			})
		},
	}
	x.flag(a, cmd)
	return cmd
}

func newPitrixBuild(a *app, p *pitrixFlags) *cobra.Command {
	x := &execution{}
	key := ""
	cmd := &cobra.Command{
		Use:       "build all|global",
		Short:     a.t("build all packages, or those with the global configuration (saving its backups of the day first)", "构建全部软件包，或全局配置相关的包（先保存当日备份）"),
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"all", "global"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), a, func(b *pitrixBox) error {
				line := b.scripts.BuildPackages()
				if args[0] == "global" {
					var err error
					if line, err = b.scripts.BuildGlobalConf(key); err != nil {
						return &usageError{err}
					}
				}
				return b.script(cmd.Context(), a, x, nil, line, func(out []byte, status int) error {
					_, err := pitrix.ParseBuild(out, status)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "by-hand", a.t("global: name of the saved backups, variables/.upgradectl-KEY", "global：保存备份的名称 variables/.upgradectl-KEY"))
	x.flag(a, cmd)
	return cmd
}

func newPitrixLaunch(a *app, p *pitrixFlags) *cobra.Command {
	x, role := &execution{}, &roleFlag{}
	how := pitrix.Launch{}
	strategy := ""
	cmd := &cobra.Command{
		Use:   "launch NODES",
		Short: a.t("make and start the VMs of nodes on the hosts that their settings name", "在 settings 指定的物理机上创建并启动管理虚机"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			how.Strategy = pitrix.Strategy(strategy)
			return p.scoped(cmd.Context(), a, role, args[0], func(b *pitrixBox, scope pitrix.Scope) error {
				line, err := b.scripts.LaunchVMs(scope, how)
				if err != nil {
					return &usageError{err}
				}
				return b.script(cmd.Context(), a, x, nil, line, func(out []byte, status int) error {
					_, err := pitrix.ParseLaunch(scope, out, status)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&strategy, "strategy", string(pitrix.SideBySide), a.t("side-by-side (the old nodes serve) or in-place", "side-by-side（旧节点仍在服务）或 in-place"))
	cmd.Flags().BoolVar(&how.Force, "force", false, a.t("in-place only: destroy what has the VM's name on that host first", "仅限 in-place：先销毁该物理机上的同名虚机"))
	role.flag(a, cmd)
	x.flag(a, cmd)
	return cmd
}

func newPitrixInstall(a *app, p *pitrixFlags) *cobra.Command {
	x, role := &execution{}, &roleFlag{}
	cmd := &cobra.Command{
		Use:   "install NODES",
		Short: a.t("install the system on new nodes, which reboot several times", "安装新节点的系统（节点将多次重启）"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.scoped(cmd.Context(), a, role, args[0], func(b *pitrixBox, scope pitrix.Scope) error {
				line, err := b.scripts.InstallNodes(scope)
				if err != nil {
					return err
				}
				reached, err := b.reached(cmd.Context(), scope)
				if err != nil {
					return err
				}
				return b.script(cmd.Context(), a, x, reached, line, func(out []byte, status int) error {
					_, err := pitrix.ParseInstall(scope, out, status)
					return err
				})
			})
		},
	}
	role.flag(a, cmd)
	x.flag(a, cmd)
	return cmd
}

// reached proves that the scripts, which log in to names, reach the machines
// of the settings: each must have the MAC address that its file names.
func (b *pitrixBox) reached(ctx context.Context, scope pitrix.Scope) ([]string, error) {
	var lines []string
	for _, name := range scope.Nodes() {
		text, _ := b.fleet[name].Get("mgmt_network_mac_address")
		if text == "" {
			continue // a physical node, of which there is one
		}
		mac, err := pitrix.ParseMAC(text)
		if err != nil {
			return nil, fmt.Errorf("%s: mgmt_network_mac_address: %w", name, err)
		}
		if err := b.ProveName(ctx, name, pitrix.Identity{MACs: []pitrix.MAC{mac}}); err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("# ssh %s reaches the machine with %s, as its settings say", name, mac))
	}
	return lines, nil
}

func newPitrixUpdate(a *app, p *pitrixFlags) *cobra.Command {
	x, role := &execution{}, &roleFlag{}
	cmd := &cobra.Command{
		Use:   "update NODES PACKAGE...",
		Short: a.t("install packages on nodes of one role", "在同一角色的节点上安装软件包"),
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.scoped(cmd.Context(), a, role, args[0], func(b *pitrixBox, scope pitrix.Scope) error {
				packages := args[1:]
				line, err := b.scripts.Update(scope, packages...)
				if err != nil {
					return &usageError{err}
				}
				if err := b.CheckMarker(cmd.Context(), scope); err != nil {
					return err
				}
				if _, err := b.PackageFiles(cmd.Context(), packages...); err != nil {
					return err
				}
				reached, err := b.reached(cmd.Context(), scope)
				if err != nil {
					return err
				}
				return b.script(cmd.Context(), a, x, reached, line, func(out []byte, status int) error {
					_, err := pitrix.ParseUpdate(scope, packages, out, status)
					return err
				})
			})
		},
	}
	role.flag(a, cmd)
	x.flag(a, cmd)
	return cmd
}

func newPitrixExec(a *app, p *pitrixFlags) *cobra.Command {
	x, role := &execution{}, &roleFlag{}
	cmd := &cobra.Command{
		Use:   "exec NODES COMMAND",
		Short: a.t("run a command on nodes of one role, with its real exit status", "在同一角色的节点上执行命令，取得真实退出码"),
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.scoped(cmd.Context(), a, role, args[0], func(b *pitrixBox, scope pitrix.Scope) error {
				const tag = "upgradectl"
				line, err := b.scripts.Exec(scope, tag, args[1])
				if err != nil {
					return &usageError{err}
				}
				if err := b.CheckMarker(cmd.Context(), scope); err != nil {
					return err
				}
				if !x.execute {
					return x.change(a, []string{line}, nil)
				}
				out, _, err := b.run(cmd.Context(), &app{err: io.Discard}, line)
				if err != nil {
					return err
				}
				return a.execResults(scope, tag, out)
			})
		},
	}
	role.flag(a, cmd)
	x.flag(a, cmd)
	return cmd
}

// execResults prints what a command did on each node.
func (a *app) execResults(scope pitrix.Scope, tag string, out []byte) error {
	results, err := pitrix.ParseExec(scope, tag, out)
	if err != nil {
		return err
	}
	err = a.result(struct {
		Executed bool                `json:"executed"`
		Results  []pitrix.ExecResult `json:"results"`
	}{true, results}, func(w io.Writer) {
		for _, r := range results {
			switch {
			case r.Unreachable:
				fmt.Fprintf(w, "%s: %s\n", r.Node, a.t("unreachable", "不可达"))
				continue
			case r.Status < 0:
				fmt.Fprintf(w, "%s: %s\n", r.Node, a.t("not known whether it ran", "不确定是否已执行"))
			default:
				fmt.Fprintf(w, "%s: %s %d\n", r.Node, a.t("status", "退出码"), r.Status)
			}
			for line := range strings.Lines(r.Output) {
				fmt.Fprintf(w, "  %s", line)
			}
		}
	})
	return errors.Join(err, pitrix.ExecFailed(results))
}

func newPitrixStatus(a *app, p *pitrixFlags) *cobra.Command {
	role := &roleFlag{}
	cmd := &cobra.Command{
		Use:   "status NODES",
		Short: a.t("supervisorctl status on nodes of one role, judged", "查看同一角色节点的 supervisorctl 状态并判定"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.scoped(cmd.Context(), a, role, args[0], func(b *pitrixBox, scope pitrix.Scope) error {
				results, err := b.Exec(cmd.Context(), b.scripts, scope, "supervisorctl status")
				if err != nil {
					return err
				}
				return a.programs(results)
			})
		},
	}
	role.flag(a, cmd)
	return cmd
}

// nodeStatus is what status says of one node.
type nodeStatus struct {
	Node     string           `json:"node"`
	Verdict  pitrix.Verdict   `json:"verdict,omitempty"`
	Programs []pitrix.Program `json:"programs"`
	Error    string           `json:"error,omitempty"`
}

func (a *app) programs(results []pitrix.ExecResult) error {
	states, good := []nodeStatus{}, true
	for _, r := range results {
		s := nodeStatus{Node: r.Node, Programs: []pitrix.Program{}}
		switch sup, err := pitrix.ParseSupervisor([]byte(r.Output), r.Status); {
		case r.Unreachable:
			s.Error = a.t("unreachable", "不可达")
		case r.Status < 0:
			s.Error = a.t("not known whether it ran: ", "不确定是否已执行：") + strings.TrimSpace(r.Output)
		case err != nil:
			s.Error = err.Error()
		default:
			s.Verdict, s.Programs = sup.Verdict(), sup.Programs
		}
		good = good && s.Verdict == pitrix.VerdictRunning
		states = append(states, s)
	}
	err := a.result(struct {
		Nodes []nodeStatus `json:"nodes"`
	}{states}, func(w io.Writer) {
		for _, s := range states {
			if s.Error != "" {
				fmt.Fprintf(w, "%s: %s\n", s.Node, s.Error)
				continue
			}
			fmt.Fprintf(w, "%s: %s: %s\n", s.Node, s.Verdict, pitrix.Supervisor{Programs: s.Programs})
		}
	})
	if err == nil && !good {
		return &exitError{code: exitRefused}
	}
	return err
}

func newPitrixKnownHosts(a *app, p *pitrixFlags) *cobra.Command {
	x := &execution{}
	port, all := 22, false
	cmd := &cobra.Command{
		Use:   "known-hosts NAME|ADDRESS...",
		Short: a.t("remove host keys from the firstbox's known_hosts, and with --all from every node's", "从 firstbox（加 --all 时及全部节点）的 known_hosts 删除主机密钥"),
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			names := pitrix.KnownHostsNames(args, port)
			if _, err := pitrix.RemoveKnownHosts("", names); err != nil {
				return &usageError{err}
			}
			return p.with(cmd.Context(), a, func(b *pitrixBox) error {
				const tag = "upgradectl"
				here, err := pitrix.RemoveKnownHosts(b.Root+pitrix.KnownHostsFile, names)
				if err != nil {
					return err
				}
				what := []string{here}
				line, scope, err := b.scripts.RemoveKnownHosts(b.fleet, b.groups, tag, names)
				if err != nil {
					return err
				}
				if all {
					what = append(what, line)
				}
				return x.change(a, what, func() error {
					removed, err := b.RemoveKnownHosts(cmd.Context(), names)
					if err != nil {
						return err
					}
					a.progress("firstbox: %s", strings.Join(removed, " "))
					if !all {
						return nil
					}
					out, _, err := b.run(cmd.Context(), &app{err: io.Discard}, line)
					if err != nil {
						return err
					}
					results, err := pitrix.ParseExec(scope, tag, out)
					if err != nil {
						return err
					}
					for _, r := range results {
						if removed := pitrix.ParseRemoveKnownHosts([]byte(r.Output)); len(removed) > 0 {
							a.progress("%s: %s", r.Node, strings.Join(removed, " "))
						}
					}
					return pitrix.ExecFailed(results)
				})
			})
		},
	}
	cmd.Flags().IntVar(&port, "port", 22, a.t("SSH port of the nodes: entries for another one are [NAME]:PORT", "节点的 SSH 端口：非 22 时条目写作 [NAME]:PORT"))
	cmd.Flags().BoolVar(&all, "all", false, a.t("on all nodes too, by exec_nodes.sh", "同时在全部节点上执行（exec_nodes.sh）"))
	x.flag(a, cmd)
	return cmd
}

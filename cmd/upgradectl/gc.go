package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newGC(a *app) *cobra.Command {
	var (
		config  string
		o       upgrade.GCOptions
		run     string
		execute bool
	)
	cmd := &cobra.Command{
		Use:   "gc [--run RUN]",
		Short: a.t("list what dead runs have left in the cloud and on hosts, and remove it", "列出并清除已中断的运行在云上与主机上的遗留"),
		Long: a.t(`gc finds by tag, by journal, by leases and by marks in nginx files what runs have
left behind. With --run RUN --execute it removes the instance, image and, with
--snapshots, the snapshots of that one run. It never removes what a run needs
that can still be resumed or rolled back, nor a host that traffic may reach.`,
			`gc 按标签、日志、租约以及 nginx 文件中的标记查找运行的遗留。使用 --run 运行 --execute
清除该运行的实例、镜像，以及（加 --snapshots 时）快照。仍可续跑或回退的运行所需之物，
以及流量仍可能到达的主机，绝不清除。`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if execute && run == "" {
				return usagef(a.t("--execute needs --run: one run at a time", "--execute 需要 --run：一次一个运行"))
			}
			if run != "" {
				// A dead run may have no directory any more: then it is the whole ID.
				o.Run = run
				if dir, err := upgrade.FindRun(run); err == nil {
					r, err := upgrade.ReadReport(dir)
					if err != nil {
						return runError(err)
					}
					o.Run, o.Dir = r.Run, dir
				}
			}
			cfg, err := upgrade.LoadConfig(config)
			if err != nil {
				return err
			}
			e, err := upgrade.NewEnv(cfg, &upgrade.Access{Held: a.held})
			if err != nil {
				return err
			}
			defer e.Close()
			list, err := upgrade.ListLeftovers(cmd.Context(), cfg, e, o)
			if err != nil {
				return runError(err)
			}
			removed := []string{}
			if execute {
				err := upgrade.RemoveLeftovers(cmd.Context(), cfg, e, o, list, func(what string) {
					removed = append(removed, what)
					a.progress(a.t("removed %s", "已清除 %s"), what)
				})
				if err != nil {
					return runError(err)
				}
			}
			out := struct {
				Leftovers []upgrade.Leftover `json:"leftovers"`
				Removed   []string           `json:"removed"`
			}{list, removed}
			if out.Leftovers == nil {
				out.Leftovers = []upgrade.Leftover{}
			}
			return a.result(out, func(w io.Writer) {
				goes := 0
				for _, l := range list {
					keep := l.Keep
					if keep == "" {
						goes++
						keep = a.t("can go", "可清除")
					}
					at := "-"
					if !l.Created.IsZero() {
						at = l.Created.Format(time.RFC3339)
					}
					fmt.Fprintf(w, "%-14s %-28s %-20s %s  %s\n", l.Kind, l.ID, at, l.Run, keep)
				}
				switch {
				case len(list) == 0:
					fmt.Fprintln(w, a.t("nothing is left", "没有遗留"))
				case !execute && goes > 0:
					fmt.Fprintln(w, a.t("nothing was removed; remove what can go with --run RUN --execute", "未清除任何内容；用 --run 运行 --execute 清除可清除者"))
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&config, "config", "c", "upgrade.yaml", a.t("configuration file", "配置文件"))
	f.StringVar(&run, "run", "", a.t("run directory, prefix of an ID, or the ID of a run whose directory is lost", "运行目录、编号前缀，或目录已丢失的运行的编号"))
	f.BoolVar(&o.Snapshots, "snapshots", false, a.t("snapshots go too", "同时清除快照"))
	f.BoolVar(&execute, "execute", false, a.t("remove", "清除"))
	return cmd
}

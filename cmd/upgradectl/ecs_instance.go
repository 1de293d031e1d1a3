package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/slb"
)

func instanceRow(i ecs.Instance) []string {
	release := "-"
	if !i.AutoReleaseTime.IsZero() {
		release = i.AutoReleaseTime.UTC().Format(time.RFC3339)
	}
	return []string{i.ID, dash(i.Name), i.Status, dash(strings.Join(i.PrivateIPs, ",")), dash(strings.Join(i.PublicIPs, ",")), i.Type, i.Zone, release}
}

var instanceHead = []string{"ID", "NAME", "STATUS", "PRIVATE", "PUBLIC", "TYPE", "ZONE", "AUTO-RELEASE"}

func newInstanceList(a *app, c *cloudFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: a.t("list instances of the region", "列出本地域的实例"),
		Args:  cobra.NoArgs,
	}
	tags := tagFlag(a, cmd, a.t("only instances with this tag", "仅列出带此标签的实例"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		want, err := tags()
		if err != nil {
			return err
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		list, err := client.ListInstances(cmd.Context(), ecs.Filter{Tags: want})
		if err != nil {
			return err
		}
		return a.result(nonNil(list), func(w io.Writer) {
			rows := make([][]string, 0, len(list))
			for _, i := range list {
				rows = append(rows, instanceRow(i))
			}
			table(w, instanceHead, rows)
		})
	}
	return cmd
}

// instanceView is an instance as show and check print it.
type instanceView struct {
	Instance *ecs.Instance `json:"instance"`
	Disks    []ecs.Disk    `json:"disks"`
	Clone    []ecs.Blocker `json:"clone"` // what a copy lacks, obstacles first
}

func viewInstance(ctx context.Context, client *ecs.Client, what string) (*instanceView, error) {
	i, err := findInstance(ctx, client, what)
	if err != nil {
		return nil, err
	}
	i, disks, err := client.GetDetails(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	return &instanceView{i, nonNil(disks), nonNil(ecs.CheckClone(i, disks))}, nil
}

func (v *instanceView) blocked() bool { return len(v.Clone) > 0 && v.Clone[0].Blocking }

func printBlockers(a *app, w io.Writer, list []ecs.Blocker) {
	rows := make([][]string, 0, len(list))
	for _, b := range list {
		kind := a.t("note", "提示")
		if b.Blocking {
			kind = a.t("OBSTACLE", "障碍")
		}
		rows = append(rows, []string{kind, b.Code, b.Object, b.Reason, b.Remedy})
	}
	table(w, []string{a.t("FOR A COPY", "克隆"), "CODE", "OBJECT", "REASON", "REMEDY"}, rows)
}

func newInstanceShow(a *app, c *cloudFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "show INSTANCE",
		Short: a.t("show an instance (ID, private address or name), its disks and what a copy of it would lack", "显示实例（ID、内网地址或名称）、磁盘以及克隆所缺"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.ecs()
			if err != nil {
				return err
			}
			v, err := viewInstance(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			return a.result(v, func(w io.Writer) {
				i := v.Instance
				table(w, instanceHead, [][]string{instanceRow(*i)})
				fmt.Fprintln(w)
				var rows [][]string
				for _, kv := range [][2]string{
					{"vswitch", i.VSwitch}, {"security groups", strings.Join(i.SecurityGroups, ",")}, {"key pair", i.KeyPair}, {"RAM role", i.RAMRole},
					{"charge", i.ChargeType}, {"image", i.ImageID}, {"system", i.OSName}, {"network interfaces", strings.Join(i.ENIs, ",")},
					{"deployment set", i.DeploymentSetID}, {"resource group", i.ResourceGroupID}, {"locks", strings.Join(i.Locks, ",")},
				} {
					if kv[1] != "" {
						rows = append(rows, []string{kv[0], kv[1]})
					}
				}
				if i.UserDataBytes > 0 {
					rows = append(rows, []string{"user data", strconv.Itoa(i.UserDataBytes) + " bytes"})
				}
				for _, k := range slices.Sorted(maps.Keys(i.Tags)) {
					rows = append(rows, []string{"tag", k + "=" + i.Tags[k]})
				}
				table(w, []string{"ATTRIBUTE", "VALUE"}, rows)
				fmt.Fprintln(w)
				rows = nil
				for _, d := range v.Disks {
					rows = append(rows, []string{d.ID, d.Type, d.Device, strconv.Itoa(d.Size) + " GiB", strings.TrimSpace(d.Category + " " + d.PerformanceLevel), d.Status})
				}
				table(w, []string{"DISK", "TYPE", "DEVICE", "SIZE", "CATEGORY", "STATUS"}, rows)
				if len(v.Clone) > 0 {
					fmt.Fprintln(w)
					printBlockers(a, w, v.Clone)
				}
			})
		},
	}
}

func newInstanceCheck(a *app, c *cloudFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "check INSTANCE",
		Short: a.t("tell whether an instance can be copied: obstacles, stock, price and a dry run; makes nothing", "检查实例能否克隆：障碍、库存、价格与试运行；不创建任何资源"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			client, err := c.ecs()
			if err != nil {
				return err
			}
			v, err := viewInstance(ctx, client, args[0])
			if err != nil {
				return err
			}
			res := struct {
				*instanceView
				Stock  *ecs.Stock `json:"stock"`
				Price  *ecs.Price `json:"price"`
				DryRun string     `json:"dry_run"` // "ok", "not possible" or what was refused
				OK     bool       `json:"ok"`
			}{instanceView: v, DryRun: "ok"}
			if res.Stock, err = client.Stock(ctx, v.Instance.Type, v.Instance.Zone); err != nil {
				return err
			}
			in := ecs.CloneInput{Source: v.Instance, Disks: v.Disks, Name: "upgradectl-check"}
			if res.Price, err = client.Price(ctx, in); err != nil {
				return err
			}
			var refused *ecs.Error
			switch err := client.DryRunClone(ctx, in); {
			case err == nil:
			case errors.Is(err, ecs.ErrNotFound):
				// The image that the instance was made of is gone: quite usual, and
				// nothing against a copy.
				res.DryRun = "not possible"
			case errors.As(err, &refused) && refused.Definitive:
				res.DryRun = refused.Error()
			default:
				return err
			}
			res.OK = !v.blocked() && res.Stock.Available && (res.DryRun == "ok" || res.DryRun == "not possible")
			err = a.result(res, func(w io.Writer) {
				printBlockers(a, w, v.Clone)
				fmt.Fprintf(w, a.t("stock of %s in %s: %s\n", "%s 在 %s 的库存：%s\n"), res.Stock.Type, res.Stock.Zone, dash(res.Stock.Category))
				fmt.Fprintf(w, a.t("price: %.4f %s an hour\n", "价格：每小时 %.4f %s\n"), res.Price.Hourly, res.Price.Currency)
				fmt.Fprintf(w, a.t("dry run: %s\n", "试运行：%s\n"), res.DryRun)
			})
			if err == nil && !res.OK {
				return &exitError{exitRefused, fmt.Errorf("instance %s (%s) cannot be copied as it is", v.Instance.ID, dash(v.Instance.Name))}
			}
			return err
		},
	}
}

func newInstancePower(a *app, c *cloudFlags, verb, short, reach string) *cobra.Command {
	x := &execution{}
	force := false
	cmd := &cobra.Command{
		Use:   verb + " INSTANCE",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			client, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := findInstance(ctx, client, args[0])
			if err != nil {
				return err
			}
			if i.Status == reach {
				return x.change(a, nil, nil)
			}
			what := []string{fmt.Sprintf("%s instance %s (%s, %s), which is %s", verb, i.ID, dash(i.Name), dash(strings.Join(i.PrivateIPs, ",")), i.Status)}
			if force {
				what[0] += a.t("; its power is cut, what it has not written is lost", "；将强制断电，未写入的数据会丢失")
			}
			return x.change(a, what, func() error {
				switch {
				case verb == "start":
					err = client.StartInstance(ctx, i.ID)
				case force:
					err = client.ForceStopInstance(ctx, i.ID)
				default:
					err = client.StopInstance(ctx, i.ID)
				}
				if err != nil {
					return err
				}
				_, err = client.WaitInstance(ctx, i.ID, reach, a.cloudProgress)
				return err
			})
		},
	}
	x.flag(a, cmd)
	if verb == "stop" {
		cmd.Flags().BoolVar(&force, "force", false, a.t("cut the power of a guest that hangs", "强制断电，仅用于无响应的系统"))
	}
	return cmd
}

func newInstanceReboot(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "reboot INSTANCE",
		Short: a.t("reboot an instance and wait until its boot ID, read through Cloud Assistant, has changed", "重启实例，并通过云助手等待 boot ID 变化以证明重启"),
		Args:  cobra.ExactArgs(1),
	}
	noWait := false
	cmd.Flags().BoolVar(&noWait, "no-wait", false, a.t("do not wait: for hosts without the Cloud Assistant agent", "不等待：用于没有云助手的主机"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		client, err := c.ecs()
		if err != nil {
			return err
		}
		i, err := findInstance(ctx, client, args[0])
		if err != nil {
			return err
		}
		what := []string{fmt.Sprintf("reboot instance %s (%s, %s), which is %s", i.ID, dash(i.Name), dash(strings.Join(i.PrivateIPs, ",")), i.Status)}
		return x.change(a, what, func() error {
			if noWait {
				return client.RebootInstance(ctx, i.ID)
			}
			id, err := client.RebootAndWait(ctx, i.ID, func(ctx context.Context) (string, error) {
				r, err := client.RunCommand(ctx, ecs.CommandInput{InstanceID: i.ID, Script: "cat /proc/sys/kernel/random/boot_id", Timeout: 20 * time.Second})
				if err != nil {
					return "", err
				}
				if r.ExitCode != 0 {
					return "", fmt.Errorf("the boot ID cannot be read: exit status %d", r.ExitCode)
				}
				return strings.TrimSpace(string(r.Output)), nil
			})
			if err == nil {
				a.progress("boot ID %s", id)
			}
			return err
		})
	}
	x.flag(a, cmd)
	return cmd
}

func newInstanceWait(a *app, c *cloudFlags) *cobra.Command {
	status := ""
	timeout := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "wait INSTANCE",
		Short: a.t("wait until an instance has a status", "等待实例进入某状态"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if status != ecs.StatusRunning && status != ecs.StatusStopped {
				return usagef("--status is Running or Stopped, not %q", status)
			}
			ctx, cancel := waitContext(cmd.Context(), timeout)
			defer cancel()
			client, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := findInstance(ctx, client, args[0])
			if err != nil {
				return err
			}
			if i, err = client.WaitInstance(ctx, i.ID, status, a.cloudProgress); err != nil {
				return err
			}
			return a.result(i, func(w io.Writer) { table(w, instanceHead, [][]string{instanceRow(*i)}) })
		},
	}
	cmd.Flags().StringVar(&status, "status", ecs.StatusRunning, a.t("Running or Stopped", "Running 或 Stopped"))
	cmd.Flags().DurationVar(&timeout, "timeout", 0, a.t("give up after this time (default: 15m)", "超时时间（默认 15m）"))
	return cmd
}

func waitContext(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return context.WithCancel(ctx)
}

func newInstanceClone(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	var in ecs.CloneInput
	var q ecs.Quarantine
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "clone INSTANCE --image ID",
		Short: a.t("make an instance like another from an image of its disks, paid by use, and wait until it runs", "按镜像创建与源实例相同的按量付费实例，并等待其运行"),
		Args:  cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&in.ImageID, "image", "", a.t("image of the source's disks (m-…)", "源实例磁盘的镜像（m-…）"))
	f.StringVar(&in.Name, "name", "", a.t("name (default: the source's with -transition)", "名称（默认：源名称加 -transition）"))
	f.StringVar(&in.Token, "token", "", a.t("idempotency token of an interrupted attempt", "上次中断所用的幂等令牌"))
	f.BoolVar(&in.PublicIP, "public-ip", false, a.t("give it a public address", "分配公网地址"))
	f.DurationVar(&life, "auto-release", 24*time.Hour, a.t("the cloud releases it after this time; 0 = never", "到期自动释放；0 为永不"))
	f.StringSliceVar(&q.Units, "hold", nil, a.t("systemd units that must not start on it", "在其上不得启动的 systemd 单元"))
	f.StringSliceVar(&in.SecurityGroups, "security-group", nil, a.t("security groups instead of the source's", "替代源实例的安全组"))
	f.BoolVar(&in.NoDeploymentSet, "no-deployment-set", false, a.t("leave it out of the source's deployment set", "不加入源实例的部署集"))
	tags := tagFlag(a, cmd, a.t("tag to put on it", "附加标签"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		var err error
		if in.Tags, err = tags(); err != nil {
			return err
		}
		switch {
		case in.ImageID == "":
			return usagef("give the image of the source's disks: --image m-…")
		case life != 0 && life < 30*time.Minute:
			return usagef("--auto-release is 30m at least, or 0")
		}
		if len(q.Units) > 0 {
			if in.UserData, err = q.UserData(); err != nil {
				return usagef("--hold: %v", err)
			}
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		v, err := viewInstance(ctx, client, args[0])
		if err != nil {
			return err
		}
		if v.blocked() {
			printBlockers(a, a.err, v.Clone)
			return &exitError{exitRefused, fmt.Errorf("refusing to clone instance %s (%s): %s", v.Instance.ID, dash(v.Instance.Name), v.Clone[0].Reason)}
		}
		in.Source, in.Disks = v.Instance, v.Disks
		if in.Name == "" {
			in.Name = v.Instance.Name + "-transition"
		}
		if life > 0 {
			in.AutoRelease = time.Now().Add(life)
		}
		price, err := client.Price(ctx, in)
		if err != nil {
			return err
		}
		if err := client.DryRunClone(ctx, in); err != nil {
			return err
		}
		what := []string{fmt.Sprintf("create instance %s like %s (%s, %s) of image %s for %.4f %s an hour", in.Name, v.Instance.ID, v.Instance.Type, v.Instance.Zone, in.ImageID, price.Hourly, price.Currency)}
		if life > 0 {
			what = append(what, "let the cloud release it at "+in.AutoRelease.UTC().Truncate(time.Minute).Format(time.RFC3339))
		}
		if len(q.Units) > 0 {
			what = append(what, "hold back "+strings.Join(q.Units, ", ")+" on it")
		}
		return creation(a, x, what, func() (*ecs.Instance, error) {
			in.Token = a.newToken(in.Token)
			id, err := client.CreateClone(ctx, in)
			if err != nil {
				return nil, err
			}
			a.progress("%s", id)
			return client.WaitInstance(ctx, id, ecs.StatusRunning, a.cloudProgress)
		}, func(w io.Writer, i *ecs.Instance) { table(w, instanceHead, [][]string{instanceRow(*i)}) })
	}
	x.flag(a, cmd)
	return cmd
}

func newInstanceAutoRelease(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "auto-release INSTANCE DURATION|none",
		Short: a.t("let the cloud release an instance by itself after a time, or never", "设置或取消实例的自动释放时间"),
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var at time.Time
			if args[1] != "none" {
				d, err := time.ParseDuration(args[1])
				if err != nil || d < 30*time.Minute {
					return usagef("%q is neither none nor a duration of 30m at least, as 24h", args[1])
				}
				at = time.Now().Add(d).UTC().Truncate(time.Minute)
			}
			client, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := findInstance(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			if i.AutoReleaseTime.Equal(at) {
				return x.change(a, nil, nil)
			}
			what := []string{fmt.Sprintf("let the cloud release instance %s (%s) at %s", i.ID, dash(i.Name), at.Format(time.RFC3339))}
			if at.IsZero() {
				what = []string{fmt.Sprintf("take back that the cloud releases instance %s (%s) at %s", i.ID, dash(i.Name), i.AutoReleaseTime.Format(time.RFC3339))}
			}
			return x.change(a, what, func() error { return client.SetAutoRelease(cmd.Context(), i.ID, at) })
		},
	}
	x.flag(a, cmd)
	return cmd
}

func newInstanceGroups(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "set-groups INSTANCE GROUP...",
		Short: a.t("make these the security groups of an instance", "将实例的安全组设为给定的各组"),
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := findInstance(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			var what []string
			for _, g := range args[1:] {
				if !slices.Contains(i.SecurityGroups, g) {
					what = append(what, fmt.Sprintf("add instance %s (%s) to security group %s", i.ID, dash(i.Name), g))
				}
			}
			for _, g := range i.SecurityGroups {
				if !slices.Contains(args[1:], g) {
					what = append(what, fmt.Sprintf("take instance %s (%s) out of security group %s", i.ID, dash(i.Name), g))
				}
			}
			return x.change(a, what, func() error { return client.SetSecurityGroups(cmd.Context(), i.ID, args[1:]) })
		},
	}
	x.flag(a, cmd)
	return cmd
}

func newInstanceRun(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "run INSTANCE SCRIPT",
		Short: a.t("run a shell script as root through Cloud Assistant, without SSH; SCRIPT - reads it from standard input", "通过云助手（无需 SSH）以 root 运行脚本；SCRIPT 为 - 时从标准输入读取"),
		Args:  cobra.ExactArgs(2),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, a.t("how long the script may run", "脚本最长运行时间"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		script := args[1]
		if script == "-" {
			b, err := io.ReadAll(io.LimitReader(a.in, 64<<10))
			if err != nil {
				return err
			}
			script = string(b)
		}
		if len(script) > 18<<10 {
			return usagef("the script has more than 18 KiB")
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		i, err := findInstance(cmd.Context(), client, args[0])
		if err != nil {
			return err
		}
		if !x.execute {
			return x.change(a, []string{fmt.Sprintf("run a script of %d bytes as root on instance %s (%s)", len(script), i.ID, dash(i.Name))}, nil)
		}
		r, err := client.RunCommand(cmd.Context(), ecs.CommandInput{InstanceID: i.ID, Script: script, Timeout: timeout})
		if err != nil {
			return err
		}
		res := struct {
			Instance string `json:"instance"`
			ExitCode int    `json:"exit_code"`
			Output   string `json:"output"`
			Dropped  int    `json:"dropped_bytes"`
		}{i.ID, r.ExitCode, string(r.Output), r.Dropped}
		if err := a.result(res, func(w io.Writer) { _, _ = w.Write(r.Output) }); err != nil {
			return err
		}
		if r.Dropped > 0 {
			a.progress(a.t("%d bytes of output were dropped by the cloud", "云端丢弃了 %d 字节输出"), r.Dropped)
		}
		if r.ExitCode != 0 {
			return fmt.Errorf("the script on instance %s ended with exit status %d", i.ID, r.ExitCode)
		}
		return nil
	}
	x.flag(a, cmd)
	return cmd
}

func newInstanceConsole(a *app, c *cloudFlags) *cobra.Command {
	shot := ""
	cmd := &cobra.Command{
		Use:   "console INSTANCE",
		Short: a.t("show the serial console of an instance that does not come back, its status and its agent", "显示无法恢复的实例的串口输出、状态与云助手状态"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := findInstance(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			e := client.CollectEvidence(cmd.Context(), i.ID)
			if shot != "" && len(e.Screenshot) > 0 {
				if err := writeOutput(shot, e.Screenshot, 0o600); err != nil {
					return err
				}
				a.progress(a.t("screen: %s", "截图：%s"), shot)
			}
			res := struct {
				Instance       string    `json:"instance"`
				Status         string    `json:"status"`
				Locks          []string  `json:"locks"`
				Console        string    `json:"console"`
				ConsoleTime    time.Time `json:"console_time,omitzero"`
				ScreenshotSize int       `json:"screenshot_bytes"`
				Agent          ecs.Agent `json:"agent"`
				Problems       []string  `json:"problems"`
			}{e.InstanceID, e.Status, nonNil(e.Locks), string(e.Console), e.ConsoleTime, len(e.Screenshot), e.Agent, nonNil(e.Problems)}
			for _, p := range e.Problems {
				a.progress("%s", p)
			}
			return a.result(res, func(w io.Writer) {
				agent := a.t("agent silent", "云助手无心跳")
				if e.Agent.Running {
					agent = a.t("agent running", "云助手正常")
				}
				fmt.Fprintf(w, "%s %s, %s\n", e.InstanceID, e.Status, agent)
				_, _ = w.Write(e.Console)
			})
		},
	}
	cmd.Flags().StringVar(&shot, "screenshot", "", a.t("also write a picture of its screen (JPEG) to this file", "同时将屏幕截图（JPEG）写入此文件"))
	return cmd
}

// refuseServing refuses what would take an instance away under its traffic.
func refuseServing(ctx context.Context, c *cloudFlags, i *ecs.Instance) error {
	client, err := c.slb()
	if err != nil {
		return err
	}
	list, err := client.Discover(ctx, slb.Server{InstanceID: i.ID, ENIs: i.ENIs, IPs: i.PrivateIPs})
	if err != nil {
		return fmt.Errorf("cannot tell whether a balancer sends traffic to instance %s: %w", i.ID, err)
	}
	for _, m := range list {
		if m.Backend.Weight > 0 {
			return &exitError{exitRefused, fmt.Errorf("refusing to release instance %s (%s): it has weight %d in %s; drain it first ('upgradectl slb drain %s')", i.ID, dash(i.Name), m.Backend.Weight, m.Group(), i.ID)}
		}
	}
	return nil
}

func newInstanceRelease(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "release INSTANCE --tag KEY=VALUE",
		Short: a.t("release an instance for good; it must carry the tag", "彻底释放实例；实例必须带有给定标签"),
		Args:  cobra.ExactArgs(1),
	}
	tags := tagFlag(a, cmd, a.t("tag the instance must carry", "实例必须带有的标签"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		want, err := tags()
		if err != nil {
			return err
		}
		if len(want) != 1 {
			return usagef("give the tag that marks the instance as yours to release: --tag KEY=VALUE, once")
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		i, err := findInstance(cmd.Context(), client, args[0])
		if err != nil {
			return err
		}
		var g ecs.Guard
		for k, v := range want {
			g = ecs.Guard{TagKey: k, TagValue: v}
		}
		// DeleteInstance checks this again; here the dry run tells the truth.
		if i.Tags[g.TagKey] != g.TagValue {
			return &exitError{exitRefused, fmt.Errorf("refusing to release instance %s (%s): it does not carry the tag %s=%s", i.ID, dash(i.Name), g.TagKey, g.TagValue)}
		}
		if err := refuseServing(cmd.Context(), c, i); err != nil {
			return err
		}
		what := []string{fmt.Sprintf("release instance %s (%s, %s) and the disks that go with it, for good", i.ID, dash(i.Name), dash(strings.Join(i.PrivateIPs, ",")))}
		return x.change(a, what, func() error { return client.DeleteInstance(cmd.Context(), i.ID, g) })
	}
	x.flag(a, cmd)
	return cmd
}

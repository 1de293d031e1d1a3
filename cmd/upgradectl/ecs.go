package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/slb"
)

// cloudFlags say which cloud a command works on. There is deliberately no
// flag for credentials: they would stand in the shell's history.
type cloudFlags struct {
	region, endpoint, profile string
	poll                      time.Duration
}

func (c *cloudFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&c.region, "region", "", a.t("region (default: the environment's or the profile's)", "地域（默认取环境变量或配置）"))
	f.StringVar(&c.endpoint, "endpoint", "", a.t("API endpoint; http:// on loopback only", "API 地址；http:// 仅限本机回环"))
	f.StringVar(&c.profile, "profile", "", a.t("profile of ~/.aliyun/config.json", "~/.aliyun/config.json 中的配置名"))
	f.DurationVar(&c.poll, "poll", 3*time.Second, a.t("time between two looks of a wait", "等待时的轮询间隔"))
}

func (c *cloudFlags) ecs() (*ecs.Client, error) {
	return ecs.New(ecs.Config{Region: c.region, Endpoint: c.endpoint, Profile: c.profile, Poll: c.poll})
}

func (c *cloudFlags) slb() (*slb.Client, error) {
	return slb.New(slb.Config{Region: c.region, Endpoint: c.endpoint, Profile: c.profile, Poll: c.poll})
}

func newECS(a *app) *cobra.Command {
	c := &cloudFlags{}
	cmd := &cobra.Command{Use: "ecs", Short: a.t("instances, snapshots and images", "实例、快照与镜像")}
	c.flags(a, cmd)
	instance := &cobra.Command{Use: "instance", Short: a.t("ECS instances", "ECS 实例")}
	instance.AddCommand(
		newInstanceList(a, c), newInstanceShow(a, c),
		newInstancePower(a, c, "start", a.t("start an instance and wait until it runs", "启动实例并等待其运行"), ecs.StatusRunning),
		newInstancePower(a, c, "stop", a.t("shut an instance down and wait until it is stopped; it goes on being charged and keeps its address", "关闭实例并等待停止；继续计费并保留地址"), ecs.StatusStopped),
		newInstancePower(a, c, "reboot", a.t("reboot an instance; that it came back only its boot ID can prove", "重启实例；是否真正重启须以 boot ID 为证"), ""),
		newInstanceRelease(a, c))
	snapshot := &cobra.Command{Use: "snapshot", Short: a.t("snapshots of disks", "磁盘快照")}
	snapshot.AddCommand(newSnapshotList(a, c), newSnapshotCreate(a, c), newSnapshotDelete(a, c))
	image := &cobra.Command{Use: "image", Short: a.t("images of the account", "自定义镜像")}
	image.AddCommand(newImageList(a, c), newImageCreate(a, c), newImageDelete(a, c))
	cmd.AddCommand(instance, snapshot, image)
	return cmd
}

// findInstance takes what a person has at hand: an ID, a private address or
// the name.
func findInstance(ctx context.Context, c *ecs.Client, what string) (*ecs.Instance, error) {
	if strings.HasPrefix(what, "i-") {
		return c.GetInstance(ctx, what)
	}
	if _, err := netip.ParseAddr(what); err == nil {
		return c.FindInstance(ctx, ecs.Lookup{PrivateIP: what})
	}
	return c.FindInstance(ctx, ecs.Lookup{Name: what})
}

// tagFlag adds --tag KEY=VALUE, which may be repeated.
func tagFlag(a *app, cmd *cobra.Command, use string) func() (map[string]string, error) {
	var list []string
	cmd.Flags().StringArrayVar(&list, "tag", nil, use+a.t(", KEY=VALUE; may be repeated", "，KEY=VALUE；可重复"))
	return func() (map[string]string, error) {
		tags := map[string]string{}
		for _, t := range list {
			k, v, ok := strings.Cut(t, "=")
			if !ok || k == "" {
				return nil, usagef("--tag is KEY=VALUE, not %q", t)
			}
			tags[k] = v
		}
		return tags, nil
	}
}

func instanceRow(i ecs.Instance) []string {
	release := "-"
	if !i.AutoReleaseTime.IsZero() {
		release = i.AutoReleaseTime.UTC().Format(time.RFC3339)
	}
	return []string{i.ID, dash(i.Name), i.Status, dash(strings.Join(i.PrivateIPs, ",")), dash(strings.Join(i.PublicIPs, ",")), i.Type, i.Zone, release}
}

var instanceHead = []string{"ID", "NAME", "STATUS", "PRIVATE", "PUBLIC", "TYPE", "ZONE", "AUTO-RELEASE"}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

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

// nonNil makes an empty list [] and not null in JSON.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func newInstanceShow(a *app, c *cloudFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "show INSTANCE",
		Short: a.t("show an instance (ID, private address or name) and its disks", "显示实例（ID、内网地址或名称）及其磁盘"),
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
			disks, err := client.ListDisks(cmd.Context(), i.ID)
			if err != nil {
				return err
			}
			res := struct {
				Instance *ecs.Instance `json:"instance"`
				Disks    []ecs.Disk    `json:"disks"`
			}{i, nonNil(disks)}
			return a.result(res, func(w io.Writer) {
				table(w, instanceHead, [][]string{instanceRow(*i)})
				fmt.Fprintln(w)
				rows := make([][]string, 0, len(disks))
				for _, d := range disks {
					rows = append(rows, []string{d.ID, d.Type, d.Device, strconv.Itoa(d.Size) + " GiB", d.Category, d.Status})
				}
				table(w, []string{"DISK", "TYPE", "DEVICE", "SIZE", "CATEGORY", "STATUS"}, rows)
			})
		},
	}
}

func newInstancePower(a *app, c *cloudFlags, verb, short, reach string) *cobra.Command {
	x := &execution{}
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
			if reach != "" && i.Status == reach {
				return x.change(a, nil, nil)
			}
			what := []string{fmt.Sprintf("%s instance %s (%s, %s), which is %s", verb, i.ID, dash(i.Name), dash(strings.Join(i.PrivateIPs, ",")), i.Status)}
			return x.change(a, what, func() error {
				switch verb {
				case "start":
					err = client.StartInstance(ctx, i.ID)
				case "stop":
					err = client.StopInstance(ctx, i.ID)
				default:
					return client.RebootInstance(ctx, i.ID)
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
	return cmd
}

// cloudProgress shows what a wait for the cloud saw.
func (a *app) cloudProgress(p ecs.Progress) {
	s := fmt.Sprintf("%s %s: %s", p.Object, p.ID, p.Status)
	if p.Percent >= 0 {
		s += fmt.Sprintf(" %d%%", p.Percent)
	}
	if p.Remaining > 0 {
		s += fmt.Sprintf(", %s left", p.Remaining.Round(time.Second))
	}
	a.progress("%s", s)
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
		what := []string{fmt.Sprintf("release instance %s (%s, %s) and the disks that go with it, for good", i.ID, dash(i.Name), dash(strings.Join(i.PrivateIPs, ",")))}
		return x.change(a, what, func() error { return client.DeleteInstance(cmd.Context(), i.ID, g) })
	}
	x.flag(a, cmd)
	return cmd
}

func newSnapshotList(a *app, c *cloudFlags) *cobra.Command {
	var f ecs.SnapshotFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: a.t("list snapshots", "列出快照"),
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&f.InstanceID, "instance", "", a.t("only those of this instance (i-…)", "仅此实例的快照（i-…）"))
	cmd.Flags().StringVar(&f.DiskID, "disk", "", a.t("only those of this disk (d-…)", "仅此磁盘的快照（d-…）"))
	tags := tagFlag(a, cmd, a.t("only snapshots with this tag", "仅列出带此标签的快照"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if f.Tags, err = tags(); err != nil {
			return err
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		list, err := client.ListSnapshots(cmd.Context(), f)
		if err != nil {
			return err
		}
		return a.result(nonNil(list), func(w io.Writer) { table(w, snapshotHead, snapshotRows(list)) })
	}
	return cmd
}

var snapshotHead = []string{"ID", "NAME", "STATUS", "PROGRESS", "DISK", "KIND", "KEPT", "CREATED"}

func snapshotRows(list []ecs.Snapshot) [][]string {
	rows := make([][]string, 0, len(list))
	for _, s := range list {
		kept := "until deleted"
		if s.RetentionDays > 0 {
			kept = strconv.Itoa(s.RetentionDays) + " days"
		}
		rows = append(rows, []string{s.ID, dash(s.Name), s.Status, strconv.Itoa(s.Percent) + "%", dash(s.SourceDiskID), dash(s.SourceDiskType), kept, s.CreationTime.UTC().Format(time.RFC3339)})
	}
	return rows
}

// newToken makes an idempotency token and says how to go on with it.
func (a *app) newToken(given string) string {
	if given != "" {
		return given
	}
	token := "cli-" + rand.Text()
	a.progress(a.t("token %s: repeat the command with --token %s if it is interrupted", "令牌 %s：若中断，用 --token %s 重试同一命令"), token, token)
	return token
}

func newSnapshotCreate(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	var in ecs.SnapshotInput
	var noWait bool
	cmd := &cobra.Command{
		Use:   "create INSTANCE",
		Short: a.t("make a snapshot of every disk of an instance", "为实例的每块磁盘创建快照"),
		Args:  cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", a.t("name (default: the instance's and today's date)", "名称（默认：实例名加日期）"))
	f.IntVar(&in.RetentionDays, "retention-days", 7, a.t("days after which the cloud deletes them; 0 = never", "保留天数；0 为永久"))
	f.StringVar(&in.Token, "token", "", a.t("idempotency token of an interrupted attempt", "上次中断所用的幂等令牌"))
	f.BoolVar(&noWait, "no-wait", false, a.t("do not wait until they are done", "不等待完成"))
	tags := tagFlag(a, cmd, a.t("tag to put on them", "附加标签"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		var err error
		if in.Tags, err = tags(); err != nil {
			return err
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		i, err := findInstance(ctx, client, args[0])
		if err != nil {
			return err
		}
		disks, err := client.ListDisks(ctx, i.ID)
		if err != nil {
			return err
		}
		in.InstanceID = i.ID
		if in.Name == "" {
			in.Name = "upgradectl-" + i.ID + time.Now().UTC().Format("-20060102")
		}
		what := make([]string, 0, len(disks))
		for _, d := range disks {
			what = append(what, fmt.Sprintf("create a snapshot of disk %s (%s, %d GiB) of instance %s", d.ID, d.Type, d.Size, i.ID))
		}
		var made []ecs.Snapshot
		return x.change(a, what, func() error {
			in.Token = a.newToken(in.Token)
			if made, err = client.CreateSnapshots(ctx, in); err != nil {
				return err
			}
			ids := make([]string, 0, len(made))
			for _, s := range made {
				ids = append(ids, s.ID)
			}
			a.progress("%s", strings.Join(ids, " "))
			if noWait {
				return nil
			}
			_, err = client.WaitSnapshots(ctx, ids, a.cloudProgress)
			return err
		})
	}
	x.flag(a, cmd)
	return cmd
}

func newSnapshotDelete(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "delete ID...",
		Short: a.t("delete snapshots for good", "彻底删除快照"),
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.ecs()
			if err != nil {
				return err
			}
			list, err := client.ListSnapshots(cmd.Context(), ecs.SnapshotFilter{IDs: args})
			if err != nil {
				return err
			}
			what := make([]string, 0, len(list))
			for _, id := range args {
				i := slices.IndexFunc(list, func(s ecs.Snapshot) bool { return s.ID == id })
				if i < 0 {
					return fmt.Errorf("snapshot %s: %w in region %s", id, ecs.ErrNotFound, client.Region())
				}
				what = append(what, fmt.Sprintf("delete snapshot %s (%s) of disk %s, for good", id, dash(list[i].Name), dash(list[i].SourceDiskID)))
			}
			return x.change(a, what, func() error {
				for _, id := range args {
					if err := client.DeleteSnapshot(cmd.Context(), id); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	x.flag(a, cmd)
	return cmd
}

func newImageList(a *app, c *cloudFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: a.t("list the account's own images", "列出自定义镜像"),
		Args:  cobra.NoArgs,
	}
	tags := tagFlag(a, cmd, a.t("only images with this tag", "仅列出带此标签的镜像"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		want, err := tags()
		if err != nil {
			return err
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		list, err := client.ListImages(cmd.Context(), ecs.ImageFilter{Tags: want})
		if err != nil {
			return err
		}
		return a.result(nonNil(list), func(w io.Writer) {
			rows := make([][]string, 0, len(list))
			for _, i := range list {
				rows = append(rows, []string{i.ID, dash(i.Name), i.Status, strconv.Itoa(i.Percent) + "%", strconv.Itoa(i.Size) + " GiB", dash(strings.Join(i.Snapshots, ",")), i.CreationTime.UTC().Format(time.RFC3339)})
			}
			table(w, []string{"ID", "NAME", "STATUS", "PROGRESS", "SIZE", "SNAPSHOTS", "CREATED"}, rows)
		})
	}
	return cmd
}

func newImageCreate(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	var in ecs.ImageInput
	var ids []string
	cmd := &cobra.Command{
		Use:   "create NAME --snapshot ID",
		Short: a.t("make an image of snapshots: the system disk's and any data disks'", "由快照创建镜像：系统盘快照及数据盘快照"),
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringSliceVar(&ids, "snapshot", nil, a.t("snapshots (s-…)", "快照（s-…）"))
	cmd.Flags().StringVar(&in.Token, "token", "", a.t("idempotency token of an interrupted attempt", "上次中断所用的幂等令牌"))
	tags := tagFlag(a, cmd, a.t("tag to put on it", "附加标签"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		var err error
		if in.Tags, err = tags(); err != nil {
			return err
		}
		if len(ids) == 0 {
			return usagef("give the snapshots the image is made of: --snapshot s-…")
		}
		client, err := c.ecs()
		if err != nil {
			return err
		}
		if in.Snapshots, err = client.ListSnapshots(ctx, ecs.SnapshotFilter{IDs: ids}); err != nil {
			return err
		}
		if len(in.Snapshots) != len(ids) {
			return fmt.Errorf("%d of the %d snapshots %s: %w in region %s", len(ids)-len(in.Snapshots), len(ids), strings.Join(ids, ", "), ecs.ErrNotFound, client.Region())
		}
		in.Name = args[0]
		what := []string{fmt.Sprintf("create image %s of %s", in.Name, strings.Join(ids, ", "))}
		return x.change(a, what, func() error {
			in.Token = a.newToken(in.Token)
			id, err := client.CreateImage(ctx, in)
			if err != nil {
				return err
			}
			a.progress("%s", id)
			_, err = client.WaitImage(ctx, id, a.cloudProgress)
			return err
		})
	}
	x.flag(a, cmd)
	return cmd
}

func newImageDelete(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: a.t("delete an image; its snapshots stay", "删除镜像；快照保留"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.ecs()
			if err != nil {
				return err
			}
			list, err := client.ListImages(cmd.Context(), ecs.ImageFilter{IDs: args})
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return fmt.Errorf("image %s: %w in region %s", args[0], ecs.ErrNotFound, client.Region())
			}
			what := []string{fmt.Sprintf("delete image %s (%s); its snapshots stay", list[0].ID, dash(list[0].Name))}
			return x.change(a, what, func() error { return client.DeleteImage(cmd.Context(), args[0]) })
		},
	}
	x.flag(a, cmd)
	return cmd
}

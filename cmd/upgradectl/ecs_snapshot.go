package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
)

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

func newSnapshotCreate(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	var in ecs.SnapshotInput
	var noWait, single, warm bool
	cmd := &cobra.Command{
		Use:   "create INSTANCE",
		Short: a.t("make a snapshot of every disk of an instance, as a group of one moment where the disks allow it", "为实例的每块磁盘创建快照；条件允许时为一致性快照组"),
		Args:  cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", a.t("name (default: the instance's and today's date)", "名称（默认：实例名加日期）"))
	f.IntVar(&in.RetentionDays, "retention-days", 7, a.t("days after which the cloud deletes them; 0 = never", "保留天数；0 为永久"))
	f.StringVar(&in.Token, "token", "", a.t("idempotency token of an interrupted attempt", "上次中断所用的幂等令牌"))
	f.BoolVar(&noWait, "no-wait", false, a.t("do not wait until they are done", "不等待完成"))
	f.BoolVar(&single, "single", false, a.t("one after another, never a group", "逐块创建，不用快照组"))
	f.BoolVar(&warm, "warm-up", false, a.t("only to make later ones short; kept for 3 days", "预热快照，使后续快照更快；保留 3 天"))
	tags := tagFlag(a, cmd, a.t("tag to put on them", "附加标签"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		var err error
		if in.Tags, err = tags(); err != nil {
			return err
		}
		switch {
		case in.RetentionDays < 0 || in.RetentionDays > 65536:
			return usagef("--retention-days is 0 to 65536, not %d", in.RetentionDays)
		case strings.HasPrefix(in.Name, "auto"):
			return usagef("--name: names beginning with auto are the cloud's own")
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
		if warm {
			single = true
			if !cmd.Flags().Changed("retention-days") {
				in.RetentionDays = 0
			}
		}
		what := make([]string, 0, len(disks))
		for _, d := range disks {
			what = append(what, fmt.Sprintf("create a snapshot of disk %s (%s, %d GiB) of instance %s", d.ID, d.Type, d.Size, i.ID))
		}
		if why := ecs.NoSnapshotGroup(disks); !single && why == "" {
			what = append(what, "all of one moment, as a group")
		} else if !single && len(disks) > 1 {
			what = append(what, "one after another, as no group is possible: "+why)
		}
		return creation(a, x, what, func() (*ecs.SnapshotSet, error) {
			in.Token = a.newToken(in.Token)
			set := &ecs.SnapshotSet{}
			switch {
			case warm:
				set.Snapshots, err = client.CreateWarmUp(ctx, in)
			case single:
				set.Snapshots, err = client.CreateSnapshots(ctx, in)
			default:
				set, err = client.CreateSnapshotSet(ctx, in)
			}
			if err != nil {
				return nil, err
			}
			ids := snapshotIDs(set.Snapshots)
			a.progress("%s", strings.TrimSpace(set.GroupID+" "+strings.Join(ids, " ")))
			if noWait {
				return set, nil
			}
			set.Snapshots, err = client.WaitSnapshots(ctx, ids, a.cloudProgress)
			return set, err
		}, func(w io.Writer, set *ecs.SnapshotSet) {
			if set.GroupID != "" {
				fmt.Fprintln(w, "group", set.GroupID)
			}
			table(w, snapshotHead, snapshotRows(set.Snapshots))
		})
	}
	x.flag(a, cmd)
	return cmd
}

func snapshotIDs(list []ecs.Snapshot) []string {
	ids := make([]string, 0, len(list))
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids
}

func newSnapshotWait(a *app, c *cloudFlags) *cobra.Command {
	timeout := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "wait ID...",
		Short: a.t("wait until snapshots are accomplished", "等待快照完成"),
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := waitContext(cmd.Context(), timeout)
			defer cancel()
			client, err := c.ecs()
			if err != nil {
				return err
			}
			list, err := client.WaitSnapshots(ctx, args, a.cloudProgress)
			if err != nil {
				return err
			}
			return a.result(list, func(w io.Writer) { table(w, snapshotHead, snapshotRows(list)) })
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, a.t("give up after this time (default: 2h)", "超时时间（默认 2h）"))
	return cmd
}

func newSnapshotRestore(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	instance := ""
	cmd := &cobra.Command{
		Use:   "restore ID --instance INSTANCE",
		Short: a.t("set the disk of a stopped instance back to a snapshot of it; what was written since is lost", "将已停止实例的磁盘回滚到其快照；之后写入的数据会丢失"),
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&instance, "instance", "", a.t("the instance (ID, private address or name)", "实例（ID、内网地址或名称）"))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if instance == "" {
			return usagef("give the instance whose disk is to be set back: --instance")
		}
		ctx := cmd.Context()
		client, err := c.ecs()
		if err != nil {
			return err
		}
		i, err := findInstance(ctx, client, instance)
		if err != nil {
			return err
		}
		list, err := client.ListSnapshots(ctx, ecs.SnapshotFilter{IDs: args})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("snapshot %s: %w in region %s", args[0], ecs.ErrNotFound, client.Region())
		}
		s := list[0]
		disks, err := client.ListDisks(ctx, i.ID)
		if err != nil {
			return err
		}
		// ResetDisk checks these again; here the dry run tells the truth.
		switch {
		case !slices.ContainsFunc(disks, func(d ecs.Disk) bool { return d.ID == s.SourceDiskID }):
			return &exitError{exitRefused, fmt.Errorf("refusing to overwrite: snapshot %s is of disk %s, which instance %s does not have", s.ID, dash(s.SourceDiskID), i.ID)}
		case i.Status != ecs.StatusStopped:
			return &exitError{exitRefused, fmt.Errorf("refusing to overwrite disk %s: instance %s is %s; stop it first", s.SourceDiskID, i.ID, i.Status)}
		}
		what := []string{fmt.Sprintf("set disk %s of instance %s (%s) back to snapshot %s of %s; everything written since is lost", s.SourceDiskID, i.ID, dash(i.Name), s.ID, s.CreationTime.UTC().Format(time.RFC3339))}
		return x.change(a, what, func() error {
			return client.ResetDisk(ctx, ecs.ResetInput{InstanceID: i.ID, DiskID: s.SourceDiskID, SnapshotID: s.ID}, a.cloudProgress)
		})
	}
	x.flag(a, cmd)
	return cmd
}

func newSnapshotDelete(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   "delete ID...",
		Short: a.t("delete snapshots (s-…) or groups with their snapshots (ssg-…) for good", "彻底删除快照（s-…）或快照组（ssg-…）"),
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			client, err := c.ecs()
			if err != nil {
				return err
			}
			var single, groups []string
			for _, id := range args {
				if strings.HasPrefix(id, "ssg-") {
					groups = append(groups, id)
				} else {
					single = append(single, id)
				}
			}
			what := make([]string, 0, len(args))
			var members []string
			missing := func(object, id string) error {
				return fmt.Errorf("%s %s: %w in region %s", object, id, ecs.ErrNotFound, client.Region())
			}
			if len(single) > 0 {
				list, err := client.ListSnapshots(ctx, ecs.SnapshotFilter{IDs: single})
				if err != nil {
					return err
				}
				for _, id := range single {
					i := slices.IndexFunc(list, func(s ecs.Snapshot) bool { return s.ID == id })
					if i < 0 {
						return missing("snapshot", id)
					}
					what = append(what, fmt.Sprintf("delete snapshot %s (%s) of disk %s, for good", id, dash(list[i].Name), dash(list[i].SourceDiskID)))
				}
			}
			if len(groups) > 0 {
				list, err := client.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{IDs: groups})
				if err != nil {
					return err
				}
				for _, id := range groups {
					i := slices.IndexFunc(list, func(g ecs.SnapshotGroup) bool { return g.ID == id })
					if i < 0 {
						return missing("snapshot group", id)
					}
					members = append(members, snapshotIDs(list[i].Snapshots)...)
					what = append(what, fmt.Sprintf("delete snapshot group %s (%s) with its %d snapshots of instance %s, for good", id, dash(list[i].Name), len(list[i].Snapshots), list[i].InstanceID))
				}
			}
			return x.change(a, what, func() error {
				var errs []error
				for _, id := range single {
					errs = append(errs, client.DeleteSnapshot(ctx, id))
				}
				for _, id := range groups {
					errs = append(errs, client.DeleteSnapshotGroup(ctx, id))
				}
				if len(members) > 0 {
					kept, err := client.ListSnapshots(ctx, ecs.SnapshotFilter{IDs: members})
					errs = append(errs, err)
					for _, s := range kept {
						a.progress(a.t("snapshot %s stays: something is made of it; delete that first, then this", "快照 %s 被保留：仍有资源由其创建，请先删除该资源"), s.ID)
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	x.flag(a, cmd)
	return cmd
}

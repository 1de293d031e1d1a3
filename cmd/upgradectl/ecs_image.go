package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
)

var imageHead = []string{"ID", "NAME", "STATUS", "PROGRESS", "SIZE", "SNAPSHOTS", "CREATED"}

func imageRow(i ecs.Image) []string {
	return []string{i.ID, dash(i.Name), i.Status, strconv.Itoa(i.Percent) + "%", strconv.Itoa(i.Size) + " GiB", dash(strings.Join(i.Snapshots, ",")), i.CreationTime.UTC().Format(time.RFC3339)}
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
				rows = append(rows, imageRow(i))
			}
			table(w, imageHead, rows)
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
		return creation(a, x, what, func() (*ecs.Image, error) {
			in.Token = a.newToken(in.Token)
			id, err := client.CreateImage(ctx, in)
			if err != nil {
				return nil, err
			}
			a.progress("%s", id)
			i, err := client.WaitImage(ctx, id, a.cloudProgress)
			if err == nil {
				for _, f := range i.Findings {
					a.progress(a.t("the cloud's check of the image: %s", "镜像检测：%s"), f)
				}
			}
			return i, err
		}, func(w io.Writer, i *ecs.Image) { table(w, imageHead, [][]string{imageRow(*i)}) })
	}
	x.flag(a, cmd)
	return cmd
}

func newImageWait(a *app, c *cloudFlags) *cobra.Command {
	timeout := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "wait ID",
		Short: a.t("wait until an image is available", "等待镜像可用"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := waitContext(cmd.Context(), timeout)
			defer cancel()
			client, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := client.WaitImage(ctx, args[0], a.cloudProgress)
			if err != nil {
				return err
			}
			return a.result(i, func(w io.Writer) { table(w, imageHead, [][]string{imageRow(*i)}) })
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, a.t("give up after this time (default: 2h)", "超时时间（默认 2h）"))
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

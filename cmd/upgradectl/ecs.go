package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
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
	app                       *app
}

func (c *cloudFlags) flags(a *app, cmd *cobra.Command) {
	c.app = a
	f := cmd.PersistentFlags()
	f.StringVar(&c.region, "region", "", a.t("region (default: the environment's or the profile's)", "地域（默认取环境变量或配置）"))
	f.StringVar(&c.endpoint, "endpoint", "", a.t("API endpoint; http:// on loopback only", "API 地址；http:// 仅限本机回环"))
	f.StringVar(&c.profile, "profile", "", a.t("profile of ~/.aliyun/config.json", "~/.aliyun/config.json 中的配置名"))
	f.DurationVar(&c.poll, "poll", 3*time.Second, a.t("time between two looks of a wait", "等待时的轮询间隔"))
}

func (c *cloudFlags) ecs() (*ecs.Client, error) {
	return ecs.New(ecs.Config{Region: c.region, Endpoint: c.endpoint, Profile: c.profile, Poll: c.poll}, ecs.WithHeld(c.app.held))
}

func (c *cloudFlags) slb() (*slb.Client, error) {
	return slb.New(slb.Config{Region: c.region, Endpoint: c.endpoint, Profile: c.profile, Poll: c.poll}, slb.WithHeld(func(h slb.Held) { c.app.held(ecs.Held(h)) }))
}

func newECS(a *app) *cobra.Command {
	c := &cloudFlags{}
	cmd := &cobra.Command{Use: "ecs", Short: a.t("instances, snapshots and images", "实例、快照与镜像")}
	c.flags(a, cmd)
	instance := &cobra.Command{Use: "instance", Short: a.t("ECS instances", "ECS 实例")}
	instance.AddCommand(
		newInstanceList(a, c), newInstanceShow(a, c), newInstanceCheck(a, c),
		newInstancePower(a, c, "start", a.t("start an instance and wait until it runs", "启动实例并等待其运行"), ecs.StatusRunning),
		newInstancePower(a, c, "stop", a.t("shut an instance down and wait until it is stopped; it goes on being charged and keeps its address", "关闭实例并等待停止；继续计费并保留地址"), ecs.StatusStopped),
		newInstanceReboot(a, c), newInstanceWait(a, c), newInstanceClone(a, c), newInstanceAutoRelease(a, c), newInstanceGroups(a, c),
		newInstanceRun(a, c), newInstanceConsole(a, c), newInstanceRelease(a, c))
	snapshot := &cobra.Command{Use: "snapshot", Short: a.t("snapshots of disks", "磁盘快照")}
	snapshot.AddCommand(newSnapshotList(a, c), newSnapshotCreate(a, c), newSnapshotWait(a, c), newSnapshotRestore(a, c), newSnapshotDelete(a, c))
	image := &cobra.Command{Use: "image", Short: a.t("images of the account", "自定义镜像")}
	image.AddCommand(newImageList(a, c), newImageCreate(a, c), newImageWait(a, c), newImageDelete(a, c))
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

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// nonNil makes an empty list [] and not null in JSON.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// held says that the cloud's flow control is why nothing happens.
func (a *app) held(h ecs.Held) {
	a.progress(a.t("%s waiting for the cloud's flow control since %s: %s (%s); the call is sent again until it passes",
		"%s 自 %s 起等待云端流控放行：%s（%s）；将反复重试，直至放行"), time.Now().Format(time.TimeOnly), h.Since.Format(time.TimeOnly), h.Action, h.Code)
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

// newToken makes an idempotency token and says how to go on with it.
func (a *app) newToken(given string) string {
	if given != "" {
		return given
	}
	token := "cli-" + rand.Text()
	a.progress(a.t("token %s: repeat the command with --token %s if it is interrupted", "令牌 %s：若中断，用 --token %s 重试同一命令"), token, token)
	return token
}

// creation does what a command that makes something shows: as execution.change,
// and with what was made.
func creation[T any](a *app, x *execution, what []string, do func() (T, error), text func(w io.Writer, made T)) error {
	res := struct {
		Executed bool     `json:"executed"`
		Changes  []string `json:"changes"`
		Created  *T       `json:"created,omitempty"`
	}{Changes: append([]string{}, what...)}
	if x.execute {
		made, err := do()
		if err != nil {
			return err
		}
		res.Executed, res.Created = true, &made
	}
	return a.result(res, func(w io.Writer) {
		for _, line := range what {
			fmt.Fprintln(w, line)
		}
		if !res.Executed {
			fmt.Fprintln(w, a.unchanged())
			return
		}
		text(w, *res.Created)
	})
}

package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/slb"
)

func newSLBTraffic(a *app, c *cloudFlags) *cobra.Command {
	var port int
	var host string
	var window, baseline time.Duration
	cmd := &cobra.Command{
		Use:   "traffic BALANCER",
		Short: a.t("who gets a balancer's requests: number, share, 502 and 5xx, against the time before", "负载均衡的请求去了哪里：数量、占比、502 与 5xx，并与之前对比"),
		Long: a.t(`Reads the access log of a balancer (lb-… or alb-…), whose log store is found by
itself, and prints for each listener and member what it got in the last minutes
and in the time before. A member that had requests and gets none now is shown as
missing. Listeners of which the cloud keeps no log (TCP and UDP, logging
switched off) are shown as such: about them only the connections on the hosts
can tell.`, `读取负载均衡（lb-… 或 alb-…）的访问日志（自动找到日志库），按监听和后端列出最近与之前的请求。
之前有请求而现在没有的后端标为 missing。没有日志的监听（TCP、UDP 或未开启日志）会明确标出，
只能通过主机上的连接判断。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := slb.TrafficQuery{LoadBalancerID: args[0], Port: port, Window: window, Baseline: baseline}
			if window < time.Second || baseline < window {
				return usagef("--window is at least 1s, and --baseline at least as long")
			}
			if host != "" {
				if _, err := netip.ParseAddr(host); err == nil {
					q.IPs = []string{host}
				} else {
					ec, err := c.ecs()
					if err != nil {
						return err
					}
					i, err := findInstance(cmd.Context(), ec, host)
					if err != nil {
						return err
					}
					q.IPs = i.PrivateIPs
				}
			}
			client, err := c.slb()
			if err != nil {
				return err
			}
			t, err := client.GetTraffic(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.result(t, func(w io.Writer) { printTraffic(a, w, t) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&port, "port", 0, a.t("only this listener", "仅此监听端口"))
	f.StringVar(&host, "host", "", a.t("only this server (private address, instance ID or name)", "仅此服务器（内网地址、实例 ID 或名称）"))
	f.DurationVar(&window, "window", 5*time.Minute, a.t("how much to look at", "统计的时间窗口"))
	f.DurationVar(&baseline, "baseline", time.Hour, a.t("the time before, to compare with", "用于对比的之前时段"))
	return cmd
}

func printTraffic(a *app, w io.Writer, t slb.Traffic) {
	fmt.Fprintf(w, a.t("%s, %s to %s, baseline from %s (UTC)\n", "%s，%s 至 %s，对比自 %s（UTC）\n"), t.LoadBalancerID,
		t.From.UTC().Format(time.DateTime), t.To.UTC().Format(time.TimeOnly), t.BaselineFrom.UTC().Format(time.DateTime))
	percent := func(c slb.Counts) string { return strconv.FormatFloat(100*c.Share, 'f', 1, 64) + "%" }
	var rows [][]string
	for _, l := range t.Listeners {
		name := fmt.Sprintf("%s:%d", l.Protocol, l.Port)
		if l.Evidence != slb.ByAccessLog {
			rows = append(rows, []string{name, "-", "-", "-", "-", "-", "-", "-", "-", l.Evidence + ": " + l.Reason})
			continue
		}
		row := func(addr string, now, was slb.Counts, note string) {
			rows = append(rows, []string{name, addr, strconv.Itoa(now.Requests), percent(now), strconv.Itoa(now.Status502), strconv.Itoa(now.Status5xx),
				strconv.Itoa(was.Requests), percent(was), fmt.Sprintf("%d/%d", was.Status502, was.Status5xx), note})
		}
		note := ""
		if l.Idle() {
			note = "idle"
		}
		row("*", l.Now, l.Baseline, note)
		for _, u := range l.Upstreams {
			note := ""
			if u.Missing() {
				note = fmt.Sprintf("missing: about %.0f expected", u.Expected)
			}
			row(u.Addr, u.Now, u.Baseline, note)
		}
	}
	table(w, []string{"LISTENER", "UPSTREAM", "REQUESTS", "SHARE", "502", "5XX", "BEFORE", "SHARE", "502/5XX", "NOTE"}, rows)
}

func newSLBPaths(a *app, c *cloudFlags) *cobra.Command {
	var domains, clone []string
	cmd := &cobra.Command{
		Use:   "paths SERVER",
		Short: a.t("what leads to a server past the balancers, and what trusts its address", "绕过负载均衡到达服务器的路径，以及信任其地址的对象"),
		Long: a.t(`Looks for public and elastic addresses, DNAT entries, floating addresses, routes,
scaling groups and domains that lead to a server (instance ID, private address
or name), and, with --clone, for allow lists of databases and security-group
rules that let its address in and not the clone's. What the account may not ask
is listed too, with the permission it needs. Status 4: something blocks.`, `查找绕过负载均衡到达服务器（实例 ID、内网地址或名称）的公网与弹性地址、DNAT、高可用虚拟 IP、路由、
伸缩组和域名；加 --clone 时，还查找放行其地址而未放行克隆地址的数据库白名单与安全组规则。
账号无权查询的项目也会列出，并写明所需权限。返回 4 表示存在阻断项。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			ec, err := c.ecs()
			if err != nil {
				return err
			}
			i, err := findInstance(ctx, ec, args[0])
			if err != nil {
				return err
			}
			client, err := c.slb()
			if err != nil {
				return err
			}
			found, err := client.ListPaths(ctx, slb.PathHost{
				Server: slb.Server{InstanceID: i.ID, ENIs: i.ENIs, IPs: i.PrivateIPs}, VPC: i.VPC, PublicIPs: i.PublicIPs, Tags: i.Tags, Domains: domains,
			})
			if err != nil {
				return err
			}
			if len(clone) > 0 {
				trust, err := ec.ListTrust(ctx, ecs.TrustQuery{Old: i.PrivateIPs, New: clone, VPC: i.VPC, Groups: i.SecurityGroups})
				if err != nil {
					return err
				}
				for _, f := range trust {
					found = append(found, slb.PathFinding(f))
				}
			}
			err = a.result(nonNil(found), func(w io.Writer) {
				if len(found) == 0 {
					fmt.Fprintln(w, a.t("nothing found", "未发现"))
				}
				for _, f := range found {
					fmt.Fprintf(w, "%-5s %s %s\n      %s\n      -> %s\n", f.Severity, f.Kind, f.ID, f.Evidence, f.Remedy)
				}
			})
			if err == nil && slices.ContainsFunc(found, func(f slb.PathFinding) bool { return f.Severity == slb.SeverityBlock }) {
				return &exitError{exitRefused, nil}
			}
			return err
		},
	}
	cmd.Flags().StringSliceVar(&domains, "domain", nil, a.t("look this name up as well; may be repeated", "同时解析此域名；可重复"))
	cmd.Flags().StringSliceVar(&clone, "clone", nil, a.t("private address of the clone, or the block it will be in; may be repeated", "克隆的内网地址或其所在网段；可重复"))
	return cmd
}

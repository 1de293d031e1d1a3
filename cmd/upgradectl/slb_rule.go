package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/slb"
)

func newSLBRule(a *app, c *cloudFlags) *cobra.Command {
	x := &execution{}
	var port int
	var want slb.Rule
	cmd := &cobra.Command{
		Use:   "rule BALANCER --port PORT (--domain NAME | --url PATH) --group GROUP",
		Short: a.t("send the requests for a domain to a VServer group (forwarding rule)", "将某域名的请求转发到虚拟服务器组（转发策略）"),
		Long: a.t(`Creates a forwarding rule of an HTTP or HTTPS listener, so that a domain that led
straight to a host can be moved behind the balancer. A rule that is there already
is left alone; one that sends the same requests to another group is refused
(status 4).`, `为 HTTP 或 HTTPS 监听创建转发策略，以便将直接指向主机的域名迁移到负载均衡之后。
已有的相同策略保持不变；同样的请求已转发到别的组时拒绝（返回 4）。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if port < 1 || port > 65535 || want.VServerGroupID == "" || want.Domain == "" && want.URL == "" {
				return usagef("name the listener (--port), the requests (--domain, --url or both) and the group (--group rsp-…)")
			}
			client, err := c.slb()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			have, err := client.FindRule(ctx, args[0], port, "", want)
			if errors.Is(err, slb.ErrConflict) {
				return &exitError{exitRefused, err}
			}
			if err != nil {
				return err
			}
			if have != nil {
				return x.change(a, nil, nil)
			}
			what := fmt.Sprintf("rule on %s listener %d: %s to group %s", args[0], port, want, want.VServerGroupID)
			return x.change(a, []string{what}, func() error {
				_, err := client.CreateRule(ctx, args[0], port, "", want)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&port, "port", 0, a.t("port of the listener", "监听端口"))
	f.StringVar(&want.Domain, "domain", "", a.t("www.example.com or *.example.com", "www.example.com 或 *.example.com"))
	f.StringVar(&want.URL, "url", "", a.t("path that begins with /", "以 / 开头的路径"))
	f.StringVar(&want.VServerGroupID, "group", "", a.t("VServer group (rsp-…)", "虚拟服务器组（rsp-…）"))
	f.StringVar(&want.Name, "name", "", a.t("name of the rule (default: made of domain and path)", "策略名称（默认由域名与路径生成）"))
	x.flag(a, cmd)
	return cmd
}

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/slb"
)

func newSLB(a *app) *cobra.Command {
	c := &cloudFlags{}
	cmd := &cobra.Command{Use: "slb", Short: a.t("load balancers (CLB, ALB, NLB) and their members", "负载均衡（CLB、ALB、NLB）及其后端")}
	c.flags(a, cmd)
	cmd.AddCommand(newSLBShow(a, c), newSLBWeight(a, c), newSLBAdd(a, c), newSLBRemove(a, c), newSLBDrain(a, c), newSLBHealth(a, c), newSLBTraffic(a, c), newSLBRule(a, c), newSLBPaths(a, c))
	return cmd
}

// memberships finds the server (ID, private address or name) on every
// balancer, and keeps what the flags ask for.
func memberships(ctx context.Context, c *cloudFlags, server string, s selection) (*slb.Client, []slb.Membership, error) {
	ec, err := c.ecs()
	if err != nil {
		return nil, nil, err
	}
	i, err := findInstance(ctx, ec, server)
	if err != nil {
		return nil, nil, err
	}
	client, err := c.slb()
	if err != nil {
		return nil, nil, err
	}
	list, err := client.Discover(ctx, slb.Server{InstanceID: i.ID, ENIs: i.ENIs, IPs: i.PrivateIPs})
	if err != nil {
		return nil, nil, err
	}
	list = slices.DeleteFunc(list, func(m slb.Membership) bool { return !s.matches(m) })
	return client, list, nil
}

// selection narrows memberships down.
type selection struct {
	lb, group string
	port      int
}

func (s *selection) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.lb, "lb", "", a.t("only this balancer (lb-…, alb-…, nlb-…)", "仅此负载均衡（lb-…、alb-…、nlb-…）"))
	f.StringVar(&s.group, "group", "", a.t("only this group (rsp-…, sgp-…), or \"default\"", "仅此服务器组（rsp-…、sgp-…），或 default"))
	f.IntVar(&s.port, "port", 0, a.t("only members with this port", "仅此端口的后端"))
}

func (s *selection) matches(m slb.Membership) bool {
	// A group of ALB or NLB can be behind several balancers.
	return (s.lb == "" || s.lb == m.LoadBalancerID || slices.ContainsFunc(m.Listeners, func(l slb.Listener) bool { return l.LoadBalancerID == s.lb })) &&
		(s.group == "" || s.group == m.VServerGroupID || s.group == "default" && m.VServerGroupID == "" && m.MasterSlaveGroupID == "") &&
		(s.port == 0 || s.port == m.Backend.Port)
}

func (s *selection) none(server string) error {
	if *s == (selection{}) {
		return fmt.Errorf("%s is a member of no balancer of the region", server)
	}
	return fmt.Errorf("no membership of %s fits --lb, --group and --port; 'upgradectl slb show %s' lists them", server, server)
}

func newSLBShow(a *app, c *cloudFlags) *cobra.Command {
	s := &selection{}
	cmd := &cobra.Command{
		Use:   "show SERVER",
		Short: a.t("where a server (instance ID, private address or name) gets traffic from", "查看服务器（实例 ID、内网地址或名称）在哪些负载均衡上"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, list, err := memberships(cmd.Context(), c, args[0], *s)
			if err != nil {
				return err
			}
			views := make([]membershipView, 0, len(list))
			for _, m := range list {
				views = append(views, viewOf(m))
			}
			return a.result(views, func(w io.Writer) {
				rows := make([][]string, 0, len(list))
				var notes []string
				for _, m := range list {
					for _, f := range m.Findings() {
						if line := f.String(); !slices.Contains(notes, line) {
							notes = append(notes, line)
						}
					}
					var ls []string
					for _, l := range m.Listeners {
						ls = append(ls, fmt.Sprintf("%s:%d", l.Protocol, l.Port))
					}
					rows = append(rows, []string{m.LoadBalancerID, dash(m.LoadBalancerName), groupName(m), m.Backend.String(), strconv.Itoa(m.Backend.Weight), serving(m), dash(strings.Join(ls, ","))})
				}
				table(w, []string{"BALANCER", "NAME", "GROUP", "MEMBER", "WEIGHT", "SERVING", "LISTENERS"}, rows)
				for _, line := range notes {
					fmt.Fprintln(w, line)
				}
			})
		},
	}
	s.flags(a, cmd)
	return cmd
}

func groupName(m slb.Membership) string {
	switch {
	case m.VServerGroupID != "":
		return m.VServerGroupID
	case m.MasterSlaveGroupID != "":
		return m.MasterSlaveGroupID
	}
	return "default"
}

// serving says how many members of the group get new connections.
func serving(m slb.Membership) string {
	n := 0
	for _, b := range m.Backends {
		if b.Weight > 0 {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(m.Backends))
}

func newSLBWeight(a *app, c *cloudFlags) *cobra.Command {
	x, s := &execution{}, &selection{}
	var empty bool
	var restore string
	cmd := &cobra.Command{
		Use:   "weight SERVER WEIGHT | --restore FILE",
		Short: a.t("set a server's weight (0 to 100) in every group, or in those the flags name", "设置服务器权重（0–100）：所有组，或参数所选的组"),
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if restore != "" {
				if len(args) > 0 {
					return usagef("--restore takes the servers and weights from its file")
				}
				return restoreWeights(ctx, a, c, x, restore)
			}
			if len(args) != 2 {
				return usagef("weight needs SERVER and WEIGHT, or --restore FILE")
			}
			weight, err := strconv.Atoi(args[1])
			if err != nil || weight < 0 || weight > 100 {
				return usagef("a weight is a number from 0 to 100, not %q", args[1])
			}
			client, list, err := memberships(ctx, c, args[0], *s)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return s.none(args[0])
			}
			var what []string
			var todo []slb.Target
			for _, m := range list {
				if m.Backend.Weight == weight {
					continue
				}
				what = append(what, fmt.Sprintf("weight of %s in %s: %d -> %d", m.Backend, m.Group(), m.Backend.Weight, weight))
				todo = append(todo, slb.Target{Membership: m, Backend: m.Backend, Weight: weight})
			}
			if err := refuseWeight(ctx, a, client, todo, weight, empty); err != nil {
				return err
			}
			return x.change(a, what, func() error {
				for i, t := range todo {
					if err := client.SetWeight(ctx, t.Membership.Group(), t.Backend, weight); err != nil {
						return fmt.Errorf("%w (%d of %d weights were set before)", err, i, len(todo))
					}
				}
				return nil
			})
		},
	}
	s.flags(a, cmd)
	cmd.Flags().BoolVar(&empty, "allow-empty", false, a.t("allow that a group is left without a serving member", "允许组内不再有可用后端"))
	cmd.Flags().StringVar(&restore, "restore", "", a.t("give back the weights in this file, written by slb drain --save", "恢复此文件（slb drain --save 写入）中的权重"))
	x.flag(a, cmd)
	return cmd
}

// refuseWeight says what speaks against a weight: what the balancer would
// refuse or somebody else undo, and for 0 also what would not be drained by it
// or serve nobody any more. The rest is told.
func refuseWeight(ctx context.Context, a *app, client *slb.Client, targets []slb.Target, weight int, empty bool) error {
	var findings []slb.Finding
	for _, t := range targets {
		findings = append(findings, t.Membership.Findings()...)
	}
	if weight == 0 {
		var err error
		if findings, err = client.CheckDrain(ctx, targets); err != nil {
			return err
		}
	}
	for _, f := range findings {
		switch {
		case f.Kind == slb.KindLast && empty, f.Kind == slb.KindScheduler && weight > 0:
		case f.Kind == slb.KindLast:
			return &exitError{exitRefused, fmt.Errorf("refusing weight 0: %s, or --allow-empty", f)}
		case f.Blocking:
			return &exitError{exitRefused, fmt.Errorf("refusing weight %d: %s", weight, f)}
		case weight == 0:
			a.progress("%s", f)
		}
	}
	return nil
}

// target is the group that --lb and --group name.
func (s *selection) target() (slb.Group, error) {
	if s.lb == "" || s.group == "" {
		return slb.Group{}, usagef("name the group: --lb lb-… and --group rsp-… or --group default")
	}
	g := slb.Group{LoadBalancerID: s.lb, VServerGroupID: s.group}
	if s.group == "default" {
		g.VServerGroupID = ""
	}
	for _, p := range []slb.Product{slb.ALB, slb.NLB} {
		if strings.HasPrefix(s.lb, string(p)+"-") {
			g.Product = p
		}
	}
	if (s.port == 0) != (g.VServerGroupID == "") {
		return slb.Group{}, usagef("--port is needed for a VServer group, and has no meaning in the default group")
	}
	return g, nil
}

func newSLBAdd(a *app, c *cloudFlags) *cobra.Command {
	x, s := &execution{}, &selection{}
	var weight int
	cmd := &cobra.Command{
		Use:   "add SERVER --lb ID --group ID|default [--port N] --weight N",
		Short: a.t("add a server to a group", "将服务器加入组"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			g, err := s.target()
			if err != nil {
				return err
			}
			if weight < 0 || weight > 100 {
				return usagef("--weight is a number from 0 to 100; give it explicitly")
			}
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
			members, err := client.ListBackends(ctx, g)
			if err != nil {
				return err
			}
			b := slb.Backend{ServerID: i.ID, Type: "ecs", Port: s.port, Weight: weight}
			for _, m := range members {
				if m.ServerID != b.ServerID || m.Port != b.Port {
					continue
				}
				if m.Weight != weight {
					return &exitError{exitRefused, fmt.Errorf("%s is a member of %s already, with weight %d; 'upgradectl slb weight' changes it", m, g, m.Weight)}
				}
				return x.change(a, nil, nil)
			}
			what := []string{fmt.Sprintf("add %s with weight %d to %s, which has %d members", b, weight, g, len(members))}
			return x.change(a, what, func() error { return client.AddBackend(ctx, g, b) })
		},
	}
	s.flags(a, cmd)
	cmd.Flags().IntVar(&weight, "weight", -1, a.t("its weight, 0 to 100", "权重，0–100"))
	x.flag(a, cmd)
	return cmd
}

func newSLBRemove(a *app, c *cloudFlags) *cobra.Command {
	x, s := &execution{}, &selection{}
	cmd := &cobra.Command{
		Use:   "remove SERVER --lb ID --group ID|default [--port N]",
		Short: a.t("remove a server from a group; its weight must be 0", "将服务器移出组；权重须先为 0"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			g, err := s.target()
			if err != nil {
				return err
			}
			client, list, err := memberships(ctx, c, args[0], *s)
			if err != nil {
				return err
			}
			if len(list) == 0 { // no member, which is fine, or no such group, which is not
				if _, err := client.ListBackends(ctx, g); err != nil {
					return err
				}
			}
			var what []string
			for _, m := range list {
				// Removing cuts connections that a weight of 0 lets end.
				if m.Backend.Weight > 0 {
					return &exitError{exitRefused, fmt.Errorf("refusing to remove %s from %s: its weight is %d; set it to 0 and wait until it is silent", m.Backend, g, m.Backend.Weight)}
				}
				what = append(what, fmt.Sprintf("remove %s from %s", m.Backend, g))
			}
			return x.change(a, what, func() error {
				for _, m := range list {
					if err := client.RemoveBackend(ctx, g, m.Backend); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	s.flags(a, cmd)
	x.flag(a, cmd)
	return cmd
}

func newSLBHealth(a *app, c *cloudFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "health BALANCER",
		Short: a.t("what a balancer (lb-…, alb-…, nlb-…) thinks of its members", "负载均衡（lb-…、alb-…、nlb-…）对各后端的健康判断"),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.slb()
			if err != nil {
				return err
			}
			list, err := client.ListHealth(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			views := make([]healthView, 0, len(list))
			for _, h := range list {
				views = append(views, healthView(h))
			}
			return a.result(views, func(w io.Writer) {
				rows := make([][]string, 0, len(list))
				for _, h := range list {
					rows = append(rows, []string{fmt.Sprintf("%s:%d", dash(h.Protocol), h.ListenerPort), h.ServerID, dash(h.ServerIP), strconv.Itoa(h.Port), h.Status})
				}
				table(w, []string{"LISTENER", "SERVER", "ADDRESS", "PORT", "STATUS"}, rows)
			})
		},
	}
}

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade"
)

// A policyDocument is a policy of RAM (Resource Access Management) as it is
// pasted into the console or given to CreatePolicy.
type policyDocument struct {
	Version   string            `json:"Version"`
	Statement []policyStatement `json:"Statement"`
}

type policyStatement struct {
	Effect    string                       `json:"Effect"`
	Action    []string                     `json:"Action"`
	Resource  []string                     `json:"Resource"`
	Condition map[string]map[string]string `json:"Condition,omitempty"`
}

func newPolicy(a *app) *cobra.Command {
	var plan string
	cmd := &cobra.Command{
		Use:   "policy [PLAN]",
		Short: a.t("the least an account must be allowed, as a policy of RAM", "账号所需的最小权限（RAM 策略）"),
		Long: a.t(`Prints a policy document (JSON) that allows what a plan needs and no more: reads
everywhere, writes on the plan's own instance and balancers, and deletion only
of what carries this tool's tag. Without a plan it allows everything the tool may
ever do, one statement for each purpose.`, `打印策略文档（JSON），只允许计划所需的操作：查询不限，写操作仅限计划中的实例与负载均衡，
删除仅限带有本工具标签的资源。不给计划时，允许本工具可能用到的全部操作，每种用途一条。`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				plan = args[0]
			}
			if plan == "" {
				return a.printJSON(fullPolicy())
			}
			stored, err := os.ReadFile(plan)
			if err != nil {
				return err
			}
			p, err := upgrade.ParsePlan(stored)
			if err != nil {
				return err
			}
			if p.Procedure == upgrade.ProcedureRebuild {
				return usagef(a.t("a rebuild calls no cloud: it needs no policy", "rebuild 流程不调用云接口，无需权限策略"))
			}
			return a.printJSON(planPolicy(p))
		},
	}
	cmd.Flags().StringVar(&plan, "plan", "", a.t("plan file, as plan -o writes it", "plan -o 写出的计划文件"))
	return cmd
}

// permissions are those of all packages that call the cloud.
func permissions() []ecs.Permission {
	all := ecs.ListPermissions()
	for _, p := range slb.ListPermissions() {
		all = append(all, ecs.Permission(p))
	}
	return all
}

// own limits a statement to what runs of this tool made.
func own() map[string]map[string]string {
	return map[string]map[string]string{"StringLike": {"acs:ResourceTag/upgradectl:run": "*"}}
}

// passRole is needed to give a clone the role of its source.
const passRole = "ram:PassRole"

// fullPolicy allows everything the tool may do, a statement for each purpose.
func fullPolicy() policyDocument {
	d := policyDocument{Version: "1"}
	all := permissions()
	var purposes []string
	for _, p := range all {
		if !slices.Contains(purposes, p.Purpose) {
			purposes = append(purposes, p.Purpose)
		}
	}
	for _, purpose := range purposes {
		d.allow([]string{"*"}, nil, all, func(p ecs.Permission) bool { return p.Purpose == purpose && !p.Own })
		d.allow([]string{"*"}, own(), all, func(p ecs.Permission) bool { return p.Purpose == purpose && p.Own })
	}
	d.Statement = append(d.Statement, policyStatement{Effect: "Allow", Action: []string{passRole}, Resource: []string{"*"}})
	return d
}

// allow adds a statement for the permissions that keep chooses, if any.
func (d *policyDocument) allow(resources []string, condition map[string]map[string]string, all []ecs.Permission, keep func(ecs.Permission) bool) {
	var actions []string
	for _, p := range all {
		if keep(p) && !slices.Contains(actions, p.Action) {
			actions = append(actions, p.Action)
		}
	}
	if len(actions) == 0 {
		return
	}
	slices.Sort(actions)
	slices.Sort(resources)
	d.Statement = append(d.Statement, policyStatement{Effect: "Allow", Action: actions, Resource: slices.Compact(resources), Condition: condition})
}

// planPolicy allows what the steps of a plan call, on what they call it for.
func planPolicy(p *upgrade.Plan) policyDocument {
	d := policyDocument{Version: "1"}
	f := &p.Facts
	region := cmp.Or(f.Instance.Region, "*")
	arn := func(product, kind, id string) string {
		return fmt.Sprintf("acs:%s:%s:*:%s/%s", product, region, kind, id)
	}

	// What the plan's surroundings are made of.
	purposes := []string{"inventory", "paths", "domains", "allow lists", "assistant"}
	if f.Adopted == nil {
		purposes = append(purposes, "snapshot", "image", "clone")
	}
	var balancers, albGroups, nlbGroups []string
	for _, m := range f.Memberships {
		switch m.Product {
		case slb.ALB:
			albGroups = append(albGroups, arn("alb", "servergroup", m.VServerGroupID))
		case slb.NLB:
			nlbGroups = append(nlbGroups, arn("nlb", "servergroup", m.VServerGroupID))
		default:
			balancers = append(balancers, arn("slb", "loadbalancer", m.LoadBalancerID))
		}
	}
	// Discover asks all three products, also for nothing.
	purposes = append(purposes, "clb", "alb", "nlb", "traffic")
	all := permissions()
	chosen := func(want ...string) func(ecs.Permission) bool {
		return func(q ecs.Permission) bool { return slices.Contains(want, q.Action) }
	}

	d.allow([]string{"*"}, nil, all, func(q ecs.Permission) bool {
		return !q.Write && q.Scope != "logstore" && (slices.Contains(purposes, q.Purpose) || q.Purpose == "rescue")
	})
	if len(f.Memberships) > 0 {
		d.allow([]string{arn("log", "project", "*")}, nil, all, func(q ecs.Permission) bool { return q.Scope == "logstore" })
	}
	source := arn("ecs", "instance", f.Instance.ID)
	if f.Adopted == nil {
		resources := []string{source, arn("ecs", "snapshot", "*")}
		for _, disk := range f.Disks {
			resources = append(resources, arn("ecs", "disk", disk.ID))
		}
		d.allow(resources, nil, all, func(q ecs.Permission) bool { return q.Purpose == "snapshot" && q.Scope == "instance" && q.Write })
		made := []string{arn("ecs", "snapshot", "*"), arn("ecs", "image", "*"), arn("ecs", "disk", "*"), arn("ecs", "instance", "*")}
		d.allow(made, nil, all, chosen("ecs:CreateImage", "ecs:TagResources"))
		into := []string{arn("ecs", "instance", "*"), arn("ecs", "image", "*"), arn("ecs", "disk", "*"), arn("vpc", "vswitch", cmp.Or(f.Instance.VSwitch, "*"))}
		for _, g := range f.Instance.SecurityGroups {
			into = append(into, arn("ecs", "securitygroup", g))
		}
		if f.Instance.KeyPair != "" {
			into = append(into, arn("ecs", "keypair", f.Instance.KeyPair))
		}
		d.allow(into, nil, all, chosen("ecs:RunInstances"))
		if f.Instance.RAMRole != "" {
			d.Statement = append(d.Statement, policyStatement{Effect: "Allow", Action: []string{passRole}, Resource: []string{"acs:ram:*:*:role/" + f.Instance.RAMRole}})
		}
		d.allow([]string{arn("ecs", "*", "*")}, own(), all, func(q ecs.Permission) bool { return q.Own && slices.Contains(purposes, q.Purpose) })
	} else {
		actions := []string{"ecs:StopInstance", "ecs:StartInstance"}
		if p.Config.Transition.ReleaseAdopted {
			actions = append(actions, "ecs:DeleteInstance", "ecs:ModifyInstanceAutoReleaseTime")
		}
		d.allow([]string{arn("ecs", "instance", f.Adopted.ID)}, nil, all, chosen(actions...))
	}
	if p.Config.OS.Production == upgrade.ProductionReplaceDisk {
		d.allow([]string{source, arn("ecs", "image", "*"), arn("ecs", "disk", "*")}, nil, all, chosen("ecs:StopInstance", "ecs:StartInstance", "ecs:ReplaceSystemDisk"))
		// Of the transition host's system disk, which is not there yet.
		d.allow([]string{arn("ecs", "instance", "*"), arn("ecs", "disk", "*"), arn("ecs", "snapshot", "*")}, own(), all, chosen("ecs:CreateSnapshot"))
	}
	d.allow([]string{arn("ecs", "instance", "*"), arn("ecs", "command", "*")}, nil, all, chosen("ecs:RunCommand"))
	for _, b := range []struct {
		purpose string
		on      []string
	}{{"clb", balancers}, {"alb", albGroups}, {"nlb", nlbGroups}} {
		if len(b.on) > 0 {
			d.allow(b.on, nil, all, func(q ecs.Permission) bool { return q.Purpose == b.purpose && q.Write })
		}
	}
	return d
}

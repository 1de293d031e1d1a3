package slb

import "github.com/upgradectl/upgradectl/internal/alicloud"

// A Permission is one action of RAM (Resource Access Management) that calls of
// this package need. Type ecs.Permission has the same fields and converts.
type Permission struct {
	Action  string // as "slb:SetBackendServers"
	Purpose string // "clb", "alb", "nlb", "rules", "traffic", "paths", "domains"
	Write   bool   // changes something
	Own     bool   // is used only on what carries this tool's tags
	Scope   string // what it can be limited to: "balancer", "group", "logstore"; "" is nothing
}

// ListPermissions lists every action that calls of this package need.
func ListPermissions() []Permission {
	var all []Permission
	for _, c := range alicloud.Calls("slb", "alb", "nlb", "sls", "vpc", "ess", "alidns") {
		all = append(all, Permission(c))
	}
	return all
}

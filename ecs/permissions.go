package ecs

import "github.com/upgradectl/upgradectl/internal/alicloud"

// A Permission is one action of RAM (Resource Access Management) that calls of
// this package need. Type slb.Permission has the same fields and converts.
type Permission struct {
	Action  string // as "ecs:CreateSnapshot"
	Purpose string // "inventory", "snapshot", "image", "clone", "rescue", "assistant", "allow lists", "role"
	Write   bool   // changes something
	Own     bool   // is used only on what carries this tool's tags
	Scope   string // what it can be limited to: "instance"; "" is nothing
}

// ListPermissions lists every action that calls of this package need. Creating
// an instance with a RAM role needs ram:PassRole besides them.
func ListPermissions() []Permission {
	var all []Permission
	for _, c := range alicloud.Calls("ecs", "rds", "r-kvstore", "dds", "polardb", "sts") {
		all = append(all, Permission(c))
	}
	return all
}

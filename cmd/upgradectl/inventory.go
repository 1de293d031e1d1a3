package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
)

func newInventory(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "inventory", Short: a.t("what a host is and runs", "主机清单：版本、端口、Java、容器与服务")}
	cmd.AddCommand(newInventoryCollect(a), newInventoryDiff(a), newInventoryShow(a))
	return cmd
}

// inventoryText is an inventory for people.
func (a *app) inventoryText(inv *hostinv.Inventory) string {
	return inv.Text(hostinv.Lang(a.lang))
}

func readInventory(name string) (*hostinv.Inventory, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	inv, err := hostinv.ParseInventory(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return inv, nil
}

func newInventoryShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: a.t("show a collected inventory", "显示已采集的清单"),
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			inv, err := readInventory(args[0])
			if err != nil {
				return err
			}
			return a.result(inv, func(w io.Writer) { fmt.Fprint(w, inv.Text(hostinv.Lang(a.lang))) })
		},
	}
}

func newInventoryDiff(a *app) *cobra.Command {
	var expect []string
	known := []string{"kernel", "release", "docker"}
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: a.t("compare two inventories; exit status 4 if something was lost", "比较两份清单；有丢失时退出状态为 4"),
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, e := range expect {
				if !slices.Contains(known, e) {
					return usagef("--expect knows %s, not %q", strings.Join(known, ", "), e)
				}
			}
			before, err := readInventory(args[0])
			if err != nil {
				return err
			}
			after, err := readInventory(args[1])
			if err != nil {
				return err
			}
			c := hostinv.Diff(before, after, hostinv.Expect{
				KernelChanged:  slices.Contains(expect, "kernel"),
				ReleaseChanged: slices.Contains(expect, "release"),
				DockerChanged:  slices.Contains(expect, "docker"),
			})
			if err := a.result(c, func(w io.Writer) { fmt.Fprint(w, c.Text(hostinv.Lang(a.lang))) }); err != nil {
				return err
			}
			if n := len(c.Losses()); n > 0 {
				return &exitError{exitRefused, fmt.Errorf(a.t("%d losses", "丢失 %d 项"), n)}
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&expect, "expect", nil, a.t("changes that were meant: kernel, release, docker", "预期中的变化：kernel、release、docker"))
	return cmd
}

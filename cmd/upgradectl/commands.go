package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// commands are the constructors of everything below the root, in the order in
// which help shows them.
func commands() []func(*app) *cobra.Command {
	return []func(*app) *cobra.Command{
		newSimulate,
		newInit,
		newValidate,
		newPlan,
		newApply,
		newResume,
		newRollback,
		newStatus,
		newEvents,
		newPause,
		newAbort,
		newApprove,
		newReport,
		newAudit,
		newGC,
		newUnlock,
		newECS,
		newSLB,
		newNginx,
		newInventory,
		newPitrix,
		newHost,
		newPolicy,
		newDoctor,
		newVersion,
	}
}

// newRoot builds the command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "upgradectl",
		Short: a.t("upgrade the operating system of production hosts without anybody noticing",
			"让生产主机的操作系统与内核升级做到业务无感知、无中断"),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().BoolVar(&a.json, "json", false, a.t("results as JSON on standard output", "以 JSON 输出结果"))
	root.PersistentFlags().StringVar(&a.lang, "lang", a.lang, a.t("language: zh or en", "语言：zh 或 en"))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.lang != "zh" && a.lang != "en" {
			return fmt.Errorf("--lang is zh or en, not %q", a.lang)
		}
		return nil
	}
	for _, c := range commands() {
		root.AddCommand(c(a))
	}
	root.InitDefaultCompletionCmd()
	prepare(a, root)
	return root
}

// prepare makes a group of commands refuse words it does not know, and notes
// when a command's own code begins: until then every error is one of usage.
func prepare(a *app, cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return run(cmd, args)
		}
	} else if cmd.Run == nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				msg += "; did you mean " + strings.Join(s, " or ") + "?"
			}
			return usagef("%s", msg)
		}
		cmd.SuggestionsMinimumDistance = 2
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() }
	}
	for _, c := range cmd.Commands() {
		prepare(a, c)
	}
}

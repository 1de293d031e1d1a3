package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

func newHostKernel(h *oneHost) *cobra.Command {
	var reboot bool
	cmd := &cobra.Command{
		Use:   "kernel HOST [RELEASE|previous]",
		Short: h.t("say which kernels a host has, or make one of them the one that it boots", "列出主机上的内核，或指定主机启动的内核"),
		Long: h.t(`Without RELEASE says which kernels are installed, which runs and which the boot loader starts.
With RELEASE (as uname -r prints it) that one becomes the default; "previous" is the newest that is
older than the one that runs: the way back from a new kernel that does not do. --reboot boots it,
and proves the boot by its ID and its kernel.`,
			`不带 RELEASE 时列出已安装的内核、正在运行的内核以及引导程序将启动的内核。
带 RELEASE（即 uname -r 的输出）时将其设为默认；"previous" 为比正在运行的内核旧的最新一个，
用于从有问题的新内核退回。--reboot 随后重启，并以启动 ID 与内核核实。`),
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			want := ""
			if len(args) > 1 {
				if want = args[1]; want == "" {
					return usagef(h.t("RELEASE is empty", "RELEASE 为空"))
				}
			} else if h.execute || reboot {
				return usagef(h.t("--execute and --reboot need a RELEASE", "--execute 与 --reboot 需要 RELEASE"))
			}
			ctx := cmd.Context()
			return h.with(ctx, func(e *upgrade.Env) error {
				var k *upgrade.HostKernel
				var err error
				if h.execute {
					k, err = upgrade.SetHostKernel(ctx, e, args[0], want, reboot, h.job)
				} else {
					k, err = upgrade.GetHostKernel(ctx, e, args[0], want)
				}
				if k == nil {
					return err
				}
				if err != nil && k.Release != "" && ctx.Err() == nil && upgrade.ErrorStatus(err) == upgrade.ExitError {
					// After its reboot "previous" would be another one.
					err = &exitError{exitFailed, fmt.Errorf(h.t("%w (look at the host, then go on with: upgradectl host kernel %s %s --reboot --execute)", "%w（查看主机后执行 upgradectl host kernel %s %s --reboot --execute 继续）"), err, args[0], k.Release)}
				}
				return h.finish(ctx, e, args[0], hostJob{v: k, text: func(w io.Writer) { h.printKernel(w, k, reboot) }, known: true}, err)
			})
		},
	}
	h.jobFlags(cmd)
	cmd.Flags().BoolVar(&reboot, "reboot", false, h.t("reboot into it, unless it runs, and prove the new boot", "重启进入该内核（已在运行则不重启），并核实新的启动"))
	return cmd
}

func (h *oneHost) printKernel(w io.Writer, k *upgrade.HostKernel, reboot bool) {
	fmt.Fprintf(w, h.t("host %s: %s, kernel %s\n", "主机 %s：%s，内核 %s\n"), k.Host, dash(k.Boot.Release), k.Boot.Kernel)
	var lines []string
	for _, i := range k.Kernels {
		line := i.Release
		if i.Image == 0 || i.Initramfs == 0 {
			line += h.t(", not whole", "，不完整")
		}
		if i.Release == k.Boot.Kernel {
			line += h.t(", runs", "，正在运行")
		}
		if i.Release == k.Default {
			line += h.t(", is the default", "，为默认")
		}
		lines = append(lines, line)
	}
	block(w, h.t("kernels below /boot", "/boot 中的内核"), lines)
	if k.Release == "" {
		return
	}
	fmt.Fprintln(w)
	boots := reboot && k.Boot.Kernel != k.Release
	switch {
	case k.After != nil:
		fmt.Fprintf(w, h.t("rebooted: kernel %s, boot %s\n", "已重启：内核 %s，启动 %s\n"), k.After.Kernel, k.After.ID)
	case k.Set:
		fmt.Fprintf(w, h.t("the next boot starts %s\n", "下次启动使用 %s\n"), k.Release)
	case k.Default == k.Release && !boots:
		fmt.Fprintf(w, h.t("%s is the default: nothing to do\n", "%s 已是默认，无需操作\n"), k.Release)
	case !h.execute && boots:
		fmt.Fprintf(w, h.t("would make %s the default and reboot\n%s\n", "将把 %s 设为默认并重启\n%s\n"), k.Release, h.unchanged())
	case !h.execute:
		fmt.Fprintf(w, h.t("would make %s the default\n%s\n", "将把 %s 设为默认\n%s\n"), k.Release, h.unchanged())
	}
}

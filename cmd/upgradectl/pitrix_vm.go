package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/pitrix"
)

// vmFlags say on which physical host a VM is.
type vmFlags struct{ host, connect string }

// with connects to the host and calls do.
func (v *vmFlags) with(ctx context.Context, a *app, p *pitrixFlags, do func(h *pitrix.Hypervisor) error) (err error) {
	if p.target != "" {
		return usagef("--firstbox: 'pitrix vm' works on a physical host; use --host")
	}
	h := &pitrix.Hypervisor{Host: localHost{}, Name: "this machine", Root: p.root, Connect: v.connect}
	if v.host != "" {
		c, err := p.ssh.dial(ctx, a, v.host)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		h.Host, h.Name = c, v.host
	}
	return do(h)
}

func newPitrixVM(a *app, p *pitrixFlags) *cobra.Command {
	v := &vmFlags{}
	cmd := &cobra.Command{Use: "vm", Short: a.t("the VMs of a physical host", "物理机上的管理虚机")}
	cmd.PersistentFlags().StringVar(&v.host, "host", "", a.t("SSH target of the physical host (default: this machine)", "物理机的 SSH 目标（默认本机）"))
	cmd.PersistentFlags().StringVar(&v.connect, "connect", "", a.t("libvirt connection URI (default: virsh's)", "libvirt 连接 URI（默认由 virsh 决定）"))
	cmd.AddCommand(newPitrixVMList(a, p, v),
		newPitrixVMMove(a, p, v, "backup", a.t("put a VM that is shut off away: autostart off, image, definition and marker renamed to old-NAME", "备份已关机的虚机：关闭自启动，镜像、定义与标记改名为 old-NAME")),
		newPitrixVMMove(a, p, v, "restore", a.t("the way back of backup; the VM is not started", "backup 的还原；不会启动虚机")))
	return cmd
}

func newPitrixVMList(a *app, p *pitrixFlags, v *vmFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: a.t("list them with their states", "列出虚机及其状态"),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return v.with(cmd.Context(), a, p, func(h *pitrix.Hypervisor) error {
				domains, err := h.ListDomains(cmd.Context())
				if err != nil {
					return err
				}
				type domain struct {
					Name  string `json:"name"`
					State string `json:"state"`
				}
				res, rows := []domain{}, [][]string(nil)
				for _, d := range domains {
					res = append(res, domain{d.Name, d.State})
					rows = append(rows, []string{d.Name, d.State})
				}
				return a.result(map[string]any{"domains": res}, func(w io.Writer) { table(w, []string{"NAME", "STATE"}, rows) })
			})
		},
	}
}

func newPitrixVMMove(a *app, p *pitrixFlags, v *vmFlags, verb, short string) *cobra.Command {
	x := &execution{}
	cmd := &cobra.Command{
		Use:   verb + " NODE",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, ctx := args[0], cmd.Context()
			return v.with(ctx, a, p, func(h *pitrix.Hypervisor) error {
				files, err := h.GetFiles(ctx, vm)
				if err != nil {
					return err
				}
				d, err := h.GetDomain(ctx, vm)
				if err != nil {
					return err
				}
				var what []string
				autostart := verb == "backup" && d != nil && d.Autostart
				if autostart {
					what = append(what, "virsh autostart --disable "+vm)
				}
				from, to, end := "", "old-", pitrix.Parked
				if verb == "restore" {
					from, to, end = "old-", "", pitrix.ParkLive
				}
				if files.State() == pitrix.ParkNone {
					return fmt.Errorf("%s has no file of %s in /pitrix/kernels", h.Name, vm)
				}
				if files.State() != end {
					if d != nil && d.State != pitrix.DomainShutOff {
						return &pitrix.RunningError{Host: h.Name, Domain: vm, State: d.State}
					}
					for _, ext := range []string{".img", ".xml", ".Done"} {
						what = append(what, fmt.Sprintf("mv /pitrix/kernels/%s%s%s /pitrix/kernels/%s%s%s", from, vm, ext, to, vm, ext))
					}
				}
				if files.Base != "" {
					a.progress(a.t("its image lies over %s, which has to stay as it is", "其镜像依赖 %s，该文件必须保持不变"), files.Base)
				}
				if files.BaseChanged != "" {
					a.progress(a.t("the image below it has changed: %s", "其依赖的镜像已变化：%s"), files.BaseChanged)
				}
				return x.change(a, what, func() error {
					if autostart {
						if err := h.SetAutostart(ctx, vm, d.UUID, false); err != nil {
							return err
						}
					}
					move := h.Park
					if verb == "restore" {
						move = h.Unpark
					}
					_, err := move(ctx, vm)
					return err
				})
			})
		},
	}
	x.flag(a, cmd)
	return cmd
}

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/pitrix"
)

func newPitrixCompare(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "compare", Short: a.t("a file of the old node against that of the new one", "比较新旧节点的文件")}
	cmd.AddCommand(newCompareHAProxy(a), newCompareRCLocal(a))
	return cmd
}

// maxNodeFile is far over any haproxy.cfg or rc.local.
const maxNodeFile = 2 << 20

// comparison is what both commands have in common.
type comparison struct {
	addresses []string
	carryOver string
	execution
}

func (c *comparison) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&c.addresses, "address", nil, a.t("NEW=OLD, an address of the new node that stands for one of the old node's, as temporary for final; may be repeated", "NEW=OLD，新节点的某地址对应旧节点的地址（如临时对最终）；可重复"))
	f.StringVar(&c.carryOver, "carry-over", "", a.t("write NEW with what must be carried over to this file", "将补上必须保留内容的新文件写到此处"))
	c.flag(a, cmd)
}

// files reads the arguments.
func (c *comparison) files(args []string) (old, now []byte, addresses map[string]string, err error) {
	if addresses, err = pairs("address", c.addresses); err != nil {
		return nil, nil, nil, err
	}
	if old, err = readLimited(args[0], maxNodeFile); err != nil {
		return nil, nil, nil, err
	}
	now, err = readLimited(args[1], maxNodeFile)
	return old, now, addresses, err
}

// end writes the carried-over file, if one was asked for, and gives the exit
// status: something that must be carried over and was not is a loss.
func (c *comparison) end(a *app, must int, carried func() ([]byte, error)) error {
	if c.carryOver == "" {
		if c.execute {
			return usagef(a.t("--execute needs --carry-over FILE", "--execute 需要 --carry-over FILE"))
		}
		if must > 0 {
			return &exitError{code: exitRefused}
		}
		return nil
	}
	text, err := carried()
	if err != nil {
		return err
	}
	if !c.execute {
		a.progress(a.t("%s is not written; add --execute to do it", "未写入 %s；加 --execute 执行"), c.carryOver)
		if must > 0 {
			return &exitError{code: exitRefused}
		}
		return nil
	}
	if err := writeNew(c.carryOver, text); err != nil {
		return err
	}
	a.progress(a.t("wrote %s; let the real program check it before it is used", "已写入 %s；使用前请用实际程序检查"), c.carryOver)
	return nil
}

func newCompareHAProxy(a *app) *cobra.Command {
	c := &comparison{}
	var opts pitrix.HAProxyOptions
	var ports []int
	cmd := &cobra.Command{
		Use:   "haproxy OLD NEW",
		Short: a.t("compare two haproxy.cfg by what they mean", "按语义比较两个 haproxy.cfg"),
		Long: a.t(`Compare sections, binds, servers, modes and all other lines of the old node's
haproxy.cfg and the new one's. Order, comments, where a port is bound and the
website's port 8081 do not count. Lines with ! must be carried over: what was made
by hand and, with --sub, the back ends of api, ws and io.
Exit status 4: something must be carried over. With --carry-over FILE --execute
the new file with it is written to FILE; let haproxy -c check it.`,
			`比较新旧 haproxy.cfg 的各段、bind、server、mode 及其他各行，不计顺序、注释、
端口绑定写法与 website 的 8081 端口。带 ! 的必须保留：手工添加的内容，以及 --sub
时 api、ws、io 的后端。有必须保留的内容时退出码为 4。加 --carry-over FILE --execute
将补上这些内容的新文件写入 FILE，请再用 haproxy -c 检查。`),
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			oldText, newText, addresses, err := c.files(args)
			if err != nil {
				return err
			}
			old, err := pitrix.ParseHAProxy(args[0], oldText)
			if err != nil {
				return err
			}
			now, err := pitrix.ParseHAProxy(args[1], newText)
			if err != nil {
				return err
			}
			opts.Addresses = addresses
			if cmd.Flags().Changed("ignore-port") {
				opts.IgnorePorts = ports
			}
			d := pitrix.CompareHAProxy(old, now, opts)
			err = a.result(d, func(w io.Writer) {
				for _, x := range d.Differences {
					fmt.Fprintln(w, mark(x.MustCarryOver)+x.String())
				}
				if d.Equal() {
					fmt.Fprintln(w, a.t("no difference that counts", "没有需要关注的差异"))
				}
			})
			if err != nil {
				return err
			}
			return c.end(a, len(d.MustCarryOver()), func() ([]byte, error) {
				h, err := d.CarryOver()
				if err != nil {
					return nil, err
				}
				return h.Bytes(), nil
			})
		},
	}
	c.flags(a, cmd)
	cmd.Flags().BoolVar(&opts.Sub, "sub", false, a.t("the nodes are in a sub region or sub zone", "节点属于 sub region 或 sub zone"))
	cmd.Flags().IntSliceVar(&ports, "ignore-port", []int{8081}, a.t("ports whose sections are not compared", "不比较的端口"))
	return cmd
}

func mark(must bool) string {
	if must {
		return "! "
	}
	return "  "
}

func newCompareRCLocal(a *app) *cobra.Command {
	c := &comparison{}
	cmd := &cobra.Command{
		Use:   "rclocal OLD NEW",
		Short: a.t("compare two versions of rc.local, rc.local.head or rc.local.tail", "比较两个版本的 rc.local、rc.local.head 或 rc.local.tail"),
		Long: a.t(`Compare the commands of the old node's file and the new one's. Lines with - are
in OLD only, with + in NEW only; those with ! must be carried over, for they were made by
hand; those with ~ name an address of --address that the new node will not keep.
Exit status 4: something must be carried over. With --carry-over FILE --execute
the new file with it is written to FILE.`,
			`比较新旧文件中的命令。- 仅在 OLD 中，+ 仅在 NEW 中；! 为手工添加，必须保留；~ 含有
--address 中新节点不会保留的地址。有必须保留的内容时退出码为 4。加
--carry-over FILE --execute 将补上这些内容的新文件写入 FILE。`),
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			old, now, addresses, err := c.files(args)
			if err != nil {
				return err
			}
			d := pitrix.CompareRCLocal(args[1], old, now, pitrix.RCLocalOptions{Addresses: addresses})
			err = a.result(d, func(w io.Writer) {
				show := func(sign, file string, l pitrix.RCLocalLine) {
					text := fmt.Sprintf("%s %s:%d: %s", sign, file, l.Line, strings.ReplaceAll(l.Text, "\n", "\n    "))
					if l.Why != "" {
						text += "; " + l.Why
					}
					fmt.Fprintln(w, text)
				}
				for _, l := range d.Missing {
					sign := "-"
					if l.MustCarryOver {
						sign = "!"
					}
					show(sign, args[0], l)
				}
				for _, l := range d.Added {
					show("+", args[1], l)
				}
				for _, l := range d.Temporary {
					show("~", args[1], l)
				}
				if d.Reordered {
					fmt.Fprintln(w, a.t("the commands stand in another order", "命令的顺序不同"))
				}
				if d.Equal() {
					fmt.Fprintln(w, a.t("no difference that counts", "没有需要关注的差异"))
				}
			})
			if err != nil {
				return err
			}
			return c.end(a, len(d.MustCarryOver()), d.CarryOver)
		},
	}
	c.flags(a, cmd)
	return cmd
}

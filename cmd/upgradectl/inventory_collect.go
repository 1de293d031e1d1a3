package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/atomicfile"
)

// hostFlags say which hosts.
type hostFlags struct {
	files    []string
	patterns []string
	ansible  []string
	limit    string
}

func (h *hostFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&h.files, "hosts-file", nil, a.t("file with one host a line, # for comments; may be repeated", "主机列表文件，每行一台，# 为注释；可重复"))
	f.StringArrayVar(&h.patterns, "ssh-pattern", nil, a.t("hosts that ssh_config names and that match, such as 'web-*'; may be repeated, ! leaves out", "ssh_config 中名称匹配的主机，如 'web-*'；可重复，! 表示排除"))
	f.StringArrayVar(&h.ansible, "ansible-inventory", nil, a.t("static Ansible inventory (INI or YAML); may be repeated", "静态 Ansible 清单（INI 或 YAML）；可重复"))
	f.StringVar(&h.limit, "limit", "", a.t("only these hosts and groups of the Ansible inventory, such as 'web:!web-9'", "只取 Ansible 清单中的这些主机或组，如 'web:!web-9'"))
}

// hosts reads all sources. Nothing is connected to.
func (h *hostFlags) hosts(args []string, sshConfig string) ([]hostinv.FleetHost, error) {
	if h.limit != "" && h.ansible == nil {
		return nil, usagef("--limit is of --ansible-inventory, and there is none")
	}
	var lists [][]hostinv.FleetHost
	list, err := hostinv.ArgumentHosts(args)
	if err != nil {
		return nil, &usageError{err}
	}
	lists = append(lists, list)
	for _, f := range h.files {
		if list, err = hostinv.LoadHosts(f); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	if h.patterns != nil {
		if sshConfig == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, fmt.Errorf("--ssh-pattern: %w", err)
			}
			sshConfig = filepath.Join(home, ".ssh", "config")
		}
		if list, err = hostinv.ListSSHHosts(sshConfig, h.patterns...); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	for _, f := range h.ansible {
		inv, err := hostinv.LoadAnsible(f)
		if err != nil {
			return nil, err
		}
		if list, err = inv.Hosts(h.limit); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	all, err := hostinv.MergeHosts(lists...)
	if err == nil && len(all) == 0 {
		err = usagef("no host is named; give HOST, --hosts-file, --ssh-pattern or --ansible-inventory")
	}
	return all, err
}

// fleetReport is the result of collecting many hosts.
type fleetReport struct {
	Collected int          `json:"collected"`
	Failed    int          `json:"failed"`
	TookMS    int64        `json:"took_ms"`
	Hosts     []hostReport `json:"hosts"` // in the order the hosts were named
}

// hostReport is what became of one host.
type hostReport struct {
	Name       string   `json:"name"`
	Target     string   `json:"target"`
	Source     string   `json:"source,omitempty"`
	Groups     []string `json:"groups,omitempty"`
	TookMS     int64    `json:"took_ms"`
	Error      string   `json:"error,omitempty"`
	Incomplete []string `json:"incomplete,omitempty"` // sections that could not be read whole
	File       string   `json:"file,omitempty"`       // what it was written to

	// Inventory comes last, so that the list can be written without holding
	// the inventories.
	Inventory json.RawMessage `json:"inventory,omitempty"`
}

type collector struct {
	*app
	ssh      sshFlags
	which    hostFlags
	out      string
	missing  bool
	forks    int
	timeout  time.Duration
	spool    *spool
	files    map[string]string // by host: where it is written
	finished map[string]string // by host: what was written
}

func newInventoryCollect(a *app) *cobra.Command {
	c := &collector{app: a, finished: map[string]string{}}
	cmd := &cobra.Command{
		Use:   "collect [HOST...]",
		Short: a.t("collect the inventory of hosts, with one read-only command each", "采集主机清单，每台主机只运行一条只读命令"),
		Long: a.t(`Collects the inventory of one host or of many at once, with one read-only command
each: nothing is installed or changed there. A HOST is an alias of ssh_config,
or [USER@]NAME[:PORT].

With -o NAME.json the inventory of one host is written to that new file, with any
other -o to a directory, as one new file NAME.json a host. Files have mode 0600 and appear
whole or not at all; existing ones are never overwritten: a record made before an
upgrade cannot be made again. --missing collects only what is not there yet.

Exit status: 0 all hosts were collected (also when sections could not be read whole,
which is reported); 1 some of several hosts failed, the others are written; of a single
host its own: 4 when nobody let us in; 130 interrupted, what was finished is written.`,
			`以每台一条只读命令采集一台或多台主机的清单，不在主机上安装或更改任何东西。
HOST 是 ssh_config 中的别名，或 [USER@]NAME[:PORT]。

-o NAME.json 把一台主机的清单写入该新文件；其他 -o 是目录，每台主机一个新文件 NAME.json。
文件权限 0600，要么完整出现要么不出现；已有文件绝不覆盖：升级前的记录无法重做。
--missing 只采集尚不存在的。

退出状态：0 全部采集成功（部分内容读不全时会报告）；1 多台中有失败的，其余已写入；
单台主机则是其自身的状态：4 表示未能登录；130 被中断，已完成的已写入。`),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.ssh.flags(a, cmd)
	c.which.flags(a, cmd)
	f := cmd.Flags()
	f.StringVarP(&c.out, "output", "o", "", a.t("directory for NAME.json of every host, or one file NAME.json", "目录（每台主机一个 NAME.json），或单个 NAME.json 文件"))
	f.BoolVar(&c.missing, "missing", false, a.t("with -o DIR: only hosts that have no file there yet", "配合 -o DIR：只采集尚无文件的主机"))
	f.IntVar(&c.forks, "forks", hostinv.DefaultForks, a.t("hosts at once", "同时采集的主机数"))
	f.DurationVar(&c.timeout, "timeout", hostinv.DefaultHostTimeout, a.t("give one host up after this time", "单台主机的时限"))
	return cmd
}

func (c *collector) run(ctx context.Context, args []string) (err error) {
	if c.forks < 1 {
		return usagef("--forks is at least 1")
	}
	if c.timeout <= 0 {
		return usagef("--timeout is more than 0")
	}
	hosts, err := c.which.hosts(args, c.ssh.cfg.ConfigFile)
	if err != nil {
		return err
	}
	// One HOST and nothing else: the result is its inventory, not a list.
	single := len(args) == 1 && len(hosts) == 1 && c.which.files == nil && c.which.patterns == nil && c.which.ansible == nil
	if hosts, err = c.plan(hosts, single); err != nil {
		return err
	}
	if c.out == "" {
		if c.spool, err = newSpool(); err != nil {
			return err
		}
		defer c.spool.close()
	}
	cfg, err := c.ssh.config(ctx, c.app)
	if err != nil {
		return err
	}
	d, err := hostinv.NewFleetDialer(cfg)
	if err != nil {
		return err
	}
	defer d.Close()
	fleet := hostinv.CollectFleet(ctx, hosts, d.Dial, hostinv.FleetOptions{Forks: c.forks, Timeout: c.timeout, Each: c.each(single)})
	if single {
		return c.single(fleet.Results[0])
	}
	report := c.report(fleet)
	if err := c.print(report); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf(c.t("%d of %d hosts were collected: %w", "已采集 %d 台，共 %d 台：%w"), report.Collected, len(hosts), context.Cause(ctx))
	case report.Failed > 0:
		return &exitError{exitFailure, fmt.Errorf(c.t("%d of %d hosts failed: %s", "%d 台失败，共 %d 台：%s"), report.Failed, len(hosts), failedNames(fleet))}
	}
	return nil
}

// failedNames lists the first hosts that failed.
func failedNames(f *hostinv.Fleet) string {
	var l []string
	for _, r := range f.Failed() {
		if len(l) == 10 {
			l = append(l, "…")
			break
		}
		l = append(l, r.Host.Name)
	}
	return strings.Join(l, " ")
}

// plan says where every inventory is written, and refuses before anything
// begins what could not be written in the end.
func (c *collector) plan(hosts []hostinv.FleetHost, single bool) ([]hostinv.FleetHost, error) {
	if c.out == "" {
		if c.missing {
			return nil, usagef("--missing needs -o DIR")
		}
		return hosts, nil
	}
	c.files = map[string]string{}
	if single && strings.HasSuffix(c.out, ".json") {
		if c.missing {
			return nil, usagef("--missing needs -o DIR")
		}
		c.files[hosts[0].Name] = c.out
		return hosts, absent(c.out)
	}
	if strings.HasSuffix(c.out, ".json") {
		return nil, usagef("-o %s is one file, but there may be several hosts; give a directory", c.out)
	}
	if err := os.MkdirAll(c.out, 0o700); err != nil {
		return nil, err
	}
	// File names differ in more than upper and lower case, for file systems
	// that make no difference.
	names := map[string]string{}
	var todo []hostinv.FleetHost
	var errs []error
	for _, h := range hosts {
		name := fileName(h.Name)
		if other, ok := names[strings.ToLower(name)]; ok {
			errs = append(errs, fmt.Errorf("hosts %s and %s would have the same file", other, h.Name))
			continue
		}
		names[strings.ToLower(name)] = h.Name
		path := filepath.Join(c.out, name)
		err := absent(path)
		switch {
		case err == nil:
			c.files[h.Name] = path
			todo = append(todo, h)
		case !c.missing || !errors.Is(err, fs.ErrExist):
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if n := len(hosts) - len(todo); n > 0 {
		c.progress(c.t("%d hosts are there already", "%d 台主机已有文件"), n)
	}
	return todo, nil
}

// absent makes sure that no file of this name exists.
func absent(name string) error {
	switch _, err := os.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s: %w; an inventory is never overwritten", name, fs.ErrExist)
}

// fileName is the name of a host's file: characters that are not in every
// file system stand as %XX.
func fileName(host string) string {
	var b strings.Builder
	for i := 0; i < len(host); i++ {
		switch ch := host[i]; {
		case ch >= '0' && ch <= '9', ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch == '-', ch == '_', ch == '@', ch == '.' && i > 0:
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String() + ".json"
}

// each keeps a result as it comes and tells how far it is.
func (c *collector) each(single bool) func(hostinv.FleetResult) error {
	return func(r hostinv.FleetResult) error {
		err := r.Err
		if err == nil {
			err = c.keep(r)
		}
		switch {
		case single:
		case err != nil:
			c.progress("[%d/%d] %s: %s", r.Done, r.Total, r.Host.Name, c.t("FAILED: ", "失败：")+err.Error())
		case r.Incomplete != nil:
			c.progress("[%d/%d] %s: %v, %s", r.Done, r.Total, r.Host.Name, r.Took.Round(time.Millisecond), c.t("not whole: ", "不完整：")+strings.Join(r.Incomplete, ", "))
		default:
			c.progress("[%d/%d] %s: %v", r.Done, r.Total, r.Host.Name, r.Took.Round(time.Millisecond))
		}
		if r.Err != nil {
			return nil
		}
		return err
	}
}

// keep writes an inventory to its file, or puts it aside for the output.
func (c *collector) keep(r hostinv.FleetResult) error {
	if c.spool != nil {
		if !c.json {
			return c.spool.put(r.Host.Name, []byte(c.inventoryText(r.Inventory)))
		}
		data, err := json.Marshal(r.Inventory)
		if err != nil {
			return err
		}
		return c.spool.put(r.Host.Name, data)
	}
	data, err := json.MarshalIndent(r.Inventory, "", "  ")
	if err != nil {
		return err
	}
	name := c.files[r.Host.Name]
	if err := writeNew(name, append(data, '\n')); err != nil {
		return err
	}
	c.finished[r.Host.Name] = name
	return nil
}

// writeNew creates a file that did not exist, whole or not at all.
func writeNew(name string, data []byte) error {
	if err := absent(name); err != nil {
		return err
	}
	return atomicfile.Write(name, data, 0o600)
}

// single ends the collection of one host.
func (c *collector) single(r hostinv.FleetResult) error {
	if r.Err != nil {
		return r.Err
	}
	if c.spool == nil {
		c.progress(c.t("written to %s", "已写入 %s"), c.finished[r.Host.Name])
		if c.json {
			return c.printJSON(c.host(r))
		}
		return nil
	}
	data, err := c.spool.get(r.Host.Name)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(json.RawMessage(data))
	}
	_, err = c.app.out.Write(data)
	return err
}

func (c *collector) host(r hostinv.FleetResult) hostReport {
	h := hostReport{Name: r.Host.Name, Target: r.Host.Address(), Source: r.Host.Source, Groups: r.Host.Groups,
		TookMS: r.Took.Milliseconds(), Incomplete: r.Incomplete, File: c.finished[r.Host.Name]}
	if r.Err != nil {
		h.Error = r.Err.Error()
	}
	return h
}

func (c *collector) report(f *hostinv.Fleet) fleetReport {
	rep := fleetReport{TookMS: f.Took.Milliseconds(), Hosts: []hostReport{}}
	for _, r := range f.Results {
		rep.Hosts = append(rep.Hosts, c.host(r))
		if r.Err != nil {
			rep.Failed++
		} else {
			rep.Collected++
		}
	}
	return rep
}

// print writes the report and, where no files were written, the inventories
// one by one from the spool.
func (c *collector) print(rep fleetReport) error {
	w := &errWriter{w: c.app.out}
	if !c.json {
		for _, h := range rep.Hosts {
			if h.Error != "" || c.spool == nil {
				continue
			}
			fmt.Fprintf(w, "== %s\n", h.Name)
			data, err := c.spool.get(h.Name)
			if err != nil {
				return err
			}
			w.Write(data)
			fmt.Fprintln(w)
		}
		var rows [][]string
		for _, h := range rep.Hosts {
			result, more := c.t("ok", "成功"), h.File
			switch {
			case h.Error != "":
				result, more = c.t("FAILED", "失败"), ""
			case h.Incomplete != nil:
				result = c.t("not whole", "不完整")
			}
			rows = append(rows, []string{h.Name, result, (time.Duration(h.TookMS) * time.Millisecond).String(), more})
		}
		table(w, []string{c.t("HOST", "主机"), c.t("RESULT", "结果"), c.t("TOOK", "用时"), c.t("FILE", "文件")}, rows)
		fmt.Fprintf(w, c.t("%d collected, %d failed, %v\n", "成功 %d 台，失败 %d 台，%v\n"), rep.Collected, rep.Failed, time.Duration(rep.TookMS)*time.Millisecond)
		return w.err
	}
	hosts := rep.Hosts
	rep.Hosts = nil
	head, err := json.Marshal(rep)
	if err != nil {
		return err
	}
	w.Write([]byte(strings.TrimSuffix(string(head), "null}")))
	fmt.Fprint(w, "[")
	for i, h := range hosts {
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		if c.spool != nil && h.Error == "" {
			if h.Inventory, err = c.spool.get(h.Name); err != nil {
				return err
			}
		}
		data, err := json.Marshal(h)
		if err != nil {
			return err
		}
		fmt.Fprint(w, "\n")
		w.Write(data)
	}
	fmt.Fprintln(w, "\n]}")
	return w.err
}

// spool keeps results on disk, readable by this user alone, until they are
// written in order: a thousand inventories do not fit into a small memory.
type spool struct {
	f     *os.File
	size  int64
	parts map[string][2]int64 // offset and length
}

func newSpool() (*spool, error) {
	f, err := os.CreateTemp("", "upgradectl-inventory-") // 0600
	if err != nil {
		return nil, err
	}
	return &spool{f: f, parts: map[string][2]int64{}}, nil
}

func (s *spool) put(name string, data []byte) error {
	if _, err := s.f.WriteAt(data, s.size); err != nil {
		return err
	}
	s.parts[name] = [2]int64{s.size, int64(len(data))}
	s.size += int64(len(data))
	return nil
}

func (s *spool) get(name string) ([]byte, error) {
	p := s.parts[name]
	data := make([]byte, p[1])
	_, err := s.f.ReadAt(data, p[0])
	if errors.Is(err, io.EOF) && len(data) == 0 {
		err = nil
	}
	return data, err
}

func (s *spool) close() {
	s.f.Close()
	os.Remove(s.f.Name())
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// inventoryText is an inventory for people; without sections, what matters of
// all.
func (a *app) inventoryText(inv *hostinv.Inventory, sections ...string) string {
	return inv.Text(hostinv.Lang(a.lang), sections...)
}

// inventorySet is what BEFORE and AFTER of a comparison may be: one inventory,
// a directory of collect -o, or the output of collect --json of many hosts.
type inventorySet struct {
	name   string
	single *hostinv.Inventory
	hosts  map[string]func() (*hostinv.Inventory, error)
	failed map[string]string // hosts that could not be collected, and why
}

// maxInventoryFile is far above what a thousand hosts need.
const maxInventoryFile = 2 << 30

// openInventories reads a file, or the names of a directory.
func openInventories(name string) (*inventorySet, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	s := &inventorySet{name: name, hosts: map[string]func() (*hostinv.Inventory, error){}, failed: map[string]string{}}
	if info.IsDir() {
		list, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			host, ok := strings.CutSuffix(e.Name(), ".json")
			if !ok || strings.HasPrefix(host, ".") || e.IsDir() {
				continue
			}
			path := filepath.Join(name, e.Name())
			s.hosts[hostName(host)] = func() (*hostinv.Inventory, error) { return readInventory(path) }
		}
		if len(s.hosts) == 0 {
			return nil, fmt.Errorf("directory %s holds no inventory (NAME.json)", name)
		}
		return s, nil
	}
	data, err := readRegular(name, info)
	if err != nil {
		return nil, err
	}
	var fleet struct {
		Hosts []hostReport `json:"hosts"`
	}
	var head map[string]json.RawMessage
	if json.Unmarshal(data, &head) == nil && head["schema"] == nil && head["collected"] != nil && json.Unmarshal(data, &fleet) == nil {
		for _, h := range fleet.Hosts {
			if h.Error != "" {
				s.failed[h.Name] = h.Error
				continue
			}
			s.hosts[h.Name] = func() (*hostinv.Inventory, error) { return parseInventory(name+", host "+h.Name, h.Inventory) }
		}
		return s, nil
	}
	s.single, err = parseInventory(name, data)
	return s, err
}

func readRegular(name string, info fs.FileInfo) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if info.Size() > maxInventoryFile {
		return nil, fmt.Errorf("%s has %d bytes, more than any inventory", name, info.Size())
	}
	return os.ReadFile(name)
}

func parseInventory(name string, data []byte) (*hostinv.Inventory, error) {
	inv, err := hostinv.ParseInventory(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return inv, nil
}

func readInventory(name string) (*hostinv.Inventory, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	data, err := readRegular(name, info)
	if err != nil {
		return nil, err
	}
	return parseInventory(name, data)
}

// hostName undoes fileName.
func hostName(file string) string {
	var b strings.Builder
	for i := 0; i < len(file); i++ {
		var ch byte
		if file[i] == '%' && i+2 < len(file) {
			if n, err := fmt.Sscanf(file[i+1:i+3], "%02X", &ch); n == 1 && err == nil {
				b.WriteByte(ch)
				i += 2
				continue
			}
		}
		b.WriteByte(file[i])
	}
	return b.String()
}

// names returns the hosts of both sets, sorted.
func names(sets ...*inventorySet) []string {
	var l []string
	for _, s := range sets {
		for n := range s.hosts {
			l = append(l, n)
		}
		for n := range s.failed {
			l = append(l, n)
		}
	}
	slices.Sort(l)
	return slices.Compact(l)
}

func newInventoryShow(a *app) *cobra.Command {
	var sections []string
	cmd := &cobra.Command{
		Use:   "show FILE|DIR",
		Short: a.t("show collected inventories", "显示已采集的清单"),
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, s := range sections {
				if !slices.Contains(hostinv.SectionNames(), s) {
					return usagef(a.t("there is no section %q; the sections are %s", "没有 %q 这一部分；可用的有 %s"), s, strings.Join(hostinv.SectionNames(), ", "))
				}
			}
			if len(sections) > 0 && a.json {
				return usagef("--section is for people; take what you need out of the JSON")
			}
			set, err := openInventories(args[0])
			if err != nil {
				return err
			}
			if set.single != nil {
				return a.result(set.single, func(w io.Writer) { fmt.Fprint(w, a.inventoryText(set.single, sections...)) })
			}
			return a.showSet(set, sections)
		},
	}
	cmd.Flags().StringSliceVar(&sections, "section", nil, a.t("only these sections, whole; may be repeated", "只完整显示这些部分；可重复"))
	return cmd
}

// showSet shows many hosts, one after the other.
func (a *app) showSet(set *inventorySet, sections []string) error {
	w := &errWriter{w: a.out}
	failed := 0
	var all []hostReport
	for _, name := range names(set) {
		inv, err := (*hostinv.Inventory)(nil), error(nil)
		if why, ok := set.failed[name]; ok {
			err = fmt.Errorf("%s: %s", name, why)
		} else {
			inv, err = set.hosts[name]()
		}
		h := hostReport{Name: name}
		switch {
		case err != nil:
			failed++
			h.Error = err.Error()
			a.progress("%v", err)
		case a.json:
			if h.Inventory, err = json.Marshal(inv); err != nil {
				return err
			}
		default:
			fmt.Fprintf(w, "== %s\n%s\n", name, a.inventoryText(inv, sections...))
		}
		all = append(all, h)
	}
	if a.json {
		if err := a.printJSON(fleetReport{Collected: len(all) - failed, Failed: failed, Hosts: all}); err != nil {
			return err
		}
	}
	if failed > 0 && w.err == nil {
		return &exitError{exitFailure, fmt.Errorf(a.t("%d of %d inventories cannot be shown", "%d 份清单无法显示，共 %d 份"), failed, len(all))}
	}
	return w.err
}

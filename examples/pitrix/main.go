// Command pitrix checks a copy of an installer's settings directory and shows
// what rebuilding a node with another release would change in its file: the
// release and the MAC address. It writes nothing.
//
//	go run ./examples/pitrix examples/pitrix/testdata/settings proxy0 16.04.5 xenial
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/upgradectl/upgradectl/pitrix"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: pitrix SETTINGS-DIRECTORY NODE OS-VERSION OS-NAME")
		os.Exit(2)
	}
	if err := show(os.Stdout, pitrix.MACGen{}, time.Now(), os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(w io.Writer, macs pitrix.MACGen, now time.Time, dir, node, version, name string) error {
	fleet, err := load(dir)
	if err != nil {
		return err
	}
	old, ok := fleet[node]
	if !ok {
		return fmt.Errorf("%s has no file %s; name a node that is there", dir, node)
	}
	for _, p := range pitrix.CheckFleet(fleet) {
		fmt.Fprintln(w, "before:", p)
	}

	mac, err := macs.Next(pitrix.TakenMACs(fleet))
	if err != nil {
		return err
	}
	next := old.Clone()
	for _, kv := range [][2]string{{"os_version", version}, {"os_name", name}, {"mgmt_network_mac_address", mac.String()}} {
		if err := next.Set(kv[0], kv[1]); err != nil {
			return err
		}
	}
	fmt.Fprint(w, next.Diff())
	fleet[node] = next
	for _, p := range pitrix.CheckFleet(fleet) {
		fmt.Fprintln(w, "after:", p)
	}

	// On the firstbox, where the directory is to be saved first.
	backup, err := pitrix.BackupPath("/pitrix/conf/settings", now, []string{"nodes", "settings", "variables"})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "save the directory as", backup)
	return nil
}

// load reads every file of dir: each one is a node.
func load(dir string) (map[string]*pitrix.Settings, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	fleet := map[string]*pitrix.Settings{}
	var problems pitrix.Problems
	for _, e := range entries {
		if e.IsDir() {
			continue // the installer's scripts look at files only
		}
		src, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		s, err := pitrix.Parse(e.Name(), src)
		if found, ok := err.(pitrix.Problems); ok {
			problems = append(problems, found...)
			continue
		} else if err != nil {
			return nil, err
		}
		fleet[e.Name()] = s
	}
	if len(problems) > 0 {
		return nil, problems // of all files at once
	}
	return fleet, nil
}

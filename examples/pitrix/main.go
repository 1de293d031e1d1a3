// Command pitrix checks a copy of an installer's settings directory and shows
// the settings of the VM that would be built in a node's place, with another
// release, on a temporary address and on another physical host. It writes
// nothing.
//
//	go run ./examples/pitrix examples/pitrix/testdata/settings proxy0 16.04.5 xenial 192.0.2.71 192.0.2.103
package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/upgradectl/upgradectl/pitrix"
)

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: pitrix SETTINGS-DIRECTORY NODE OS-VERSION OS-NAME ADDRESS PHYSICAL-HOST")
		os.Exit(2)
	}
	new := pitrix.Replacement{OSVersion: os.Args[3], OSName: os.Args[4], Address: os.Args[5], PhysicalHost: os.Args[6]}
	if err := show(os.Stdout, pitrix.MACGen{}, time.Now(), os.Args[1], os.Args[2], new); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(w io.Writer, macs pitrix.MACGen, now time.Time, dir, node string, new pitrix.Replacement) error {
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

	// A real run adds the backups of the settings and virsh dumpxml of every
	// domain of every host, with pitrix.AddMACs.
	taken := pitrix.TakenMACs(fleet)
	if new.MAC, err = macs.Next(taken); err != nil {
		return err
	}
	next, err := pitrix.DeriveTemporary(old, new)
	if err != nil {
		return err
	}
	fmt.Fprint(w, next.Diff())
	planned := maps.Clone(fleet)
	planned[node] = next
	for _, p := range pitrix.CheckRebuild(fleet, planned, map[string]pitrix.Phase{node: pitrix.PhaseBuild}, taken) {
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
func load(dir string) (pitrix.Fleet, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if e.IsDir() {
			continue // the installer's scripts look at files only
		}
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return pitrix.ParseFleet(files) // the problems of all files at once
}

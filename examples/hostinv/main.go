// Command hostinv prints what runs on a host: release, kernel, listeners,
// Java processes, containers, units. It installs and changes nothing there.
//
//	go run ./examples/hostinv -config ~/.ssh/config.d/web -agent web-90
//	go run ./examples/hostinv -identity ~/.ssh/id_ed25519 -json root@172.31.0.90
//	go run ./examples/hostinv -agent -ansible production.ini -limit 'web:!web-9' -forks 20
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "hostinv:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("hostinv", flag.ContinueOnError)
	config := flags.String("config", "", "ssh_config `file`")
	known := flags.String("known-hosts", "", "known_hosts `files`, separated by commas (default the user's)")
	identity := flags.String("identity", "", "private key `file`")
	agent := flags.Bool("agent", false, "use the keys of the SSH agent")
	asJSON := flags.Bool("json", false, "print JSON")
	ansible := flags.String("ansible", "", "Ansible inventory `file` with more hosts")
	limit := flags.String("limit", "", "`pattern` of hosts and groups of the Ansible inventory")
	forks := flags.Int("forks", hostinv.DefaultForks, "hosts at once, of many")
	timeout := flags.Duration("timeout", time.Minute, "give up after this `time`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *ansible == "" && flags.NArg() == 0 {
		return errors.New("want hosts: [user@]host[:port], or a name of the ssh_config file")
	}
	cfg := hostinv.SSHConfig{
		ConfigFile: *config,
		Agent:      *agent,
		Warn:       func(text string) { fmt.Fprintln(os.Stderr, "hostinv:", text) },
	}
	if *known != "" {
		cfg.KnownHosts = strings.Split(*known, ",")
	}
	if *identity != "" {
		cfg.Identities = []string{*identity}
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	if *ansible == "" && flags.NArg() == 1 {
		return one(ctx, flags.Arg(0), cfg, *asJSON, stdout)
	}
	hosts, err := hostinv.ArgumentHosts(flags.Args())
	if err != nil {
		return err
	}
	if *ansible != "" {
		inventory, err := hostinv.LoadAnsible(*ansible)
		if err != nil {
			return err
		}
		more, err := inventory.Hosts(*limit)
		if err != nil {
			return err
		}
		if hosts, err = hostinv.MergeHosts(hosts, more); err != nil {
			return err
		}
	}
	return many(ctx, hosts, cfg, *forks, *asJSON, stdout)
}

// many collects all hosts and prints each as soon as it is there; one that
// fails keeps no other from being printed.
func many(ctx context.Context, hosts []hostinv.FleetHost, cfg hostinv.SSHConfig, forks int, asJSON bool, stdout io.Writer) error {
	d, err := hostinv.NewFleetDialer(cfg)
	if err != nil {
		return err
	}
	defer d.Close()
	fleet := hostinv.CollectFleet(ctx, hosts, d.Dial, hostinv.FleetOptions{Forks: forks, Each: func(r hostinv.FleetResult) error {
		if r.Err != nil {
			return nil // it is in the result
		}
		if asJSON {
			return json.NewEncoder(stdout).Encode(map[string]any{"name": r.Host.Name, "inventory": r.Inventory})
		}
		_, err := fmt.Fprintf(stdout, "== %s\n%s\n", r.Host.Name, r.Inventory.Text(hostinv.English))
		return err
	}})
	return fleet.Err()
}

func one(ctx context.Context, target string, cfg hostinv.SSHConfig, asJSON bool, stdout io.Writer) error {
	conn, err := hostinv.Dial(ctx, target, cfg)
	if err != nil {
		return err // it says what to do
	}
	defer conn.Close()
	inventory, err := hostinv.Collect(ctx, conn, hostinv.Options{})
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(inventory)
	}
	_, err = io.WriteString(stdout, inventory.Text(hostinv.English))
	return err
}

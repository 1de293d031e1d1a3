// Command hostinv prints what runs on a host: release, kernel, listeners,
// Java processes, containers, units. It installs and changes nothing there.
//
//	go run ./examples/hostinv -config ~/.ssh/config.d/web -agent web-90
//	go run ./examples/hostinv -identity ~/.ssh/id_ed25519 -json root@172.31.0.90
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
	timeout := flags.Duration("timeout", time.Minute, "give up after this `time`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one host: [user@]host[:port], or a name of the ssh_config file")
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

	conn, err := hostinv.Dial(ctx, flags.Arg(0), cfg)
	if err != nil {
		return err // it says what to do
	}
	defer conn.Close()
	inventory, err := hostinv.Collect(ctx, conn, hostinv.Options{})
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(inventory)
	}
	_, err = io.WriteString(stdout, inventory.Text(hostinv.English))
	return err
}

// Command slb shows where a server gets traffic from load balancers (CLB, ALB, NLB),
// and takes it out of all of them, or puts it back, by weight.
//
//	slb -server i-bp1…                    show every group it is a member of
//	slb -server i-bp1… -weight 0 -save w  drain it everywhere, and keep the weights in file w
//	slb -restore w                        give it back the weights in file w
//
// Keys and region come from the environment or ~/.aliyun/config.json.
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
	"strconv"

	"github.com/upgradectl/upgradectl/slb"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "slb:", err)
		os.Exit(1)
	}
}

// saved is one line of the file of weights.
type saved struct {
	Group   slb.Group
	Backend slb.Backend // as it was
	Set     int         // what it was set to
}

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("slb", flag.ContinueOnError)
	var (
		endpoint = fs.String("endpoint", "", "API endpoint instead of the public one")
		server   = fs.String("server", "", "ID of the instance")
		weight   = fs.String("weight", "", "weight to set, 0 to 100; empty only shows")
		save     = fs.String("save", "", "new file to keep the weights in; required with -weight")
		restore  = fs.String("restore", "", "file of weights to give back")
	)
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := slb.New(slb.Config{Endpoint: *endpoint})
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	if *restore != "" {
		return giveBack(ctx, c, *restore, out)
	}

	members, err := c.Discover(ctx, slb.Server{InstanceID: *server})
	if err != nil {
		return err
	}
	for _, m := range members {
		fmt.Fprintf(out, "%s (%s): %s has weight %d of", m.Group(), m.LoadBalancerName, m.Backend, m.Backend.Weight)
		total := 0
		for _, b := range m.Backends {
			total += b.Weight
		}
		fmt.Fprintf(out, " %d\n", total)
		for _, l := range m.Listeners {
			fmt.Fprintf(out, "    %s %d, %s, rule %q\n", l.Protocol, l.Port, l.Scheduler, l.Rule)
		}
	}
	if *weight == "" {
		return nil
	}
	w, err := strconv.Atoi(*weight)
	if err != nil {
		return fmt.Errorf("-weight: %q is not a number", *weight)
	}
	if *save == "" {
		return errors.New("-weight needs -save FILE, or nobody will know the weights of before")
	}
	// Every weight is on disk before the first one changes.
	var all []saved
	for _, m := range members {
		all = append(all, saved{Group: m.Group(), Backend: m.Backend, Set: w})
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(*save, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	for _, m := range members {
		if err := c.SetWeight(ctx, m.Group(), m.Backend, w); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s in %s: %d -> %d\n", m.Backend, m.Group(), m.Backend.Weight, w)
	}
	return nil
}

func giveBack(ctx context.Context, c *slb.Client, file string, out io.Writer) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all []saved
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	var failed error
	for _, s := range all {
		ours := s.Backend
		ours.Weight = s.Set
		// A weight that somebody else changed in the meantime is left to them.
		if err := c.SetWeight(ctx, s.Group, ours, s.Backend.Weight); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		fmt.Fprintf(out, "%s in %s: %d -> %d\n", ours, s.Group, s.Set, s.Backend.Weight)
	}
	return failed
}

// Command upgrade shows what the upgrade of a host would do: it reads
// upgrade.yaml, looks at the world, and prints the plan. It changes nothing.
//
//	go run ./examples/upgrade upgrade.yaml
//	go run ./examples/upgrade -o plan.json upgrade.yaml
//
// Credentials come from ALIBABA_CLOUD_ACCESS_KEY_ID and
// ALIBABA_CLOUD_ACCESS_KEY_SECRET, or from the profile in ~/.aliyun.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/upgradectl/upgradectl/upgrade"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		var config *upgrade.ConfigError
		if errors.As(err, &config) {
			os.Exit(3)
		}
		os.Exit(upgrade.ErrorStatus(err))
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("upgrade", flag.ContinueOnError)
	out := flags.String("o", "", "write the plan to `file`, from where a run can be started")
	timeout := flags.Duration("timeout", 5*time.Minute, "give up after this `time`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one file: upgrade.yaml")
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	cfg, err := upgrade.LoadConfig(flags.Arg(0))
	if err != nil {
		return err // every problem of the file, with its position
	}
	env, err := upgrade.NewEnv(cfg, nil)
	if err != nil {
		return err
	}
	defer env.Close()
	facts, err := upgrade.Discover(ctx, cfg, env)
	if err != nil {
		return err // it says what to do
	}
	plan, err := upgrade.BuildPlan(cfg, facts, time.Now(), "example")
	if err != nil {
		return err // everything that speaks against it, at once
	}
	if *out != "" {
		stored, err := plan.JSON()
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, stored, 0o600); err != nil {
			return fmt.Errorf("cannot write the plan: %w", err)
		}
	}
	_, err = io.WriteString(stdout, plan.Text())
	return err
}

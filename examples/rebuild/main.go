// Command rebuild replaces management nodes by new ones: it reads upgrade.yaml
// with "procedure: rebuild", looks at the site, prints the plan, and carries it
// out. Before each old machine is shut down, and before the old machines are
// undefined, it asks; "no" ends the program, and the next start with the same
// directory goes on from there.
//
//	go run ./examples/rebuild upgrade.yaml           shows the plan
//	go run ./examples/rebuild -run dir upgrade.yaml  carries it out, with its journal in dir
//	go run ./examples/rebuild -run dir -back         takes it back
//
// The firstbox is reached by SSH, with the user's own configuration and keys,
// the nodes and their hosts as upgrade.yaml says.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/upgrade"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, nil, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "rebuild:", err)
		os.Exit(upgrade.ErrorStatus(err))
	}
}

// errStopped says that a person wanted to go no further.
var errStopped = errors.New("stopped before a step that was not approved; start again to go on, or with -back to take it back")

func run(ctx context.Context, access *upgrade.Access, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("rebuild", flag.ContinueOnError)
	dir := flags.String("run", "", "carry the plan out, with its journal in this `directory`")
	back := flags.Bool("back", false, "take back what was done, with -run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (flags.NArg() != 1 && !*back) || *back && *dir == "" {
		return errors.New("want one file, upgrade.yaml; or -run DIR -back")
	}
	o := upgrade.RunOptions{Actor: "example", Version: "example", Access: access, Observer: func(e upgrade.Event) {
		if e.Kind == "done" || e.Kind == "undone" || e.Kind == "progress" {
			fmt.Fprintln(stdout, e.Kind, e.Step, e.Text)
		}
	}}
	if *back {
		return ended(upgrade.Rollback(ctx, *dir, o))
	}
	_, err := os.Stat(filepath.Join(*dir, "journal.jsonl"))
	begun := *dir != "" && err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	// The plan is made once; a run that was begun has its own.
	var stored []byte
	if !begun {
		plan, err := makePlan(ctx, access, flags.Arg(0))
		if err != nil {
			return err // every problem of the file, or of the site, at once
		}
		if _, err := io.WriteString(stdout, plan.Text()); err != nil || *dir == "" {
			return err
		}
		if stored, err = plan.JSON(); err != nil {
			return err
		}
	}

	answers := bufio.NewScanner(stdin)
	for {
		var r *upgrade.Result
		if begun {
			r, err = upgrade.Resume(ctx, *dir, o)
		} else {
			r, err = upgrade.Apply(ctx, *dir, "rebuild-"+time.Now().UTC().Format("20060102-150405"), stored, o)
		}
		if err != nil || !r.Gate {
			return ended(r, err)
		}
		// It stands at a gate: nothing behind it happens before somebody says so.
		fmt.Fprintf(stdout, "%s\napprove %s? (yes/no) ", r.Reason, r.Step)
		if !answers.Scan() || strings.TrimSpace(answers.Text()) != "yes" {
			return errors.Join(errStopped, answers.Err())
		}
		begun, o.Approve = true, []string{r.Step}
	}
}

func makePlan(ctx context.Context, access *upgrade.Access, file string) (*upgrade.Plan, error) {
	cfg, err := upgrade.LoadConfig(file)
	if err != nil {
		return nil, err
	}
	if cfg.Procedure != upgrade.ProcedureRebuild {
		return nil, fmt.Errorf("%s: want procedure: rebuild; examples/upgrade shows the other one", file)
	}
	env, err := upgrade.NewEnv(cfg, access)
	if err != nil {
		return nil, err
	}
	defer env.Close()
	facts, err := upgrade.Discover(ctx, cfg, env)
	if err != nil {
		return nil, err
	}
	return upgrade.BuildPlan(cfg, facts, time.Now(), "example")
}

// ended makes an error of a run that has not reached an end.
func ended(r *upgrade.Result, err error) error {
	if err != nil {
		return err
	}
	switch r.State {
	case "succeeded", "rolled-back":
		return nil
	}
	return errors.Join(fmt.Errorf("the run is %s at %s: %s", r.State, r.Step, r.Reason), r.Err)
}

// Command engine runs a procedure of one's own with the engine of upgradectl:
// it publishes a release directory by writing the next version beside the
// present one and then turning a pointer file. Kill it anywhere, and run it
// again: it goes on. With -rollback everything is as before.
//
//	go run ./examples/engine -site ./site -run ./run -version v2
//	go run ./examples/engine -site ./site -run ./run -version v2 -rollback
package main

import (
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

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "engine:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("engine", flag.ContinueOnError)
	site := flags.String("site", "site", "`directory` of the releases")
	dir := flags.String("run", "run", "`directory` of the run")
	version := flags.String("version", "", "`name` of the release to publish")
	until := flags.String("until", "", "pause after this `section`")
	rollback := flags.Bool("rollback", false, "take the run back")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !fs.ValidPath(*version) || *version == "." {
		return errors.New("want -version, a name")
	}
	if err := os.MkdirAll(*site, 0o755); err != nil {
		return err
	}

	// The first start creates the run, every later one opens it.
	r, err := engine.Open(*dir)
	if errors.Is(err, fs.ErrNotExist) {
		r, err = engine.Create(*dir, engine.Header{Run: filepath.Base(*dir), Procedure: "publish", Host: "localhost"}, []byte(*version+"\n"))
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if planned := string(r.Plan()); planned != *version+"\n" {
		return fmt.Errorf("the run in %s publishes %q; use another directory for another release", *dir, strings.TrimSpace(planned))
	}

	steps := []engine.Step{writeRelease(*site, *version), turnPointer(*site, *version)}
	opts := engine.Options{Until: *until, Observer: func(e engine.Event) { fmt.Fprintln(stdout, e.Kind, e.Step, e.Text) }}
	act := r.Apply
	if *rollback {
		act = r.Rollback
	}
	out, err := act(ctx, steps, opts)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "the run is", out.State, out.Reason)
	for _, w := range out.Work {
		fmt.Fprintln(stdout, "left to do:", w)
	}
	return out.Err
}

// writeRelease makes the release's directory. Its name holds the step's key,
// so that whose directory it is can be seen at any time.
func writeRelease(site, version string) engine.Step {
	path := func(a *engine.Act) string { return filepath.Join(site, version+"-"+a.Key()) }
	return engine.Step{
		ID: "1.1-release", Section: "1.1", Title: "write release " + version, Effect: engine.TokenCreate,
		Observe: func(_ context.Context, a *engine.Act) (engine.Sight, error) {
			_, err := os.Stat(path(a))
			if errors.Is(err, fs.ErrNotExist) {
				return engine.Sight{State: engine.Absent}, nil
			}
			// It may be half written; Do writes all of it again.
			return engine.Sight{State: engine.InProgress}, err
		},
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			if err := os.MkdirAll(path(a), 0o755); err != nil {
				return nil, err
			}
			index := filepath.Join(path(a), "index.html")
			return filepath.Base(path(a)), os.WriteFile(index, []byte("<h1>"+version+"</h1>\n"), 0o644)
		},
		Undo: func(_ context.Context, a *engine.Act) error { return os.RemoveAll(path(a)) },
	}
}

// turnPointer makes the file "current" name the release. The content it had
// is in the journal before it changes: the before-image.
func turnPointer(site, version string) engine.Step {
	pointer := filepath.Join(site, "current")
	read := func() (string, error) {
		b, err := os.ReadFile(pointer)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return string(b), err
	}
	// Written beside and renamed: a reader sees the old or the new content.
	write := func(text string) error {
		if text == "" {
			return os.RemoveAll(pointer)
		}
		if err := os.WriteFile(pointer+".new", []byte(text), 0o644); err != nil {
			return err
		}
		return os.Rename(pointer+".new", pointer)
	}
	return engine.Step{
		ID: "1.2-pointer", Section: "1.2", Title: "publish release " + version, Effect: engine.SetState,
		Plan: func(_ context.Context, a *engine.Act) (engine.Proposal, error) {
			var release string
			if ok, err := a.Result("1.1-release", &release); err != nil || !ok {
				return engine.Proposal{}, errors.Join(errors.New("no release was written"), err)
			}
			before, err := read()
			return engine.Proposal{Params: release, Before: before, Lines: []string{before + " → " + release}}, err
		},
		Observe: func(_ context.Context, a *engine.Act) (engine.Sight, error) {
			var before, release string
			now, err := read()
			if err := errors.Join(err, a.Before(&before), a.Params(&release)); err != nil {
				return engine.Sight{}, err
			}
			switch now {
			case release:
				return engine.Sight{State: engine.Ours}, nil
			case before:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.Foreign, Detail: "current names " + now}, nil
		},
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			var release string
			if err := a.Params(&release); err != nil {
				return nil, err
			}
			return nil, write(release)
		},
		Verify: func(_ context.Context, a *engine.Act) (any, error) {
			name, err := read()
			if err == nil {
				_, err = os.Stat(filepath.Join(site, name, "index.html"))
			}
			return name, err
		},
		Undo: func(_ context.Context, a *engine.Act) error {
			var before, release string
			now, err := read()
			if err := errors.Join(err, a.Before(&before), a.Params(&release)); err != nil {
				return err
			}
			if now != release && now != before {
				return &engine.ConflictError{Object: pointer, Before: before, Ours: release, Now: now}
			}
			return write(before)
		},
	}
}

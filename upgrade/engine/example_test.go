package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// writeMOTD is a step that sets the content of a file: the conditional write of
// a value that can be read back.
func writeMOTD(name, text string) engine.Step {
	read := func() (string, error) {
		data, err := os.ReadFile(name)
		return string(data), err
	}
	return engine.Step{
		ID: "1.2-motd", Section: "1.2", Title: "write " + filepath.Base(name),
		Effect: engine.SetState,
		Plan: func(_ context.Context, _ *engine.Act) (engine.Proposal, error) {
			now, err := read()
			if now == text {
				return engine.Proposal{NotApplicable: "it says so already"}, err
			}
			return engine.Proposal{Params: text, Before: now, Lines: []string{"write " + text}}, err
		},
		Observe: func(_ context.Context, a *engine.Act) (engine.Sight, error) {
			var from, to string
			now, err := read()
			if err := errors.Join(err, a.Before(&from), a.Params(&to)); err != nil {
				return engine.Sight{}, err
			}
			switch now {
			case to:
				return engine.Sight{State: engine.Ours}, nil
			case from:
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.Foreign, Detail: now}, nil
		},
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			var to string
			if err := a.Params(&to); err != nil {
				return nil, err
			}
			return nil, os.WriteFile(name, []byte(to), 0o600)
		},
		Verify: func(_ context.Context, a *engine.Act) (any, error) {
			now, err := read()
			if err == nil && now != text {
				err = fmt.Errorf("%s says %q", name, now)
			}
			return now, err
		},
		Undo: func(_ context.Context, a *engine.Act) error {
			var from string
			if err := a.Before(&from); err != nil {
				return err
			}
			return os.WriteFile(name, []byte(from), 0o600)
		},
	}
}

// keepCopy is a step that makes something under an idempotency token: a copy
// whose name holds the key, so that it is found again and never made twice.
func keepCopy(name string) engine.Step {
	copyName := func(a *engine.Act) string { return name + "." + a.Key() }
	return engine.Step{
		ID: "1.1-copy", Section: "1.1", Title: "keep a copy of " + filepath.Base(name),
		Effect: engine.TokenCreate,
		Observe: func(_ context.Context, a *engine.Act) (engine.Sight, error) {
			_, err := os.Stat(copyName(a))
			if errors.Is(err, fs.ErrNotExist) {
				return engine.Sight{State: engine.Absent}, nil
			}
			return engine.Sight{State: engine.InProgress}, err // perhaps half of it: Do writes all of it
		},
		Do: func(_ context.Context, a *engine.Act) (any, error) {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, engine.Definitive(err) // nothing was made, for sure
			}
			return filepath.Base(copyName(a)), os.WriteFile(copyName(a), data, 0o600)
		},
		Undo: func(_ context.Context, a *engine.Act) error {
			err := os.Remove(copyName(a))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		},
	}
}

// A procedure of one's own with three steps, run, stopped at a gate, resumed and rolled back.
func Example() {
	tmp, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(tmp)
	motd := filepath.Join(tmp, "motd")
	if err := os.WriteFile(motd, []byte("welcome"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	steps := []engine.Step{
		keepCopy(motd),
		writeMOTD(motd, "maintenance tonight"),
		{
			ID: "2.1-look", Section: "2.1", Title: "look at it", Effect: engine.ReadOnly, Gate: "may I look?",
			Verify: func(context.Context, *engine.Act) (any, error) { return os.ReadFile(motd) },
		},
	}
	run, err := engine.Create(filepath.Join(tmp, "run"), engine.Header{Run: "r1", Procedure: "motd", Host: "web-90"}, []byte("{}"))
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func(e engine.Event) { fmt.Println(e.Kind, e.Step, "-", e.Text, "-") }
	out, err := run.Apply(ctx, steps, engine.Options{Actor: "wang", Observer: show})
	fmt.Println("→", out.State, out.Reason, err)
	run.Close()

	// Later, in another process.
	run, err = engine.Open(filepath.Join(tmp, "run"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer run.Close()
	out, err = run.Apply(ctx, steps, engine.Options{Actor: "li", Approve: []string{"2.1-look"}})
	fmt.Println("→", out.State, err)
	out, err = run.Rollback(ctx, steps, engine.Options{Actor: "li"})
	fmt.Println("→", out.State, err)
	text, err := os.ReadFile(motd)
	fmt.Println(string(text), err)
	audit, err := engine.Verify(filepath.Join(tmp, "run"))
	fmt.Println(audit.Records, "records,", len(audit.Findings), "findings", err)
	// Output:
	// started  - apply by wang -
	// intent 1.1-copy -  -
	// effect 1.1-copy -  -
	// done 1.1-copy -  -
	// intent 1.2-motd -  -
	// progress 1.2-motd - write maintenance tonight -
	// effect 1.2-motd -  -
	// done 1.2-motd -  -
	// gate 2.1-look - may I look? -
	// paused 2.1-look - waiting for approval: may I look? -
	// → paused waiting for approval: may I look? <nil>
	// → succeeded <nil>
	// → rolled-back <nil>
	// welcome <nil>
	// 19 records, 0 findings <nil>
}

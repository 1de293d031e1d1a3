// Package engine runs a procedure step by step so that it can be killed at any
// point and then be resumed to its end or rolled back to its beginning.
//
// A procedure is a list of [Step] values. Each step has five sides: Plan,
// Observe, Do, Verify and Undo. Before a step acts, its parameters and the
// state it will change (the before-image) are written to an append-only journal
// as an intent. After a crash every intent without an outcome is observed
// first: an effect that is there is adopted, one that is half-way goes on, one
// that is absent is made under the same key, somebody else's stops the run.
//
// # Example
//
//	run, err := engine.Create(dir, engine.Header{Run: "r1", Procedure: "transition", Host: "web-90"}, plan)
//	if err != nil {
//		return err
//	}
//	defer run.Close()
//	out, err := run.Apply(ctx, steps, engine.Options{ApproveAll: true, Actor: "operator"})
//
// After a crash the same program calls Open instead of Create and then the same
// Apply, or Rollback. The package example is a whole program.
//
// # The run directory
//
// The directory has mode 0700, its files 0600.
//
//	plan.json      what was accepted; its SHA-256 is in the journal
//	journal.jsonl  one record a line, each on disk before anything depends on it
//	blobs/SHA256   values over 4 KB, under the hex SHA-256 of their bytes
//	lock           locked by the process at work; says who it is
//
// Every line of the journal is a JSON object with seq, time (RFC 3339, UTC, for
// people only: nothing is decided by it), kind, step, attempt, key, body, prev
// and sum. prev is the hex SHA-256 of the raw bytes of the line before, without
// its newline; sum is the start of the SHA-256 of the line's own bytes before
// `,"sum":`. The kinds are opened, started, gate, approved, intent, effect,
// adopted, done, skipped, failed, undo-intent, undone, undo-failed, paused,
// interrupted, parked, succeeded, rolled-back and rollback-incomplete.
//
// # Guarantees
//
//  1. Killed once or twice anywhere, also inside a write, a run resumes to the
//     same end as an undisturbed one: no effect happens twice (TestCrashMatrix,
//     TestKilled).
//  2. Killed once or twice anywhere, a rollback reaches the beginning with
//     nothing left behind, or, past a pivot, the state just after it, from which
//     resume reaches the end (TestCrashMatrix).
//  3. An effect begins only after its intent, with parameters, before-image and
//     key, is on disk (TestCrashMatrix, TestUnwritable).
//  4. The before-image is taken once an attempt and never again (TestCrashMatrix,
//     TestStories).
//  5. A new key is used only after a definitive failure or an undo
//     (TestStories).
//  6. What somebody else changed is never overwritten (TestForeign).
//  7. Any altered byte of the journal is noticed, or lies in a last line that is
//     then cut as torn (TestTamper, FuzzJournal).
//  8. After a failed write or fsync this process begins nothing any more
//     (TestUnwritable).
//  9. Two processes never work on one run, and a dead one does not block it
//     (TestLocked, TestKilled).
//  10. Reading a run changes nothing (TestReadChangesNothing).
//  11. No goroutine is ever started (TestMain checks that none is left).
//
// # Limits
//
// Steps run one after another. A step that panics is a crash: the panic goes on
// to the caller, and the run can be opened again. The engine has no time-outs
// and no retries of its own; sides use ctx and poll themselves. No disk space is
// kept in reserve for the last records: on a full disk the world may be one
// effect ahead of the journal, which resume finds out. The lock holds
// among processes of one machine; on a network file system it is as good as
// that system's locks. The chain shows every accidental change and every edit
// that does not recompute it to the end; somebody who rewrites all the lines
// must be found by a copy of History.Head kept elsewhere.
//
// # Errors
//
// Decide with errors.Is by the Err values, and with errors.As by *LockedError,
// *DamagedError and *ConflictError. A failing step is no error of Apply: it is
// Outcome.Err.
package engine

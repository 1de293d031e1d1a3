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
// The directory has mode 0700, its files 0600. docs/journal.md describes every
// record.
//
//	plan.json      what was accepted; its SHA-256 is in the journal
//	journal.jsonl  one record a line, each on disk before anything depends on it
//	blobs/SHA256   values over 4 KB, under the hex SHA-256 of their bytes
//	ballast        room that is given back to a full disk for the closing records
//	control/       requests of operators that no process has taken yet
//	lock           locked by the process at work; says who it is
//
// Every line of the journal is a JSON object with seq, time (RFC 3339, UTC, for
// people only: nothing is decided by it), kind, step, attempt, key, body, with,
// prev and sum. prev is the hex SHA-256 of the raw bytes of the line before, without
// its newline; sum is the start of the SHA-256 of the line's own bytes before
// `,"sum":`.
//
// A step costs at most two writes with an fsync: its intent, and how it ended with
// what Do returned; the beginning and the end of an undisturbed run go with those
// of its steps (TestSyncs). Records between which nothing happens share one: how the last
// step ended and that the run is at its end, a gate and that it waits, who began
// and the first look. A look, a ReadOnly step without a Plan, needs no more than
// one, since its intent goes with what stands before it. The intent of an effect
// never waits for company, nobody is told anything and no side of a step runs on a
// record that is not durable, and whoever is told how a step ended can pause or
// cancel before the next effect. One exception: a Plan that comes first in a run
// may find on disk only that the run was opened; that its first process began is
// written with the intent, or before the first word that this Plan tells
// (TestFirstPlan). with counts the records before this one that the
// same fsync made durable: of such a write a power loss may leave the end without
// the start, and only its last record tells that from damage.
//
// # Control
//
// Ask leaves a request of another terminal (pause, stop, rollback, approve) for
// the process at work; Read, Records and Follow show how the run stands and
// History.Ways what is legal now. Who asked, from where and why is in the
// journal.
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
//     key, is on disk (TestCrashMatrix, TestUnwritable), and after everybody who
//     is told how the step before it ended could stop it (TestToldInTime). What
//     the Observer is told is on disk (TestObserver).
//  4. The before-image is taken once an attempt and never again (TestCrashMatrix,
//     TestStories).
//  5. A new key is used only after a definitive failure or an undo
//     (TestStories).
//  6. What somebody else changed is never overwritten (TestForeign).
//  7. Any altered byte of the journal is noticed, or lies in the last write, which
//     is then cut as torn (TestTamper, TestTornGroup, FuzzJournal); Verify says which record was
//     changed, removed or moved (TestScenario04BitFlip,
//     TestScenario05RecordDeletedOrReordered, TestAuditFindsEverything), and by a
//     head that was kept elsewhere that the end was cut off (TestAuditHead).
//  8. After a failed write or fsync this process begins nothing any more
//     (TestUnwritable, TestScenario08FsyncFails). On a full disk nothing begins
//     either, and what was begun is closed in the reserve
//     (TestScenario06DiskFullAtIntent, TestScenario07DiskFullAtOutcome,
//     TestDiskReallyFull).
//  9. Two processes never work on one run, and a dead one does not block it
//     (TestLocked, TestKilled); another machine does not go on with a copy
//     unless somebody says so (TestScenario16OtherMachine).
//  10. Reading a run changes nothing (TestReadChangesNothing).
//  11. A gate with Approvers is passed only by that many people whose approvals
//     name this run, plan, gate and attempt and have not expired
//     (TestScenario60ApproverIsOperator, TestScenario61ApprovalOfAnotherPlan,
//     TestApprovalExpires).
//  12. A request is taken once, from a file that only the run's owner can have
//     written, and is in the journal, followed or refused (TestRequests,
//     TestControlDirectory).
//  13. A step begun by another form of it is not guessed at
//     (TestScenario14OtherBinary).
//  14. No goroutine outlives Apply or Rollback (TestMain).
//
// TestRemovals takes each of the rules behind this out of the source and sees
// that the tests fail.
//
// # Limits
//
// Steps run one after another. A step that panics is a crash: the panic goes on
// to the caller, and the run can be opened again. The engine has no time-outs
// and no retries of its own; sides use ctx and poll themselves. A process that is
// killed between the effect of a step and its outcome leaves the world one effect
// ahead of the journal, which resume finds out. Requests are looked for once a
// second. The lock holds
// among processes of one machine; on a network file system it is as good as
// that system's locks. The chain shows every accidental change and every edit
// that does not recompute it to the end; somebody who rewrites all the lines
// must be found by a copy of History.Head kept elsewhere. Names of operators are
// what they say they are; the user of the operating system stands beside them.
//
// # Errors
//
// Decide with errors.Is by the Err values, and with errors.As by *LockedError,
// *ElsewhereError, *DamagedError and *ConflictError. A failing step is no error of Apply: it is
// Outcome.Err.
package engine

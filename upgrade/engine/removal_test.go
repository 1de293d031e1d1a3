package engine

import (
	"testing"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestRemovals takes one rule after the other out of the engine's source and
// sees that the tests notice: each row is compiled with the changed file in the
// place of its own (go test -overlay), and must fail. The first five are the
// experiment that shows what the rules are for; the crash matrix alone must see
// them.
func TestRemovals(t *testing.T) {
	testenv.Slow(t)
	if raceEnabled {
		t.Skip("compiles the package anew for each row: the plain run does it")
	}
	const matrix = "TestCrashMatrix"
	for _, row := range []struct{ rule, file, old, new, tests string }{
		{"1: no intent record", "loop.go",
			"if err := l.r.append(Record{Kind: kindIntent, Step: s.ID, Attempt: attempt, Key: key}, b); err != nil {",
			"raw, _ := marshal(b)\n\tif err := l.r.fold.add(Record{Seq: l.r.fold.seq, Kind: kindIntent, Step: s.ID, Attempt: attempt, Key: key, Body: raw}); err != nil {", matrix},
		{"2: no stable key", "act.go",
			"key: st.Key, intent: true}",
			"key: Key(st.Key, s.ID, l.r.fold.seq), intent: true}", matrix},
		{"3: before-image not in the intent", "loop.go",
			`l.r.put(&b, &b.Before, "before", prop.Before),`,
			`nil,`, matrix},
		{"4: no observation", "loop.go",
			"if again && s.Effect != ReadOnly {",
			"if again && s.Effect == \"\" {", matrix},
		{"5: no repair of a torn tail", "parse.go",
			"p.torn = len(line) + rest\n",
			"if len(line)+rest > 0 {\n\t\t\treturn bad(\"torn\")\n\t\t}\n", matrix},

		{"R3: the before-image is read again", "loop.go",
			"again := st.open\n", "again := st.open && s.Effect != SetState\n", matrix},
		{"R2: a new key after every failure", "loop.go",
			`definitive := side == "plan" || side == "do" && IsDefinitive(err)`,
			`definitive := side == "plan" || side == "do"`, "TestStories|TestCrashMatrix"},
		{"R5: a foreign change is ours", "loop.go",
			`return l.failed(ctx, s, "observe", l.conflict(s, sight))`,
			`return l.finish(ctx, s, made{})`, "TestForeign|TestStories"},
		{"R6: absent at the first look", "rollback.go",
			"absentLooks {", "1 {", "TestLateCreate|TestCrashMatrix"},
		{"R9: damage in the middle is cut off", "parse.go",
			"case !same:", "case !same && n < 2:", "TestTamper"},
		{"R9: a torn write of several records is damage", "parse.go",
			"rec.Seq-rec.With > n {", "rec.Seq > n {", matrix},
		{"R9: damage before the last write is cut off", "parse.go",
			"rec.Seq-rec.With > n {", "false {", "TestTornGroup"},
		{"R1: a side on records that are held", "loop.go",
			"if s.Effect != ReadOnly || s.Plan != nil || st.open {", "if false {", matrix},
		{"R1: a Plan on records that are held", "loop.go",
			"if l.first > 0 && l.first == l.r.fold.seq {", "if l.first > 0 {", "TestFirstPlan"},
		{"R1: a Plan tells what is held", "act.go",
			"if !a.intent && !a.l.flushEarly() {", "if false {", "TestFirstPlan"},
		{"R1: an undo on records that are held", "rollback.go",
			"if !u.reset { // a side comes: see run", "if false {", matrix},
		{"R1: an outcome that waits is told", "loop.go",
			"l.untold = append(l.untold, event(l.r.fold.seq, kind, s, text))", "l.observe(event(l.r.fold.seq, kind, s, text))", "TestObserver"},
		{"R17: told too late to be stopped", "loop.go",
			"if s.Effect != ReadOnly || s.Plan != nil || st.open {", "if s.Plan != nil || st.open {", "TestToldInTime"},
		{"R9: no chain", "parse.go",
			"if rec.Prev != p.head {", "if p.n < 0 {", "TestScenario05"},
		{"R10: an effect on a full disk", "journal.go",
			"return kind == kindIntent || kind == kindUndoIntent || kind == kindStarted",
			"return kind == \"\"", "TestScenario06"},
		{"R10: no reserve", "journal.go",
			"if err := r.store.freeReserve(); err != nil {",
			"if err := full; err != nil {", "TestScenario07"},
		{"R10: a failed fsync is tried again", "store.go",
			`return fmt.Errorf("cannot fsync %s: %s", journalFile, err)`,
			`return s.f.Sync()`, "TestScenario08"},
		{"R10: on after a failed write", "journal.go",
			"r.broken = fmt.Errorf(\"%w: record %d (%s)", "_ = fmt.Errorf(\"%w: record %d (%s)", "TestUnwritable|TestScenario08"},
		{"R11: order by the clock", "parse.go",
			"if rec.Prev != p.head {", "if rec.Prev != p.head || rec.Time.After(time.Now()) {", "TestScenario13"},
		{"R13: undo from the first to the last", "rollback.go",
			"cmp.Compare(b.order, a.order)", "cmp.Compare(a.order, b.order)", "TestStories"},
		{"R13: undo without a look", "rollback.go",
			"if st.open && !st.undoing {", "if false {", "TestStories"},
		{"R13: undo without an intent", "rollback.go",
			"if err := l.record(kindUndoIntent, s, body{}, \"\"); err != nil {\n\t\treturn err\n\t}\n", "", "TestStories|TestCrashMatrix|TestRequests"},
		{"R16: an approval of another plan", "gate.go",
			"case a.PlanHash != l.r.header.PlanHash:", "case false:", "TestScenario61"},
		{"R16: an approval for ever", "gate.go",
			"if time.Now().Before(a.Expires) && ", "if ", "TestApprovalExpires"},
		{"R16: approved by who runs it", "gate.go",
			"if l.steps[i].FourEyes {", "if false {", "TestScenario60"},
		{"R16: nobody's word is enough", "loop.go",
			`return s.Gate != "" && s.Approvers == 0 && (`, `return s.Gate != "" && (`, "TestScenario6"},
		{"R17: a request that nobody wrote down", "control.go",
			"if err := l.record(kindOperator, nil, b, text); err != nil {\n\t\treturn err\n\t}\n", "_ = text\n", "TestRequests"},
		{"a request counts twice", "control.go",
			"if l.r.fold.taken[w.id] {", "if false {", "TestControlDirectory"},
		{"a request of somebody else", "control.go",
			"case !ownFile(opened):", "case false:", "TestControlDirectory"},
		{"two processes at work", "lock_unix.go",
			"if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {", "if err := error(nil); err != nil {", "TestScenario57|TestLocked"},
		{"another machine goes on", "control.go",
			`if at.Machine == "" || at.Machine == r.origin.Machine {`, `if at.Machine == at.Machine {`, "TestScenario16"},
		{"another binary guesses", "loop.go",
			"if st.Attempt > 0 && st.form != steps[i].Version {", "if false {", "TestScenario14"},
		{"another plan", "run.go",
			"if h.PlanHash != PlanHash(plan) {\n\t\t\t\treturn", "if false {\n\t\t\t\treturn", "TestScenario15"},
		{"a pause anywhere", "loop.go",
			"\n\tcase l.asked == RequestPause && !s.Joined:", "\n\tcase l.asked == RequestPause:", "TestScenario12"},
	} {
		t.Run(row.rule, func(t *testing.T) {
			t.Parallel()
			// The short form of the matrix sees enough, and no other slow test runs.
			testenv.Removal{File: row.file, Old: row.old, New: row.new, Tests: "^(" + row.tests + ")"}.Fails(t)
		})
	}
}

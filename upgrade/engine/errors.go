package engine

import (
	"errors"
	"fmt"
	"time"
)

// Errors that a caller decides by, with errors.Is.
var (
	// ErrLocked: another process works on this run. It comes as a *LockedError.
	ErrLocked = errors.New("run is locked")
	// ErrDamaged: the journal or a blob was altered after it was written. It
	// comes as a *DamagedError.
	ErrDamaged = errors.New("journal is damaged")
	// ErrPlanChanged: plan.json is not the plan the run was started with.
	ErrPlanChanged = errors.New("plan.json changed after the run was created")
	// ErrUnwritable: a write or fsync of the journal went wrong. This process
	// starts no effect any more; open the run again when the disk is well.
	ErrUnwritable = errors.New("journal cannot be written")
	// ErrPastReturn: an irreversible step has begun, resume is the only way on.
	ErrPastReturn = errors.New("past the point of no return: resume is the only way on")
	// ErrFinished: the run has succeeded or was rolled back.
	ErrFinished = errors.New("run is finished")
	// ErrRollbackFirst: a rollback was begun and must be finished before
	// anything else.
	ErrRollbackFirst = errors.New("a rollback was begun: finish it first")
	// ErrVersion: the journal names a format, record kind or step that this
	// program does not know.
	ErrVersion = errors.New("run was made by another version")
	// ErrBusy: Apply or Rollback is already running on this Run.
	ErrBusy = errors.New("run is already being worked on by this process")
	// ErrNotAtWork: no process works on the run that could be asked.
	ErrNotAtWork = errors.New("no process is at work")
	// ErrElsewhere: the run was last worked on by a process of another machine.
	// It comes as an *ElsewhereError.
	ErrElsewhere = errors.New("run belongs to another machine")
	// ErrInvalid: the steps, options or what was asked make no sense. It comes
	// from Invalid.
	ErrInvalid = errors.New("invalid")
)

// Invalid makes an ErrInvalid whose text says what is wrong and nothing else.
// The format is that of fmt.Errorf.
func Invalid(format string, args ...any) error { return invalidError{fmt.Errorf(format, args...)} }

type invalidError struct{ error }

func (e invalidError) Is(target error) bool { return target == ErrInvalid }
func (e invalidError) Unwrap() error        { return errors.Unwrap(e.error) }

// A Holder says who holds the lock of a run.
type Holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Actor string    `json:"actor"`
	Since time.Time `json:"since"`
}

// A LockedError is an ErrLocked that names the holder.
type LockedError struct {
	Dir    string
	Holder Holder // zero when the lock file could not be read
}

// Error implements error.
func (e *LockedError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("run %s is locked by another process", e.Dir)
	}
	return fmt.Sprintf("run %s is locked by %s (process %d on %s since %s): wait for it or stop it",
		e.Dir, e.Holder.Actor, e.Holder.PID, e.Holder.Host, e.Holder.Since.UTC().Format(time.RFC3339))
}

// Unwrap makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Unwrap() error { return ErrLocked }

// An ElsewhereError is an ErrElsewhere that says where.
type ElsewhereError struct {
	Dir    string
	Origin Origin    // of the last process
	Last   time.Time // of its last record
}

// Error implements error.
func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("run %s was last worked on by %s (process %d, last record %s): two copies of one run would do everything twice: see that nothing works on it there, then: upgradectl unlock --run %s --reason TEXT --execute",
		e.Dir, e.Origin, e.Origin.PID, e.Last.UTC().Format(time.RFC3339), e.Dir)
}

// Unwrap makes errors.Is(err, ErrElsewhere) true.
func (e *ElsewhereError) Unwrap() error { return ErrElsewhere }

// A DamagedError is an ErrDamaged that says where.
type DamagedError struct {
	Record int // sequence number of the first bad record; 0: not a record but a blob
	Reason string
}

// Error implements error.
func (e *DamagedError) Error() string {
	if e.Record == 0 {
		return "journal is damaged: " + e.Reason
	}
	return fmt.Sprintf("journal is damaged at record %d: %s", e.Record, e.Reason)
}

// Unwrap makes errors.Is(err, ErrDamaged) true.
func (e *DamagedError) Unwrap() error { return ErrDamaged }

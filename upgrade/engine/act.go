package engine

// An Act is what a side of a step gets: the identity of the attempt and the
// journalled data. Its methods may be called from several goroutines, and only
// until the side returns.
type Act struct{ run, step, key string }

// RunID is the identifier of the run.
func (a *Act) RunID() string { return a.run }

// StepID is the ID of the step.
func (a *Act) StepID() string { return a.step }

// Key is the idempotency key of this attempt; see the function Key.
func (a *Act) Key() string { return a.key }

// Attempt counts from 1.
func (a *Act) Attempt() int { return 0 }

// Params unmarshals the parameters in this step's intent. During Plan there is
// no intent: an error.
func (a *Act) Params(out any) error { return errNotYet }

// Before unmarshals the before-image in this step's intent. During Plan there
// is no intent: an error.
func (a *Act) Before(out any) error { return errNotYet }

// Own unmarshals the journalled result of this step's Do, if there is one.
func (a *Act) Own(out any) (bool, error) { return false, errNotYet }

// Result unmarshals the result of another step that is done. It is false when
// that step has no result, was skipped or undone.
func (a *Act) Result(stepID string, out any) (bool, error) { return false, errNotYet }

// ParamsOf unmarshals the parameters of another step's intent. It is false when
// there is none or the step was undone.
func (a *Act) ParamsOf(stepID string, out any) (bool, error) { return false, errNotYet }

// BeforeOf unmarshals the before-image of another step's intent. It is false
// when there is none or the step was undone.
func (a *Act) BeforeOf(stepID string, out any) (bool, error) { return false, errNotYet }

// PutBlob stores data in the run directory, durably, and returns its name.
func (a *Act) PutBlob(data []byte) (ref string, err error) { return "", errNotYet }

// Blob returns what PutBlob stored.
func (a *Act) Blob(ref string) ([]byte, error) { return nil, errNotYet }

// Progress tells the observer something; it is not journalled.
func (a *Act) Progress(format string, args ...any) {}

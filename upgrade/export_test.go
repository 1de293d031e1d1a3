package upgrade

// ListByJournal is what a collection finds without the tags.
var ListByJournal = listByJournal

// QuarantineRuns is what 3.4-quarantine judges an inventory by.
var QuarantineRuns = quarantineRuns

// KeepScript and OwnScript put aside what makes a host itself, and make a copy
// of it that host again.
var KeepScript, OwnScript = keepScript, ownScript

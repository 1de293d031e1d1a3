package upgrade

// ListByJournal is what a collection finds without the tags.
var ListByJournal = listByJournal

package hostos

import (
	"context"
	"fmt"
	"strings"
)

// Yum 3 writes what a transaction is to do to transaction-all.TIME below
// /var/lib/yum when it begins, what of it is done to transaction-done.TIME, and
// removes both at its end (yum.conf(5), yum-complete-transaction(8)).
const unfinished = "for f in /var/lib/yum/transaction-all.*; do [ -e \"$f\" ] && echo \"$f\"; done; :"

// A TransactionError reports a host whose package manager was ended in the
// middle of a transaction: packages may be there twice, and scriptlets may not
// have run. Another transaction on top does harm.
type TransactionError struct {
	Files []string // the journals of the transactions that have no end
}

func (e *TransactionError) Error() string {
	return fmt.Sprintf("an earlier package transaction is unfinished (%s); put that right by hand: yum-complete-transaction (of yum-utils), then package-cleanup --dupes and rpm -Va --nofiles, until nothing of it is left", strings.Join(e.Files, ", "))
}

// CheckTransactions looks for yum transactions that were begun and not ended:
// *TransactionError. It changes nothing. While yum is at work there is one: ask
// when none runs.
func CheckTransactions(ctx context.Context, h Host) error {
	out, err := output(ctx, h, unfinished, nil)
	if err != nil {
		return fmt.Errorf("cannot look for unfinished package transactions: %w", err)
	}
	if files := strings.Fields(out); len(files) > 0 {
		return &TransactionError{files}
	}
	return nil
}

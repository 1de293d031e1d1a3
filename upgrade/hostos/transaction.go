package hostos

import (
	"context"
	"fmt"
	"strings"
)

// Yum 3 writes what a transaction is to do to transaction-all.TIME below
// /var/lib/yum when it begins, what of it is done to transaction-done.TIME, and
// removes both at its end (yum.conf(5), yum-complete-transaction(8)). dnf
// writes a row into its history when it begins and sets the state of that row
// at its end (libdnf, TransactionState). dpkg keeps a state for every package,
// and a journal in updates while it works (dpkg(1), --audit).
const unfinishedScript = `for f in /var/lib/yum/transaction-all.*; do if [ -e "$f" ]; then echo "$f"; fi; done
if [ -z "$p" ] && command -v dpkg >/dev/null 2>&1; then
	dpkg --audit 2>&1 | while read -r l; do if [ -n "$l" ]; then echo "dpkg --audit: $l"; break; fi; done
	for f in /var/lib/dpkg/updates/[0-9]*; do if [ -e "$f" ]; then echo "$f"; fi; done
fi`

// A TransactionError reports a host whose package manager was ended in the
// middle of a transaction: packages may be there twice, and scriptlets may not
// have run. Another transaction on top does harm.
type TransactionError struct {
	Files []string // the journals of the transactions that have no end
}

func (e *TransactionError) Error() string {
	return fmt.Sprintf("an earlier package transaction is unfinished (%s); %s", strings.Join(e.Files, ", "), e.how())
}

// how says what a person does about it.
func (e *TransactionError) how() string {
	how := "yum-complete-transaction (of yum-utils), then package-cleanup --dupes and rpm -Va --nofiles"
	if strings.Contains(strings.Join(e.Files, " "), "dpkg") {
		how = "dpkg --configure -a, then apt-get -f install"
	}
	return "put that right by hand: " + how + ", until nothing of it is left"
}

// CheckTransactions looks for package transactions that were begun and not
// ended: *TransactionError. It changes nothing. While a package manager is at
// work there is one: ask when none runs.
func CheckTransactions(ctx context.Context, h Host) error {
	out, err := output(ctx, h, "p=$(command -v rpm >/dev/null && rpm -qa | head -n 1)\n"+unfinishedScript, nil)
	if err != nil {
		return fmt.Errorf("cannot look for unfinished package transactions: %w", err)
	}
	var found []string
	for line := range strings.SplitSeq(out, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			found = append(found, line)
		}
	}
	if len(found) > 0 {
		return &TransactionError{found}
	}
	return nil
}

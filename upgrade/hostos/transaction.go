package hostos

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Yum 3 writes what a transaction is to do to transaction-all.TIME below
// /var/lib/yum when it begins, what of it is done to transaction-done.TIME, and
// removes both at its end (yum.conf(5), yum-complete-transaction(8)); with
// .disabled behind it, it is one that somebody has given up, and yum leaves it
// out as well. dnf
// writes a row into its history when it begins, and fills in the time and the
// rpmdb's checksum of the end at its end: "dnf history info" shows the last row,
// one without an end with the year 1970 and no checksum (dnf 4.14), or as
// aborted (before 3.0). rpm installs the new version of a package before it
// removes the old one, so that whatever ended a transaction in its middle
// leaves packages there twice; which may be is said by yum.conf(5) and
// dnf.conf(5), installonlypkgs. dpkg keeps a state for every package, and a
// journal in updates while it works (dpkg(1), --audit).
//
// The script finds in $p and $q what rpmQuery has put there.
const unfinishedScript = `for f in /var/lib/yum/transaction-all.*; do case $f in *.disabled) ;; *) if [ -e "$f" ]; then echo "$f"; fi ;; esac; done
if [ "$q" -ne 0 ]; then echo "rpm -qa: the database cannot be read (status $q)"; fi
m=yum
if [ -n "$p" ] && command -v dnf >/dev/null 2>&1; then
	m=dnf
	t=$(TZ=UTC dnf -q -C --noplugins history info 2>/dev/null)
	case $t in
	*"Return-Code    : ** Aborted"* | *"
End time       : "*" 1970 ("* | *"
End rpmdb      :  **"*)
		n=${t#*Transaction ID : }
		echo "dnf history: transaction ${n%%
*} has no end" ;;
	esac
fi
if [ -n "$p" ]; then
	rpm -qa --qf '%{NAME}.%{ARCH}\n' | sort | uniq -d | head -n 20 | while read -r n; do
		case $n in gpg-pubkey.* | kernel.* | kernel-devel.*) continue ;; esac
		if rpm -q --provides "$n" | grep -qE '^(kernel(-(bigmem|enterprise|smp|modules|debug|unsupported|source|devel|PAE|PAE-debug))?( |$)|installonlypkg\(|multiversion\(kernel\))'; then continue; fi
		echo "$m: $n is installed twice"
	done
fi
if [ -z "$p" ] && command -v dpkg >/dev/null 2>&1; then
	dpkg --audit 2>&1 | while read -r l; do if [ -n "$l" ]; then echo "dpkg --audit: $l"; break; fi; done
	for f in /var/lib/dpkg/updates/[0-9]*; do if [ -e "$f" ]; then echo "$f"; fi; done
fi`

// A TransactionError reports a host whose package manager was ended in the
// middle of a transaction: packages may be there twice, and scriptlets may not
// have run. Another transaction on top does harm.
type TransactionError struct {
	Found []string // what says so: a journal, an entry of a history, a package that is there twice
}

func (e *TransactionError) Error() string {
	return fmt.Sprintf("an earlier package transaction is unfinished (%s); %s", strings.Join(e.Found, ", "), e.how())
}

// how says what a person does about it.
func (e *TransactionError) how() string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(e.Found, func(f string) bool { return strings.HasPrefix(f, prefix) })
	}
	how := "yum-complete-transaction (of yum-utils), then package-cleanup --dupes (--cleandupes removes them) and rpm -Va --nofiles"
	switch {
	case has("rpm"):
		how = "when no process uses it, keep a copy of /var/lib/rpm, then rpm --rebuilddb and rpm -qa"
	case has("dpkg"), has("/var/lib/dpkg"):
		how = "dpkg --configure -a, then apt-get -f install"
	case has("dnf") && slices.ContainsFunc(e.Found, func(f string) bool { return strings.HasSuffix(f, " is installed twice") }):
		how = "dnf history info says what it was to do; dnf remove --duplicates ends what had begun, then dnf check"
	case has("dnf"):
		how = "dnf history info says what it was to do, and dnf history redo last does it; then dnf check"
	}
	return "put that right by hand: " + how + ", until nothing of it is left"
}

// CheckTransactions looks for package transactions that were begun and not
// ended, and for a database of packages that is damaged: *TransactionError. It
// changes nothing. While a package manager is at work there is one: ask when
// none runs.
func CheckTransactions(ctx context.Context, h Host) error {
	out, err := output(ctx, h, `LC_ALL=C
export LC_ALL
PATH="$PATH:/usr/sbin:/sbin"
`+rpmQuery+unfinishedScript+`
if [ -n "$p" ] && command -v rpmdb >/dev/null 2>&1; then
	rpmdb --verifydb >/dev/null 2>&1 || echo "rpmdb --verifydb: the database is damaged (status $?)"
fi
:
`, nil)
	if err != nil {
		return fmt.Errorf("cannot look for unfinished package transactions: %w", err)
	}
	if found := foundLines(out); len(found) > 0 {
		return &TransactionError{found}
	}
	return nil
}

// foundLines gives the lines of an answer that say something.
func foundLines(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

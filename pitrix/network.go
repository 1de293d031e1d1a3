package pitrix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A NetworkEdit changes files of a node that decide how it is reached. Until
// it is confirmed the node takes it back by itself.
type NetworkEdit struct {
	Key string // names it on the node: [a-z0-9-], at most 64 bytes
	// Minutes is after how many minutes of the node being up the edit is taken
	// back, the time before and after a reboot together. At least 2.
	Minutes int
	Files   []FileEdit
}

// A FileEdit gives a file other bytes. The file is there before and after.
type FileEdit struct {
	Path     string // absolute
	Old, New []byte
}

// An EditPhase says how far a NetworkEdit is.
type EditPhase string

// The phases of an edit.
const (
	EditNone      EditPhase = "none"      // not known on the node
	EditBegun     EditPhase = "begun"     // no file has been changed
	EditPending   EditPhase = "pending"   // will be taken back unless it is confirmed
	EditConfirmed EditPhase = "confirmed" // stays
	EditReverting EditPhase = "reverting" // on the way back, or cut off on it: the next minute goes on
	EditReverted  EditPhase = "reverted"  // the old files are there
)

// An EditState is what the node's disk says of an edit.
type EditState struct {
	Phase       EditPhase `json:"phase"`
	MinutesLeft int       `json:"minutes_left"` // while it is pending
}

// An edit has a directory of its own on the root file system, and a cron job
// that runs every minute; that, and not at or a timer of systemd, is there on
// every release and goes on after a reboot. The minutes are counted, not
// compared with a clock, for a VM's clock may jump when it boots.
//
// cron reads its directory again only when the time of change differs, in
// seconds, from the one it last saw (Debian's cron 3.0pl1, load_database); a
// file that comes in the second of that look would never be seen. So the
// directory gets a time that nothing can have shown before.
//
// A job's PATH is /usr/bin:/bin, where shutdown is not.
//
// Whoever moves a directory to "decided" first, the timer or a confirmation,
// has the last word; its name cannot be taken twice, and it is never empty. Those
// of the way back are there from the beginning, with the edit's token.
//
// A job of cron can stand still between any two of its commands while we remove
// its edit and begin another one under the same key. So both scripts carry a
// token of their edit: after they have read what they act on, they see that the
// directory is still theirs (RemoveEdit renames it, in one step), and the job
// that they remove is their own, for its name has the token too.
//
// The reboot that ends a way back may be refused ("Failed to talk to init
// daemon"), and nobody reaches the node then: every minute asks again, an hour
// long, until the node is in another boot.
const editTick = `d=@D@
c=@CRON@
n=$(cat "$d/left")
w=
if [ -e "$d/decided" ]; then w=$(cat "$d/decided/word"); fi
ends=$(cat "$d/ends" 2>/dev/null)
asked=$(cat "$d/asked" 2>/dev/null)
grep -q -F @TOKEN@ "$d/tick" || exit 0
if [ "$w" = reverting ]; then exec /bin/sh "$d/revert" timer @TOKEN@; fi
if [ "$w" = reverted ] && [ -n "$ends" ] && [ "$ends" = "$(cat /proc/sys/kernel/random/boot_id)" ]; then
	asked=$((${asked:-0} + 1))
	echo $asked >"$d/asked.$$" && mv -f -T "$d/asked.$$" "$d/asked" || exit 1
	PATH=$PATH:/usr/sbin:/sbin
	if [ $asked -lt 60 ]; then exec shutdown -r now; fi
fi
if [ -n "$w" ]; then rm -f "$c"; exit 0; fi
case "$n" in ''|*[!0-9]*) n=1;; esac
n=$((n - 1))
echo $n >"$d/left.$$" && mv -f -T "$d/left.$$" "$d/left"
if [ $n -gt 0 ]; then exit 0; fi
exec /bin/sh "$d/revert" timer @TOKEN@
`

// editRevert puts the files back. A file that is neither the old nor the new
// one is kept beside the copy. After a reboot the old addresses need another
// one to count; before it nothing but files has been changed. A way back that
// somebody goes by hand is not one that reboots, whoever goes on with it.
const editRevert = `d=@D@
c=@CRON@
if [ "${2:-@TOKEN@}" != @TOKEN@ ]; then exit 0; fi
if [ ! -e "$d/decided" ]; then mv -T "$d/$1-@TOKEN@" "$d/decided" 2>/dev/null; fi
w=$(cat "$d/decided/word")
by=$(cat "$d/decided/by" 2>/dev/null)
was=$(cat "$d/boot")
grep -q -F @TOKEN@ "$d/tick" || exit 0
case "$w" in reverting) ;; reverted) exit 0;; *) exit 3;; esac
i=0
while [ -e "$d/$i.path" ]; do
	f=$(cat "$d/$i.path")
	v=$(sha256sum <"$f") || v=
	o=$(sha256sum <"$d/$i.old") || exit 1
	if [ "$v" != "$o" ]; then
		if [ "${v%% *}" != "$(cat "$d/$i.new")" ] && [ -e "$f" ]; then cp -p "$f" "$d/$i.found"; fi
		t=$f.upgradectl-revert.$$
		cp -p "$d/$i.old" "$t" && mv -f -T "$t" "$f" || { rm -f "$t"; exit 1; }
	fi
	i=$((i + 1))
done
now=$(cat /proc/sys/kernel/random/boot_id)
again=
if [ "$1$by" = timertimer ] && [ "$now" != "$was" ]; then
	again=yes
	echo "$now" >"$d/ends.$$" && mv -f -T "$d/ends.$$" "$d/ends" || exit 1
fi
echo reverted >"$d/decided/word.$$" && mv -f -T "$d/decided/word.$$" "$d/decided/word" || exit 1
sync
PATH=$PATH:/usr/sbin:/sbin
if [ -n "$again" ]; then
	grep -q -F @TOKEN@ "$d/tick" || exit 0
	exec shutdown -r now
fi
rm -f "$c"
exit 0
`

func (n *Node) editDir(key string) string { return n.Root + "/var/lib/upgradectl/net-" + key }

// editCron is the job of an edit; "" as the token matches all of them.
func (n *Node) editCron(key, token string) string {
	prefix := shellq.Quote(n.Root + "/etc/cron.d/upgradectl-" + key + "-")
	if token == "" {
		return prefix + strings.Repeat("?", tokenLength)
	}
	return prefix + token
}

const tokenLength = 16

func (n *Node) editScript(text, key, token string) string {
	return strings.NewReplacer("@D@", shellq.Quote(n.editDir(key)), "@CRON@", n.editCron(key, token), "@TOKEN@", token).Replace(text)
}

// editGone is a line of shell that takes an edit's job and directory away: the
// directory under another name first, so that a job that is under way finds it
// whole or not at all.
func (n *Node) editGone(key string) string {
	return fmt.Sprintf(`d=%s
rm -f %s && rm -rf "$d.gone" && { [ ! -e "$d" ] || mv -T "$d" "$d.gone"; } && rm -rf "$d.gone"`, shellq.Quote(n.editDir(key)), n.editCron(key, ""))
}

// BeginEdit changes the files of e on the node want, commit-confirmed: it
// copies them, arms a job that puts them back and reboots the node when the
// minutes are over, also after a reboot in between, and only then changes them.
// A reboot that is refused is asked for again every minute, an hour long.
// The addresses in them count after the next boot. Then, from outside, over
// the new address, call ConfirmEdit.
//
// It can be called again at any point with the same e. A file that is neither
// the old nor the new one gives a *DriftError, and a node without a running
// cron is refused; nothing has been changed then.
func (n *Node) BeginEdit(ctx context.Context, e NetworkEdit, want Identity) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot edit the network files of %s: %w", n.Name, err)
	}
	if err := checkKey(e.Key); err != nil {
		return fail(err)
	}
	if e.Minutes < 2 || len(e.Files) == 0 {
		return fail(errors.New("it needs at least 2 minutes, for a cron job may run at once, and a file"))
	}
	st, err := n.GetEdit(ctx, e.Key)
	if err != nil {
		return err
	}
	switch st.Phase {
	case EditConfirmed, EditReverting, EditReverted:
		return fail(fmt.Errorf("the edit %s is %s; use another key", e.Key, st.Phase))
	}
	token := fmt.Sprintf("%0*x", tokenLength, rand.Uint64())
	var b strings.Builder
	fmt.Fprintf(&b, "set -u\numask 077\nd=%s\nc=%s\n", shellq.Quote(n.editDir(e.Key)), n.editCron(e.Key, token))
	b.WriteString(`if [ ! -e "$d/armed" ]; then
if ! pgrep -x cron >/dev/null && ! pgrep -x crond >/dev/null; then echo "cron does not run, so nothing would take the edit back; start it" >&2; exit 74; fi
rm -f ` + n.editCron(e.Key, "") + `
mkdir -p "$d" || exit 74
`)
	for i, f := range e.Files {
		if !path.IsAbs(f.Path) || f.Old == nil || f.New == nil || strings.ContainsAny(f.Path, "\n\x00") {
			return fail(fmt.Errorf("the edit of %q needs an absolute path and the old and new bytes", f.Path))
		}
		name := n.Root + f.Path
		fmt.Fprintf(&b, `f=%s
%s
if [ "$v" != %s ]; then echo "$f"; exit %d; fi
cp -p "$f" "$d/%d.old" && echo %s >"$d/%d.new" && printf '%%s\n' "$f" >"$d/%d.path" || exit 74
`, shellq.Quote(name), have, sum(f.Old), statusDrift, i, sum(f.New), i, i)
	}
	fmt.Fprintf(&b, `cat /proc/sys/kernel/random/boot_id >"$d/boot" && echo %d >"$d/left" || exit 74
printf '%%s' %s >"$d/tick" && printf '%%s' %s >"$d/revert" || exit 74
for by in timer now; do
	x=$d/$by-%s
	mkdir "$x" && echo $by >"$x/by" && echo reverting >"$x/word" || exit 74
done
mkdir -p "${c%%/*}" || exit 74
m=$(stat -c %%Y "${c%%/*}") || exit 74
printf '* * * * * root /bin/sh %%s\n' %s >"$d/cron" && chmod 644 "$d/cron" && cp -p "$d/cron" "$c" || exit 74
n=$(stat -c %%Y "${c%%/*}") || exit 74
if [ $m -gt $n ]; then n=$m; fi
touch -d "@$((n + 2))" "${c%%/*}" || exit 74
sync
: >"$d/armed"
sync
fi
`, e.Minutes, shellq.Quote(n.editScript(editTick, e.Key, token)), shellq.Quote(n.editScript(editRevert, e.Key, token)), token, shellq.Quote(shellq.Quote(n.editDir(e.Key)+"/tick")))
	out, err := n.run(ctx, want, "edit the network files of", b.String())
	if status, ok := exitStatus(err); ok && status == statusDrift {
		return &DriftError{Path: strings.TrimSpace(out), Why: "its bytes are not those the edit was made for"}
	}
	if err != nil {
		return err
	}
	for _, f := range e.Files {
		if err := replaceFile(ctx, n.Host, n.Root+f.Path, f.Old, f.New); err != nil {
			return fail(err)
		}
	}
	return nil
}

// ConfirmEdit makes a pending edit stay. An edit that is confirmed already is
// left alone; one that has been taken back is an error. It is for those who
// have reached the node over its new address.
func (n *Node) ConfirmEdit(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("cannot confirm the edit on %s: %w", n.Name, err)
	}
	_, err := output(ctx, n.Host, fmt.Sprintf(`d=%s
[ -e "$d/armed" ] || { echo "there is no such edit" >&2; exit 1; }
if [ ! -e "$d/decided" ]; then
	mkdir "$d/x.$$" && echo confirmed >"$d/x.$$/word" || exit 1
	mv -T "$d/x.$$" "$d/decided" 2>/dev/null
	rm -rf "$d/x.$$"
fi
w=$(cat "$d/decided/word")
[ "$w" = confirmed ] || { echo "it is $w: the old files are in place" >&2; exit 1; }
rm -f %s
sync`, shellq.Quote(n.editDir(key)), n.editCron(key, "")))
	if err != nil {
		return fmt.Errorf("cannot confirm the edit %s on %s: %w", key, n.Name, err)
	}
	return nil
}

// RevertEdit puts the old files back now and does not reboot. An edit that has
// been taken back already is left alone, as is one that is not known; one that
// was confirmed is an error.
func (n *Node) RevertEdit(ctx context.Context, key string) error {
	st, err := n.GetEdit(ctx, key)
	if err != nil {
		return err
	}
	switch st.Phase {
	case EditNone, EditReverted:
		return nil
	case EditBegun:
		if _, err := output(ctx, n.Host, n.editGone(key)); err != nil {
			return fmt.Errorf("cannot take the edit %s on %s back: %w", key, n.Name, err)
		}
		return nil
	case EditConfirmed:
		return fmt.Errorf("cannot take the edit %s on %s back: it was confirmed; make another edit with the old bytes", key, n.Name)
	}
	if _, err := output(ctx, n.Host, "/bin/sh "+shellq.Quote(n.editDir(key)+"/revert")+" now"); err != nil {
		return fmt.Errorf("cannot take the edit %s on %s back: %w", key, n.Name, err)
	}
	return nil
}

// GetEdit reads how far an edit is.
func (n *Node) GetEdit(ctx context.Context, key string) (EditState, error) {
	if err := checkKey(key); err != nil {
		return EditState{}, fmt.Errorf("cannot read the edit on %s: %w", n.Name, err)
	}
	out, err := output(ctx, n.Host, `d=`+shellq.Quote(n.editDir(key))+`
if [ -e "$d/decided" ]; then cat "$d/decided/word"
elif [ -e "$d/armed" ]; then echo pending $(cat "$d/left")
elif [ -e "$d" ]; then echo begun
else echo none; fi`)
	if err != nil {
		return EditState{}, fmt.Errorf("cannot read the edit %s on %s: %w", key, n.Name, err)
	}
	words := strings.Fields(out)
	if len(words) == 0 {
		words = []string{""}
	}
	st := EditState{Phase: EditPhase(words[0])}
	switch st.Phase {
	case EditNone, EditBegun, EditConfirmed, EditReverting, EditReverted:
		return st, nil
	case EditPending:
		if len(words) == 2 {
			st.MinutesLeft, _ = strconv.Atoi(words[1]) // damaged: the node reverts
		}
		return st, nil
	}
	return EditState{}, fmt.Errorf("cannot read the edit %s on %s: unexpected answer %q", key, n.Name, firstBytes(out, 80))
}

// RemoveEdit removes what an edit that is confirmed or taken back has left on
// the node. One that is neither is an error.
func (n *Node) RemoveEdit(ctx context.Context, key string) error {
	st, err := n.GetEdit(ctx, key)
	if err != nil || st.Phase == EditNone {
		return err
	}
	if st.Phase != EditConfirmed && st.Phase != EditReverted {
		return fmt.Errorf("cannot remove the edit %s from %s: it is %s", key, n.Name, st.Phase)
	}
	if _, err := output(ctx, n.Host, n.editGone(key)); err != nil {
		return fmt.Errorf("cannot remove the edit %s from %s: %w", key, n.Name, err)
	}
	return nil
}

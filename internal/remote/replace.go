package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// replaceScript replaces the file that @F@ names by standard input. The new
// file is whole before it takes the name, and carries over what the old one
// had: owner, mode, ACL, security label and other attributes. Its exit
// statuses are those of replaceErrors.
const replaceScript = `export LC_ALL=C; umask 077
name=@F@
f=$(readlink -f -- "$name") && [ -e "$f" ] || exit 70
[ -f "$f" ] || exit 71
[ "$(stat -c %h -- "$f")" = 1 ] || exit 72
case $(lsattr -d -- "$f" 2>/dev/null | cut -d" " -f1) in *[ia]*) exit 73;; esac
sum() { set -- $(sha256sum <"$1"); echo "$1"; }
old=@OLD@
if [ -n "$old" ] && [ "$(sum "$f")" != "$old" ]; then exit 74; fi
d=${f%/*}
t=$(mktemp "${d:-/}/.upgradectl.XXXXXX") || exit 75
trap 'rm -f -- "$t"' EXIT
trap 'exit 76' HUP INT TERM
cat >"$t" || exit 77
[ "$(sum "$t")" = @NEW@ ] || exit 78
cp --attributes-only --preserve=all -- "$f" "$t" || exit 79
# Whoever cannot keep the owner must not replace the file.
[ "$(stat -c %u:%g:%a -- "$f")" = "$(stat -c %u:%g:%a -- "$t")" ] || exit 79
if command -v getfacl >/dev/null && [ "$(getfacl -ncp -- "$f" 2>/dev/null)" != "$(getfacl -ncp -- "$t" 2>/dev/null)" ]; then exit 79; fi
[ "$(stat -c %C -- "$f" 2>/dev/null)" = "$(stat -c %C -- "$t" 2>/dev/null)" ] || exit 79
touch -- "$t" # it is new, whatever the old one's times
sync -- "$t" 2>/dev/null || sync
if [ -n "$old" ] && [ "$(sum "$f")" != "$old" ]; then exit 74; fi
mv -fT -- "$t" "$f" || exit 80
sync -- "${d:-/}" 2>/dev/null || sync
[ "$(sum "$f")" = @NEW@ ] || exit 81
`

// replaceErrors says what an exit status of replaceScript means. Never
// written to.
var replaceErrors = map[int]error{
	70: fs.ErrNotExist,
	71: errors.New("it is no regular file"),
	72: errors.New("it has other names (hard links), which would keep the old content; replace it by hand"),
	73: errors.New("it is immutable or append-only (lsattr); somebody does not want it changed: chattr -i it first"),
	74: ErrFileChanged,
	75: errors.New("no file can be made in its directory"),
	76: errors.New("it was given up"),
	77: errors.New("its new content could not be written; the file is as it was"),
	78: errors.New("its new content did not arrive whole; the file is as it was"),
	79: errors.New("its owner, mode, ACL or security label cannot be given to the new file; the file is as it was"),
	80: errors.New("the new file cannot take its name (is it mounted there by itself, as into a container?); the file is as it was"),
	81: errors.New("its content was changed again right after it was replaced"),
}

// ErrFileChanged says that a file is not the one that was to be replaced.
var ErrFileChanged = errors.New("its content is no longer the one expected")

// ReplaceFile replaces a file's content. See hostinv.Conn.ReplaceFile.
func (c *Conn) ReplaceFile(ctx context.Context, name string, data []byte, oldSHA string) error {
	wrap := func(err error) error { return fmt.Errorf("cannot replace %s on %s: %w", name, c.target, err) }
	if !strings.HasPrefix(name, "/") || !shellq.Valid(name) {
		return wrap(errors.New("its name must be absolute"))
	}
	sum := sha256.Sum256(data)
	script := strings.NewReplacer("@F@", shellq.Quote(name), "@OLD@", shellq.Quote(oldSHA), "@NEW@", hex.EncodeToString(sum[:])).Replace(replaceScript)
	got, err := c.Exec(ctx, Cmd{Line: script, Stdin: bytes.NewReader(data)})
	var exit *ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return wrap(err)
		}
		return nil
	}
	why := replaceErrors[exit.Status]
	if why == nil {
		return wrap(err)
	}
	if said := strings.TrimSpace(string(got.Stderr)); said != "" {
		why = fmt.Errorf("%w: %s", why, shorten(said, 300))
	}
	return wrap(why)
}

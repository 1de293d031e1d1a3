package pitrix

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// randomKey names something of this process alone.
func randomKey() string { return strings.ToLower(rand.Text()[:12]) }

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// absent stands for the checksum of a file that is not there.
const absent = "absent"

// readFile returns nil for a file that is not there.
func readFile(ctx context.Context, h Host, name string) ([]byte, error) {
	data, err := h.ReadFile(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	case data == nil:
		data = []byte{}
	}
	return data, nil
}

// have is a line of shell that sets v to the checksum of the file $f.
const have = `if [ -e "$f" ] || [ -L "$f" ]; then v=$(sha256sum <"$f") && v=${v%% *} || exit 74; else v=absent; fi`

const (
	statusDrift = 75 // of our shell lines: the file is a third thing
	statusOther = 78 // of our shell lines: another machine
)

// ReplaceFile gives a file other bytes, in one rename; owner and mode stay. One
// that has them already is left alone, one that has neither these nor old gives
// a *DriftError. It can be called again at any point.
func (n *Node) ReplaceFile(ctx context.Context, name string, old, data []byte) error {
	if !path.IsAbs(name) || old == nil {
		return fmt.Errorf("internal error: %q is replaced by its absolute name and the bytes that it has", name)
	}
	return replaceFile(ctx, n.Host, n.Root+name, old, data)
}

// replaceFile puts data in place of a file with the bytes old; nil: there is
// none. Owner and mode stay; a new file is root's and readable by all. The look
// and the rename are one command, so that only somebody who writes in the same
// instant can be overwritten. What is written beside the file goes by the
// file's name, so that one that was cut off leaves nothing that the next does
// not take away, be it on the way back.
func replaceFile(ctx context.Context, h Host, name string, old, data []byte) error {
	temp := path.Join(path.Dir(name), ".upgradectl-"+sum([]byte(path.Base(name)))[:12])
	err := h.WriteFile(ctx, temp, data, 0o644)
	if errors.Is(err, fs.ErrExist) {
		if _, err = output(ctx, h, "rm -f "+shellq.Quote(temp)); err == nil {
			err = h.WriteFile(ctx, temp, data, 0o644)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	was := absent
	if old != nil {
		was = sum(old)
	}
	out, err := output(ctx, h, fmt.Sprintf(`f=%s; t=%s
%s
case "$v" in
%s) rm -f "$t"; exit 0;;
%s) ;;
*) rm -f "$t"; echo "$v"; exit %d;;
esac
if [ "$v" != absent ]; then
	m=$(stat -c %%a "$f") && o=$(stat -c %%u:%%g "$f") && chmod "$m" "$t" && chown "$o" "$t" || { rm -f "$t"; exit 74; }
fi
[ "$(sha256sum <"$t")" = '%s  -' ] || { rm -f "$t"; exit 74; }
sync
mv -f -T "$t" "$f"`, shellq.Quote(name), shellq.Quote(temp), have, sum(data), was, statusDrift, sum(data)))
	if status, ok := exitStatus(err); ok && status == statusDrift {
		why := "its bytes are neither the old nor the new ones"
		if strings.TrimSpace(out) == absent {
			why = "it is gone"
		} else if old == nil {
			why = "there is one already"
		}
		return &DriftError{Path: name, Why: why}
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

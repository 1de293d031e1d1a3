package nginx

import (
	"bytes"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// lineEdits returns edits of whole lines that turn before into after: the lines
// that both begin and end with are left out.
func lineEdits(before, after []byte) []textedit.Edit {
	start := 0
	for {
		i := bytes.IndexByte(before[start:], '\n') + 1
		if i == 0 || len(after) < start+i || !bytes.Equal(before[start:start+i], after[start:start+i]) {
			break
		}
		start += i
	}
	a, b := textedit.Lines(before[start:]), textedit.Lines(after[start:])
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return []textedit.Edit{{Offset: start, Old: []byte(strings.Join(a, "")), New: []byte(strings.Join(b, ""))}}
}

package pitrix

import (
	"maps"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

// findAddress returns where address stands in text as a whole: not as a part of
// a longer address, a number or a name. It may have a port or a prefix length
// behind it. clear is false for places where it may be a part of a path.
func findAddress(text, address string) (at []int, clear []bool) {
	if address == "" {
		return nil, nil
	}
	for start := 0; ; {
		i := strings.Index(text[start:], address)
		if i < 0 {
			return at, clear
		}
		i += start
		end := i + len(address)
		start = i + 1
		if i > 0 && addressByte(text[i-1]) {
			continue
		}
		if end < len(text) && (addressByte(text[end]) && text[end] != '.' || text[end] == '.' && end+1 < len(text) && addressByte(text[end+1])) {
			continue
		}
		at = append(at, i)
		path := i > 0 && text[i-1] == '/' && (i == 1 || text[i-2] != '/')
		clear = append(clear, !path)
	}
}

func addressByte(c byte) bool { return nameByte(c) || c == '.' || c == '-' }

// replaceAddresses puts addresses in the place of others, all at once, so that
// two may change places. It returns how often each was replaced.
func replaceAddresses(text string, addresses map[string]string) (string, map[string]int) {
	b := textedit.New([]byte(text))
	count := map[string]int{}
	for _, from := range slices.Sorted(maps.Keys(addresses)) {
		at, clear := findAddress(text, from)
		for i, offset := range at {
			if clear[i] {
				b.Replace(offset, offset+len(from), addresses[from])
				count[from]++
			}
		}
	}
	out, err := b.Bytes()
	if err != nil {
		// Whole addresses cannot overlap.
		return text, map[string]int{}
	}
	return string(out), count
}

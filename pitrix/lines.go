package pitrix

import (
	"bytes"
	"fmt"
	"strings"
)

// A MissingLine is a line of an old node's file that the new one's has nowhere.
type MissingLine struct {
	Line int    `json:"line"` // from 1
	Key  string `json:"key"`  // what stands before its value, which may be a secret
}

func (m MissingLine) String() string { return fmt.Sprintf("line %d (%s)", m.Line, m.Key) }

// MissingLines compares a configuration of which nothing is known but that it
// has lines, such as cronus' config.yaml: it gives those of old that new has
// nowhere. Blank lines, comments, indentation and order do not count. Addresses
// of the new node stand for others of the old one, as in HAProxyOptions.
func MissingLines(old, new []byte, addresses map[string]string) []MissingLine {
	have := map[string]bool{}
	for line := range bytes.Lines(new) {
		text, _ := replaceAddresses(strings.TrimSpace(string(line)), addresses)
		have[text] = true
	}
	var out []MissingLine
	number := 0
	for line := range bytes.Lines(old) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' || have[text] {
			continue
		}
		key, _, _ := strings.Cut(text, "=")
		key, _, _ = strings.Cut(key, ":")
		key, _, _ = strings.Cut(strings.TrimSpace(key), " ")
		out = append(out, MissingLine{number, firstBytes(key, 60)})
	}
	return out
}

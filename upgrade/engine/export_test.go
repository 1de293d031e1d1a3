package engine

import (
	"bytes"
	"errors"
	"io"
)

// memRun opens a journal that is in memory.
func memRun(journal, plan []byte) (*Run, error) { return newRun(bytes.NewReader(journal), plan) }

// parsed is what a journal consists of.
type parsed struct {
	records []Record
	size    int64
	torn    int
}

// parseJournal reads a whole journal; with an error what stands before it.
func parseJournal(data []byte) (parsed, error) {
	p := newParser(bytes.NewReader(data))
	var out parsed
	for {
		rec, err := p.next()
		out.size, out.torn = p.size, p.torn
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out.records = append(out.records, rec)
	}
}

// memHistory is history of a journal in memory.
func memHistory(journal, plan []byte, s store) (*History, error) {
	return history(bytes.NewReader(journal), plan, s)
}

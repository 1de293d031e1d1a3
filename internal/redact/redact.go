// Package redact takes secret values out of text before it is logged, shown
// or journalled.
//
// # Example
//
//	r := redact.New(accessKeySecret, token)
//	log.Println(r.String(err.Error()))
//	w := r.Writer(os.Stderr)
//	defer w.Close()
//
// # Guarantees
//
//  1. No value given comes through String or a Writer, whole, in base64 (all
//     three alignments, standard and URL alphabet), in hex, URL-escaped, or
//     quoted for a shell or as JSON (TestForms).
//  2. A value split over several writes is found too (FuzzWriter: a Writer
//     gives what String gives, however the text is cut).
//  3. Text without a secret is passed on byte for byte (FuzzWriter).
//
// # Limits
//
// Values shorter than four bytes are not looked for: they occur everywhere.
// Part of a secret, a reversed or compressed one is not recognised. A Writer
// holds back a tail that may be the beginning of a secret until more comes or
// it is closed.
//
// # Errors
//
// Those of the writer below.
package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"sort"
	"strings"
	"sync"
)

// Mark stands in the place of a secret.
const Mark = "[hidden]"

// minLength is the length below which a value is not looked for.
const minLength = 4

// A Redactor knows a set of secret values. It may be used by several
// goroutines. The zero value knows none.
type Redactor struct {
	mu    sync.RWMutex
	forms []string // longest first
}

// New returns a Redactor that knows these values.
func New(secrets ...string) *Redactor {
	r := &Redactor{}
	r.Add(secrets...)
	return r
}

// Add makes more values known. Writers that exist use them too.
func (r *Redactor) Add(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := map[string]bool{}
	for _, f := range r.forms {
		have[f] = true
	}
	for _, s := range secrets {
		for _, f := range formsOf(s) {
			if !have[f] {
				have[f] = true
				r.forms = append(r.forms, f)
			}
		}
	}
	// The longest first, so that a form is taken out whole and not only the
	// shorter one inside it.
	sort.SliceStable(r.forms, func(i, j int) bool { return len(r.forms[i]) > len(r.forms[j]) })
}

// formsOf returns the ways a value may be written.
func formsOf(s string) []string {
	if len(s) < minLength {
		return nil
	}
	forms := []string{s}
	add := func(f string) {
		if len(f) >= minLength && f != s {
			forms = append(forms, f)
		}
	}
	// Inside single quotes a shell needs '\'' for a quote; inside double
	// quotes a backslash before some characters; Go and JSON have their own.
	add(strings.ReplaceAll(s, "'", `'\''`))
	add(strings.ReplaceAll(s, "'", `'"'"'`))
	add(strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s))
	add(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s))
	if j, err := json.Marshal(s); err == nil {
		add(string(j[1 : len(j)-1]))
	}
	add(url.QueryEscape(s))
	add(url.PathEscape(s))
	add(hex.EncodeToString([]byte(s)))
	add(strings.ToUpper(hex.EncodeToString([]byte(s))))
	// In base64 a value looks different by its place modulo three. The
	// characters that its neighbours have a part in are left out.
	for shift := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			e := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + s))
			from := []int{0, 2, 3}[shift]
			to := len(e)
			if (shift+len(s))%3 != 0 {
				to--
			}
			if to-from >= 2*minLength { // short pieces would be found by chance
				add(e[from:to])
			}
		}
	}
	return forms
}

// String returns s without the secrets.
func (r *Redactor) String(s string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out, rest := scan(s, r.forms, true)
	return out + rest
}

// scan replaces the forms in s from left to right, the longest where several
// begin. Unless last, what could still become a form is left in rest.
func scan(s string, forms []string, last bool) (out, rest string) {
	if len(forms) == 0 {
		return s, ""
	}
	var first [256]bool
	for _, f := range forms {
		first[f[0]] = true
	}
	var b strings.Builder
	from := 0
outer:
	for i := 0; i < len(s); {
		if !first[s[i]] {
			i++
			continue
		}
		tail := s[i:]
		if !last {
			// A longer form that begins here is preferred, so wait for it.
			for _, f := range forms {
				if len(tail) < len(f) && strings.HasPrefix(f, tail) {
					b.WriteString(s[from:i])
					return b.String(), tail
				}
			}
		}
		for _, f := range forms {
			if strings.HasPrefix(tail, f) {
				b.WriteString(s[from:i])
				b.WriteString(Mark)
				i += len(f)
				from = i
				continue outer
			}
		}
		i++
	}
	b.WriteString(s[from:])
	return b.String(), ""
}

// A Writer takes secrets out of what is written through it. It may be used
// by several goroutines.
type Writer struct {
	r    *Redactor
	w    io.Writer
	mu   sync.Mutex
	held string // may be the beginning of a secret
}

// Writer returns a Writer that writes to w. It must be closed, or the end of
// the text may be missing; closing it does not close w.
func (r *Redactor) Writer(w io.Writer) *Writer { return &Writer{r: r, w: w} }

// Write passes p on without the secrets.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.r.mu.RLock()
	out, rest := scan(w.held+string(p), w.r.forms, false)
	w.r.mu.RUnlock()
	w.held = rest
	if out != "" {
		if _, err := io.WriteString(w.w, out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Close writes what was held back.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == "" {
		return nil
	}
	out := w.r.String(w.held)
	w.held = ""
	_, err := io.WriteString(w.w, out)
	return err
}

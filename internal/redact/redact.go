// Package redact takes secret values out of text before it is logged, shown
// or journalled.
//
// # Example
//
//	r := redact.New(accessKeySecret, token)
//	log.Println(r.String(err.Error()))
//
// # Guarantees
//
//  1. No value given comes through String, whole, in base64 (all three
//     alignments, standard and URL alphabet), in hex, URL-escaped, or quoted
//     for a shell or as JSON (TestForms, FuzzString).
//  2. Text without a secret is passed on byte for byte (FuzzString).
//
// # Limits
//
// Values shorter than four bytes are not looked for: they occur everywhere.
// Part of a secret, a reversed or compressed one is not recognised. Text is
// looked at as a whole: a secret that is cut in two by the caller is not found.
package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
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

// Add makes more values known.
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

// String returns s without the secrets, replaced from left to right, the
// longest where several begin.
func (r *Redactor) String(s string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.forms) == 0 {
		return s
	}
	var first [256]bool
	for _, f := range r.forms {
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
		for _, f := range r.forms {
			if strings.HasPrefix(s[i:], f) {
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
	return b.String()
}

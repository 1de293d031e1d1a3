package redact_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/redact"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

func TestForms(t *testing.T) {
	for _, secret := range []string{"hunter2hunter2", `a'b"c$d\e<f>&g h`, "päss wörd+/=?", "0123456789abcdefghijklmnopqrst"} {
		r := redact.New(secret, "other-secret")
		j, _ := json.Marshal(map[string]string{"password": secret})
		for name, text := range map[string]string{
			"plain": "x" + secret + "y", "shell": shellq.Join("echo", secret), "json": string(j),
			"url": "https://h/?p=" + url.QueryEscape(secret), "path": "https://h/" + url.PathEscape(secret),
			"hex": hex.EncodeToString([]byte(secret)),
		} {
			got := r.String(text)
			assert.Contains(t, got, redact.Mark, "%s: %s", name, text)
			assert.NotContains(t, got, secret)
		}
		for _, pre := range []string{"", "u", "us", "usr:"} {
			for _, post := range []string{"", "x", "xy", "\n"} {
				for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
					got := r.String("Basic " + enc.EncodeToString([]byte(pre+secret+post)))
					assert.Contains(t, got, redact.Mark, "%q %q", pre, post)
				}
			}
		}
	}
	r := redact.New("abc", "")
	assert.Equal(t, "abcdef", r.String("abcdef"), "short values are not looked for")
	r.Add("abcd", "abcdef")
	assert.Equal(t, redact.Mark+redact.Mark, r.String("abcdefabcd"), "the longest first")
	var zero redact.Redactor
	assert.Equal(t, "x", zero.String("x"))
}

func FuzzString(f *testing.F) {
	f.Add("a secret and a secr", "secret")
	f.Add("aaaaaaaa", "aaaa")
	f.Add("no such thing", "secret")
	f.Add("ababababab", "abab")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := redact.New(secret).String(text)
		if len(secret) >= 4 && !strings.Contains(redact.Mark, secret) && !strings.Contains(secret, "[") && !strings.Contains(secret, "]") {
			assert.NotContains(t, got, secret)
		}
		if !strings.Contains(got, redact.Mark) {
			assert.Equal(t, text, got)
		}
	})
}

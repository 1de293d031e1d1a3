package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func TestWriterError(t *testing.T) {
	w := redact.New("secret").Writer(failing{})
	_, err := w.Write([]byte("text"))
	assert.ErrorContains(t, err, "full")
	_, err = w.Write([]byte("sec"))
	require.NoError(t, err, "held back")
	assert.ErrorContains(t, w.Close(), "full")
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func FuzzWriter(f *testing.F) {
	f.Add("a secret and a secr", "secret", uint8(3))
	f.Add("aaaaaaaa", "aaaa", uint8(1))
	f.Add("no such thing", "secret", uint8(2))
	f.Add("ababababab", "abab", uint8(5))
	f.Fuzz(func(t *testing.T, text, secret string, step uint8) {
		r := redact.New(secret)
		want := r.String(text)
		var b bytes.Buffer
		w := r.Writer(&b)
		for rest := text; rest != ""; {
			n := min(int(step)+1, len(rest))
			_, err := w.Write([]byte(rest[:n]))
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.NoError(t, w.Close())
		assert.Equal(t, want, b.String())
		if len(secret) >= 4 && !strings.Contains(redact.Mark, secret) && !strings.Contains(secret, "[") && !strings.Contains(secret, "]") {
			assert.NotContains(t, b.String(), secret)
		}
		if want == text {
			assert.Equal(t, text, b.String())
		}
	})
}

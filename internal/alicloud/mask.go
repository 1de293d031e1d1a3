package alicloud

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// What the cloud says about a bad signature repeats the string to sign, which
// is the whole query: every parameter, percent-encoded up to twice.
var (
	toSign = regexp.MustCompile(`(?is)[\s.:;,]*(?:the )?(?:server |client )?string ?to ?sign.*$`)
	pairs  = regexp.MustCompile(`(?i)\S*(?:AccessKeyId|AccessKeySecret|Signature|SecurityToken|Password|UserData|CommandContent)(?:=|%3D|%253D)\S*`)
	query  = regexp.MustCompile(`(https?://[^\s?"]*)\?[^\s"]*`)
)

// mask takes secrets, queries and excess length out of a text that somebody
// else wrote.
func mask(s string, secrets ...string) string {
	s = toSign.ReplaceAllString(s, "")
	s = query.ReplaceAllString(s, "$1?***")
	s = pairs.ReplaceAllString(s, "***")
	for _, secret := range secrets {
		if len(secret) < 8 {
			continue // a script "true" would mask half of the message
		}
		once := url.QueryEscape(secret)
		for _, form := range []string{secret, once, url.QueryEscape(once)} {
			s = strings.ReplaceAll(s, form, "***")
		}
	}
	const limit = 400
	if len(s) > limit {
		s = s[:limit]
		for !utf8.ValidString(s) && len(s) > 0 {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.TrimSpace(s)
}

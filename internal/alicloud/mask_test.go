package alicloud

import (
	"net/url"
	"strings"
	"testing"
)

// However a message quotes a secret, plain or percent-encoded, it does not come
// through, and nothing comes out that is longer than a message should be.
func FuzzMask(f *testing.F) {
	f.Add("not matched. server string to sign is:POST&%2F&AccessKeyId%3D", "LTAI+secret/value=")
	f.Add(`Post "https://ecs.example.com/?AccessKeyId=x&Signature=`, "abcdefghij")
	f.Add("日本語 ", "%%%%%%%%")
	f.Fuzz(func(t *testing.T, text, secret string) {
		if len(secret) < 8 || strings.ContainsAny(secret, "*…? ") {
			t.Skip("the mask itself could complete such a secret")
		}
		once := url.QueryEscape(secret)
		for _, form := range []string{secret, once, url.QueryEscape(once)} {
			got := mask(text+form+" "+text, secret)
			if strings.Contains(got, form) {
				t.Errorf("mask let %q through: %q", form, got)
			}
			if len(got) > 410 {
				t.Errorf("%d bytes", len(got))
			}
		}
	})
}

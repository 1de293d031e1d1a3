package foreign

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // version 1 signatures are defined with it
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The versions of the products' APIs.
const (
	ecsAPI = "2014-05-26"
	slbAPI = "2014-05-15"
	vpcAPI = "2016-04-28"
)

// escaped encodes as the RPC signature wants it.
func escaped(s string) string {
	return strings.NewReplacer("+", "%20", "*", "%2A", "%7E", "~").Replace(url.QueryEscape(s))
}

// A replay sends the requests of clients that cannot be installed here, in
// their spelling.
type replay struct {
	t *testing.T
	s *simulator
	// form puts the action's own parameters into the body and the common ones
	// into the query (the newer parts of Terraform's provider); otherwise all
	// stand in the query of a POST (the SDK that the rest of it and the command
	// line use).
	form   bool
	secret string
}

// send makes one signed call; kv are names and values.
func (r replay) send(version, action string, kv ...string) (map[string]any, string) {
	r.t.Helper()
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce)
	common := map[string]string{
		"Action": action, "Version": version, "Format": "JSON", "RegionId": r.s.Region, "AccessKeyId": r.s.Key, "SignatureMethod": "HMAC-SHA1",
		"SignatureVersion": "1.0", "SignatureType": "", "SignatureNonce": fmt.Sprintf("%x", nonce), "Timestamp": time.Now().UTC().Format("2006-01-02T15:04:05Z"),
	}
	own := map[string]string{}
	for i := 0; i+1 < len(kv); i += 2 {
		own[kv[i]] = kv[i+1]
	}
	if r.form {
		delete(common, "RegionId") // it stands in the body
	} else {
		maps.Copy(common, own)
		own = nil
	}
	all := maps.Clone(common)
	maps.Copy(all, own)
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		pairs = append(pairs, escaped(k)+"="+escaped(all[k]))
	}
	mac := hmac.New(sha1.New, []byte(r.secret+"&"))
	_, _ = io.WriteString(mac, "POST&%2F&"+escaped(strings.Join(pairs, "&")))
	query, body := url.Values{"Signature": {base64.StdEncoding.EncodeToString(mac.Sum(nil))}}, url.Values{}
	for k, v := range common {
		query.Set(k, v)
	}
	for k, v := range own {
		body.Set(k, v)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.s.Endpoint+"/?"+query.Encode(), strings.NewReader(body.Encode()))
	require.NoError(r.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	var v map[string]any
	require.NoErrorf(r.t, json.NewDecoder(resp.Body).Decode(&v), "%s", action)
	if resp.StatusCode != http.StatusOK {
		return v, v["Code"].(string)
	}
	assert.NotEmpty(r.t, v["RequestId"])
	return v, ""
}

// ok is send for a call that must succeed.
func (r replay) ok(version, action string, kv ...string) map[string]any {
	r.t.Helper()
	v, code := r.send(version, action, kv...)
	require.Emptyf(r.t, code, "%s: %v", action, v)
	return v
}

// no is send for a call that must end with an error.
func (r replay) no(want, version, action string, kv ...string) {
	r.t.Helper()
	_, code := r.send(version, action, kv...)
	require.Equalf(r.t, want, code, "%s", action)
}

// at finds Instances.Instance.0.Status and the like.
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for p := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			var there bool
			v, there = x[p]
			require.Truef(t, there, "there is no %s of %s", p, path)
		case []any:
			n := 0
			_, err := fmt.Sscan(p, &n)
			require.NoError(t, err)
			require.Greaterf(t, len(x), n, "the list at %s of %s is too short", p, path)
			v = x[n]
		default:
			require.Failf(t, "nothing there", "%s", path)
		}
	}
	return v
}

func str(t *testing.T, v any, path string) string {
	t.Helper()
	s, ok := at(t, v, path).(string)
	require.Truef(t, ok, "%s is no string: %v", path, at(t, v, path))
	return s
}

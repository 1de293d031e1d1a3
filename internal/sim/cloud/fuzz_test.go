package cloud_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// FuzzUnsigned: whatever comes without a signature is answered, has no effect
// and learns nothing of the secret.
func FuzzUnsigned(f *testing.F) {
	stop := "Action=StopInstance&InstanceId=i-1&Version=2014-05-26&AccessKeyId=testid&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&SignatureNonce=n&Signature=x&Timestamp=" +
		url.QueryEscape(time.Now().UTC().Format("2006-01-02T15:04:05Z"))
	f.Add("POST", "/", stop, "", "", "")
	f.Add("POST", "/", "", "application/x-www-form-urlencoded", stop, "")
	f.Add("GET", "/", "Action=StopInstance", "", "", "ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=host;x-acs-action,Signature=00")
	f.Add("POST", "/", "", "application/json", `{"A":[{"B":1},null,true,"x"],"C":{"D":{}}}`, "ACS3-HMAC-SHA256 ")
	f.Add("GET", "/logstores/x?type=log", "", "", "", "LOG testid:x")
	f.Add("POST", "/logstores/x/logs", "", "application/json", `{"from":1}`, "SLS4-HMAC-SHA256 Credential=testid")
	f.Fuzz(func(t *testing.T, method, path, query, kind, body, authorization string) {
		c := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
		defer c.Close()
		c.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.90"})
		r, err := http.NewRequestWithContext(t.Context(), method, "http://cloud.invalid/", strings.NewReader(body))
		if err != nil {
			t.Skip("net/http lets no such request in")
		}
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Content-Type", kind)
		r.Header.Set("X-Acs-Action", "StopInstance")
		r.Header.Set("X-Acs-Version", ecs)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		require.GreaterOrEqual(t, w.Code, 400, "%s", w.Body)
		require.Less(t, w.Code, 502, "%s", w.Body)
		assert.NotContains(t, w.Body.String()+strings.Join(c.Refused(), "\n"), secret)
		assert.Empty(t, c.Counts())
		assert.Equal(t, "Running", c.InstanceStatus("i-1"))
	})
}

package alicloud_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	keyID  = "LTAI5tExampleKeyIdOfTest"
	secret = "s3cr3tOfTheTestThatNobodyMaySee+/="
	token  = "CAISstsTokenOfTheTest/+=="
)

// A fake answers requests by action and fails the test on any other action.
type fake struct {
	t       *testing.T
	mu      sync.Mutex
	seen    []url.Values
	actions map[string]func(n int, q url.Values) (*http.Response, error)
	counts  map[string]int
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	f.mu.Lock()
	f.seen = append(f.seen, q)
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	action := q.Get("Action")
	f.counts[action]++
	n, handle := f.counts[action], f.actions[action]
	f.mu.Unlock()
	if r.Method != http.MethodPost || handle == nil {
		f.t.Errorf("the fake does not know %s %s", r.Method, action)
		return nil, errors.New("unknown action")
	}
	return handle(n, q)
}

func answer(status int, body string) (*http.Response, error) {
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func refusal(status int, code, message string) (*http.Response, error) {
	return answer(status, fmt.Sprintf(`{"RequestId":"R-1","HostId":"h","Code":%q,"Message":%q}`, code, message))
}

func client(t *testing.T, rt http.RoundTripper) *alicloud.Client {
	t.Helper()
	c, err := alicloud.New(alicloud.Config{Region: "cn-hangzhou", AccessKeyID: keyID, AccessKeySecret: secret, SecurityToken: token, Transport: rt})
	require.NoError(t, err)
	return c
}

const emptyInstances = `{"RequestId":"R-1","Instances":{"Instance":[]}}`

func TestCancelInFlight(t *testing.T) {
	started := make(chan struct{})
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	defer srv.Close()
	defer close(release)
	c, err := alicloud.New(alicloud.Config{Region: "cn-hangzhou", Endpoint: srv.URL, AccessKeyID: keyID, AccessKeySecret: secret})
	require.NoError(t, err)
	defer c.CloseIdle()

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	start := time.Now()
	_, err = c.RunInstances(ctx, alicloud.NewInstance{Token: "t"})
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, time.Since(start), 45*time.Second, "half of what an attempt may take")
	var e *alicloud.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, alicloud.Ambiguous, e.Class, "a create that was cancelled in flight may have happened")

	_, err = c.Instances(ctx, alicloud.InstanceQuery{})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorAs(t, err, &e)
	assert.Equal(t, alicloud.Definitive, e.Class, "nothing was sent")
}

func TestEndpoint(t *testing.T) {
	for _, tt := range []struct{ region, endpoint, want, fails string }{
		{"cn-hangzhou", "", "https://ecs-cn-hangzhou.aliyuncs.com", ""},
		{"cn-wulanchabu", "", "https://ecs.cn-wulanchabu.aliyuncs.com", ""},
		{"cn-hangzhou", "ecs.example.com", "https://ecs.example.com", ""},
		{"cn-hangzhou", "https://ecs.example.com:8443/", "https://ecs.example.com:8443", ""},
		{"cn-hangzhou", "http://127.0.0.1:8080", "http://127.0.0.1:8080", ""},
		{"cn-hangzhou", "http://[::1]:8080", "http://[::1]:8080", ""},
		{"cn-hangzhou", "http://ecs.example.com", "", "loopback"},
		{"cn-hangzhou", "http://10.0.0.1", "", "loopback"},
		{"cn-hangzhou", "ftp://example.com", "", "https"},
		{"cn-hangzhou", "https://user:" + secret + "@example.com", "", "form"},
		{"cn-hangzhou", "https://example.com/x?y", "", "form"},
		{"cn hangzhou/", "", "", "region ID"},
	} {
		t.Run(tt.region+" "+strings.ReplaceAll(tt.endpoint, secret, "SECRET"), func(t *testing.T) {
			var got string
			c, err := alicloud.New(alicloud.Config{
				Region: tt.region, Endpoint: tt.endpoint, AccessKeyID: keyID, AccessKeySecret: secret,
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					got = r.URL.Scheme + "://" + r.URL.Host
					return answer(200, emptyInstances)
				}),
			})
			if tt.fails != "" {
				require.ErrorContains(t, err, tt.fails)
				assert.NotContains(t, err.Error(), secret)
				return
			}
			require.NoError(t, err)
			_, err = c.Instances(t.Context(), alicloud.InstanceQuery{})
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The texts are what the real cloud and the real transports say; each of them
// holds secrets.
func TestNoSecretInErrors(t *testing.T) {
	userData := "#cloud-config\nchpasswd: {list: 'root:hunter2hunter2'}\n"
	say := map[string]func(q url.Values, raw string) (*http.Response, error){
		"string to sign": func(q url.Values, raw string) (*http.Response, error) {
			return refusal(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation. server string to sign is:POST&%2F&"+url.QueryEscape(raw))
		},
		"string to sign, other words": func(q url.Values, raw string) (*http.Response, error) {
			return refusal(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards. StringToSign: POST&%2F&"+url.QueryEscape(raw))
		},
		"echo of parameters": func(q url.Values, raw string) (*http.Response, error) {
			return refusal(400, "InvalidParameter", "bad request "+raw)
		},
		"echo of the key": func(q url.Values, raw string) (*http.Response, error) {
			return refusal(404, "InvalidAccessKeyId.NotFound", "Specified access key "+q.Get("AccessKeyId")+" is not found.")
		},
		"echo of the user data": func(q url.Values, raw string) (*http.Response, error) {
			return refusal(400, "InvalidUserData", "cannot read "+q.Get("UserData")+" which is "+userData)
		},
		"URL in a transport error": func(q url.Values, raw string) (*http.Response, error) {
			return nil, &url.Error{Op: "Post", URL: "https://ecs.example.com/?" + raw, Err: errors.New("proxyconnect: https://ecs.example.com/?" + raw)}
		},
		"HTML that quotes": func(q url.Values, raw string) (*http.Response, error) {
			return answer(502, "<html>cannot reach /?"+raw+"</html>")
		},
		"answer that cannot be decoded": func(q url.Values, raw string) (*http.Response, error) {
			return answer(200, `{"RequestId":"R-1","InstanceIdSets":"`+raw+`"}`)
		},
		"cut connection": func(q url.Values, raw string) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
	}
	for name, f := range say {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := client(t, roundTripper(func(r *http.Request) (*http.Response, error) { return f(r.URL.Query(), r.URL.RawQuery) }))
				_, err := c.RunInstances(t.Context(), alicloud.NewInstance{Token: "t", UserData: []byte(userData)})
				require.Error(t, err)
				var all []string
				for e := err; e != nil; e = errors.Unwrap(e) {
					all = append(all, e.Error(), fmt.Sprintf("%+v", e), fmt.Sprintf("%#v", e))
				}
				text := strings.Join(all, "\n")
				for _, s := range []string{
					keyID, secret, token, url.QueryEscape(secret), url.QueryEscape(token), url.QueryEscape(url.QueryEscape(token)),
					"hunter2", "I2Nsb3Vk", "AccessKeyId=", "AccessKeyId%3D", "Signature=", "Signature%3D", "SecurityToken", "UserData=", "UserData%3D", "?AccessKey", "SignatureNonce",
				} {
					assert.NotContains(t, text, s)
				}
			})
		})
	}
}

func TestOddAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		code, says string
		class      alicloud.Class
	}{
		{"numeric code", `{"RequestId":"R-9","Code":500123,"Message":"odd"}`, 400, "500123", "odd", alicloud.Definitive},
		{"numeric code and request ID", `{"RequestId":7,"Code":1,"Message":2}`, 403, "1", "request 7", alicloud.Definitive},
		{"HTML", "<html><body>502</body></html>", 502, "BadAnswer", "HTML", alicloud.Ambiguous},
		{"HTML with 200", "<!DOCTYPE html>", 200, "BadAnswer", "HTML", alicloud.Ambiguous},
		{"empty with 200", "", 200, "BadAnswer", "empty", alicloud.Ambiguous},
		{"empty object with 200", "{}", 200, "BadAnswer", "", alicloud.Ambiguous},
		{"null", "null", 200, "BadAnswer", "", alicloud.Ambiguous},
		{"list", "[1]", 200, "BadAnswer", "not JSON", alicloud.Ambiguous},
		{"cut JSON", `{"RequestId":"R`, 200, "BadAnswer", "", alicloud.Ambiguous},
		{"wrong shape", `{"RequestId":"R-9","InstanceIdSets":{"InstanceIdSet":{"a":[]}}}`, 200, "BadAnswer", "", alicloud.Ambiguous},
		{"no ID", `{"RequestId":"R-9"}`, 200, "BadAnswer", "names no ID", alicloud.Ambiguous},
		{"error without code", `{"RequestId":"R-9"}`, 400, "BadAnswer", "without a code", alicloud.Definitive},
		{"redirect", "", 302, "BadAnswer", "redirect", alicloud.Definitive},
		{"object as code", `{"Code":{"a":1},"Message":["x"]}`, 500, "BadAnswer", "", alicloud.Ambiguous},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
					"RunInstances": func(int, url.Values) (*http.Response, error) { return answer(tt.status, tt.body) },
				}}
				_, err := client(t, f).RunInstances(t.Context(), alicloud.NewInstance{Token: "t"})
				var e *alicloud.Error
				require.ErrorAs(t, err, &e)
				assert.Equal(t, tt.code, e.Code)
				assert.Equal(t, tt.class, e.Class)
				assert.Contains(t, err.Error(), tt.says)
			})
		})
	}
}

func TestRetries(t *testing.T) {
	type reply = func(int, url.Values) (*http.Response, error)
	refuse := func(status int, code string) reply {
		return func(int, url.Values) (*http.Response, error) { return refusal(status, code, "m") }
	}
	fails := func(err error) reply {
		return func(int, url.Values) (*http.Response, error) { return nil, err }
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	html := func(int, url.Values) (*http.Response, error) { return answer(502, "<html>") }
	many := 1000

	for _, tt := range []struct {
		name  string
		first reply // answers the first calls; then it works
		times int
		// how many calls each kind of request makes, and whether it works out
		read, create, write int
		readOK, createOK    bool
		writeOK             bool
	}{
		{"throttled", refuse(400, "Throttling.User"), 3, 4, 4, 4, true, true, true},
		{"throttled by status", refuse(429, "Whatever"), 1, 2, 2, 2, true, true, true},
		{"busy", refuse(400, "ServiceIsConfiguring"), 3, 4, 4, 4, true, true, true},
		{"busy with 449", refuse(449, "SystemBusy"), 1, 2, 2, 2, true, true, true},
		{"cut", fails(io.ErrUnexpectedEOF), 2, 3, 3, 1, true, true, false},
		{"internal error", refuse(500, "InternalError"), 2, 3, 3, 1, true, true, false},
		{"unavailable", refuse(503, "ServiceUnavailable"), 1, 2, 2, 1, true, true, false},
		{"proxy's page", html, 1, 2, 2, 1, true, true, false},
		{"not reached", fails(refused), 2, 3, 3, 3, true, true, true},
		{"never reached", fails(refused), many, 4, 4, 4, false, false, false},
		{"wrong state", refuse(403, "IncorrectInstanceStatus"), 1, 1, 1, 1, false, false, false},
		{"wrong for good", refuse(400, "InvalidParameter"), 1, 1, 1, 1, false, false, false},
		{"wrong key", refuse(404, "InvalidAccessKeyId.NotFound"), 1, 1, 1, 1, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				then := func(body string) reply {
					return func(n int, q url.Values) (*http.Response, error) {
						if n <= tt.times {
							return tt.first(n, q)
						}
						return answer(200, body)
					}
				}
				f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
					"DescribeInstances": then(emptyInstances),
					"CreateSnapshot":    then(`{"RequestId":"R","SnapshotId":"s-1"}`),
					"SetBackendServers": then(`{"RequestId":"R","LoadBalancerId":"lb-1"}`),
				}}
				c := client(t, f)
				_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
				assert.Equal(t, tt.readOK, err == nil, "%v", err)
				id, err := c.CreateSnapshot(t.Context(), alicloud.NewSnapshot{DiskID: "d-1", Token: "tok"})
				assert.Equal(t, tt.createOK, err == nil, "%v", err)
				assert.Equal(t, tt.createOK, id == "s-1")
				err = c.SetDefault(t.Context(), "lb-1", []alicloud.Backend{{ServerID: "i-1", Weight: 0}})
				assert.Equal(t, tt.writeOK, err == nil, "%v", err)
				assert.Equal(t, map[string]int{"DescribeInstances": tt.read, "CreateSnapshot": tt.create, "SetBackendServers": tt.write}, f.counts)

				nonces := map[string]bool{}
				for _, q := range f.seen {
					assert.False(t, nonces[q.Get("SignatureNonce")], "every attempt is signed anew")
					nonces[q.Get("SignatureNonce")] = true
					if q.Get("Action") == "CreateSnapshot" {
						assert.Equal(t, "tok", q.Get("ClientToken"), "every attempt has the same token")
					}
				}
			})
		})
	}
}

func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
			"DescribeInstances": func(int, url.Values) (*http.Response, error) { return refusal(400, "OperationBusy", "come back") },
		}}
		start := time.Now()
		_, err := client(t, f).Instances(t.Context(), alicloud.InstanceQuery{})
		require.ErrorContains(t, err, "gave up after")
		assert.LessOrEqual(t, time.Since(start), 2*time.Minute)
		assert.Greater(t, f.counts["DescribeInstances"], 4)

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = client(t, f).Instances(ctx, alicloud.InstanceQuery{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "come back; context deadline exceeded while waiting to repeat the request")
	})
	// A first attempt that may have made something stays open, whatever comes
	// after it.
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
			"RunInstances": func(n int, _ url.Values) (*http.Response, error) {
				if n == 1 {
					return refusal(500, "InternalError", "it broke")
				}
				return refusal(400, "Throttling", "slow down")
			},
		}}
		_, err := client(t, f).RunInstances(t.Context(), alicloud.NewInstance{Token: "t"})
		var e *alicloud.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, "Throttling", e.Code)
		assert.Equal(t, alicloud.Ambiguous, e.Class)
	})
}

func TestAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := client(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			if n++; n == 1 {
				<-r.Context().Done() // an answer that never comes
				return nil, r.Context().Err()
			}
			return answer(200, emptyInstances)
		}))
		start := time.Now()
		_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
		require.NoError(t, err, "one attempt has a limit of its own, and a read is repeated")
		assert.Less(t, time.Since(start), 40*time.Second)

		n = 0
		err = c.RebootInstance(t.Context(), "i-1")
		require.ErrorContains(t, err, "no answer within 1m0s")
		assert.NotErrorIs(t, err, context.DeadlineExceeded, "that would mean the caller's deadline")
	})
}

// One clear message for each thing that is wrong with who asks, from where.
func TestHints(t *testing.T) {
	detail := func(kind string) string {
		return `,"AccessDeniedDetail":{"AuthAction":"ecs:DescribeInstances","AuthPrincipalType":"SubUser","NoPermissionType":"` + kind + `","EncodedDiagnosticMessage":"AQIBIAAAAOPdwKY2QLOvgMEc7SkkoJfj1kvZwsaRqNYMh10Tv0wTe"}`
	}
	now := time.Now()
	for _, tt := range []struct {
		code, more, want string
		date             time.Time
		is               error
	}{
		{code: "InvalidAccessKeyId.NotFound", want: "check the access key; it came from the configuration", is: alicloud.ErrCredentials},
		{code: "SignatureDoesNotMatch", want: "check the access key", is: alicloud.ErrCredentials},
		{code: "InvalidSecurityToken.Expired", want: "fresh temporary credentials; these came from the configuration", is: alicloud.ErrCredentials},
		{code: "Forbidden.RAM", want: `add a statement with Action "ecs:DescribeInstances" on Resource "acs:ecs:*:*:*" to its RAM policy`, is: alicloud.ErrPermission},
		{code: "NoPermission", more: detail("ImplicitDeny"), want: `add a statement with Action "ecs:DescribeInstances"`, is: alicloud.ErrPermission},
		{code: "Forbidden", more: detail("ExplicitDeny"), want: `take the Deny of Action "ecs:DescribeInstances" away`, is: alicloud.ErrPermission},
		{code: "InvalidUser.PassRoleForbidden", want: `Action "ram:PassRole" on Resource "acs:ram:*:*:*"`, is: alicloud.ErrPermission},
		{code: "IllegalTimestamp", date: now.Add(-20 * time.Minute), want: "the clock of this machine is 20m", is: alicloud.ErrClock},
		{code: "InvalidTimeStamp.Expired", date: now.Add(time.Hour), want: "behind the cloud's", is: alicloud.ErrClock},
		{code: "InvalidTimeStamp.Expired", want: "set the clock", is: alicloud.ErrClock},
		{code: "InvalidRegionId.NotFound", want: "region cn-hangzhou, endpoint ecs-cn-hangzhou.aliyuncs.com", is: alicloud.ErrRegion},
	} {
		f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
			"DescribeInstances": func(int, url.Values) (*http.Response, error) {
				resp, err := answer(403, fmt.Sprintf(`{"RequestId":"R-1","HostId":"h","Code":%q,"Message":"no"%s}`, tt.code, tt.more))
				if !tt.date.IsZero() {
					resp.Header.Set("Date", tt.date.UTC().Format(http.TimeFormat))
				}
				return resp, err
			},
		}}
		_, err := client(t, f).Instances(t.Context(), alicloud.InstanceQuery{})
		require.ErrorIs(t, err, tt.is, tt.code)
		assert.ErrorContains(t, err, tt.want)
		assert.ErrorContains(t, err, "request R-1")
		assert.NotContains(t, err.Error(), "AQIB")
		assert.Equal(t, tt.is == alicloud.ErrCredentials || tt.is == alicloud.ErrPermission, errors.Is(err, alicloud.ErrCredentials), tt.code)
		assert.NotContains(t, err.Error(), "\n")
	}

	_, err := client(t, roundTripper(func(r *http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: r.URL.Host, IsNotFound: true}}
	})).Instances(t.Context(), alicloud.InstanceQuery{})
	require.ErrorIs(t, err, alicloud.ErrRegion)
	assert.ErrorContains(t, err, "region cn-hangzhou, endpoint ecs-cn-hangzhou.aliyuncs.com")
}

func TestConcurrent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("Action") {
		case "DescribeInstances":
			io.WriteString(w, emptyInstances)
		case "DescribeVServerGroups":
			io.WriteString(w, `{"RequestId":"R","VServerGroups":{"VServerGroup":[]}}`)
		default:
			http.Error(w, "unknown", http.StatusNotImplemented)
		}
	}))
	defer srv.Close()
	c, err := alicloud.New(alicloud.Config{Region: "cn-hangzhou", Endpoint: srv.URL, AccessKeyID: keyID, AccessKeySecret: secret})
	require.NoError(t, err)
	defer c.CloseIdle()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				_, err := c.Instances(t.Context(), alicloud.InstanceQuery{Tags: map[string]string{"a": "b"}})
				assert.NoError(t, err)
				_, err = c.VServerGroups(t.Context(), "lb-1")
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
}

func TestResolve(t *testing.T) {
	for _, name := range []string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN", "ALIBABA_CLOUD_REGION_ID", "ALIBABA_CLOUD_PROFILE",
		"ALICLOUD_ACCESS_KEY", "ALICLOUD_SECRET_KEY", "ALICLOUD_SECURITY_TOKEN", "ALICLOUD_REGION",
	} {
		t.Setenv(name, "")
	}
	config := `{"current":"default","profiles":[
		{"name":"default","mode":"AK","access_key_id":"id-file","access_key_secret":"sec-file","region_id":"cn-beijing"},
		{"name":"tmp","mode":"StsToken","access_key_id":"id-tmp","access_key_secret":"sec-tmp","sts_token":"tok-tmp","region_id":"cn-shanghai"},
		{"name":"sso","mode":"CloudSSO"},
		{"name":"half","mode":"AK","access_key_id":"id-half"}]}`
	for _, tt := range []struct {
		name               string
		cfg                alicloud.Config
		env                map[string]string
		file               string
		id, region, source string
		fails              string
	}{
		{name: "none", fails: "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or run `aliyun configure`"},
		{name: "file", file: config, id: "id-file", region: "cn-beijing", source: `profile "default"`},
		{name: "environment before file", file: config, env: map[string]string{"ALICLOUD_ACCESS_KEY": "id-tf", "ALICLOUD_SECRET_KEY": "sec-tf", "ALICLOUD_REGION": "cn-tf"}, id: "id-tf", region: "cn-tf", source: "ALICLOUD_ACCESS_KEY"},
		{name: "the cloud's names before others", env: map[string]string{
			"ALICLOUD_ACCESS_KEY": "id-tf", "ALICLOUD_SECRET_KEY": "sec-tf",
			"ALIBABA_CLOUD_ACCESS_KEY_ID": "id-ali", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "sec-ali", "ALICLOUD_REGION": "cn-tf", "ALIBABA_CLOUD_REGION_ID": "cn-ali",
		}, id: "id-ali", region: "cn-ali", source: "ALIBABA_CLOUD_ACCESS_KEY_ID"},
		{name: "half of the environment", file: config, env: map[string]string{"ALIBABA_CLOUD_ACCESS_KEY_ID": "id-ali"}, fails: "ALIBABA_CLOUD_ACCESS_KEY_ID is set and ALIBABA_CLOUD_ACCESS_KEY_SECRET is not"},
		{name: "configuration first", cfg: alicloud.Config{AccessKeyID: "id-cfg", AccessKeySecret: "sec-cfg", Region: "cn-cfg"}, file: config, env: map[string]string{"ALIBABA_CLOUD_REGION_ID": "cn-ali"}, id: "id-cfg", region: "cn-cfg", source: "the configuration"},
		{name: "half of the configuration", cfg: alicloud.Config{AccessKeyID: "id-cfg"}, fails: "only one of"},
		{name: "named profile before environment", cfg: alicloud.Config{Profile: "tmp"}, file: config, env: map[string]string{
			"ALIBABA_CLOUD_ACCESS_KEY_ID": "id-ali", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "sec-ali", "ALIBABA_CLOUD_REGION_ID": "cn-ali",
		}, id: "id-tmp", region: "cn-shanghai", source: `profile "tmp"`},
		{name: "profile by environment", env: map[string]string{"ALIBABA_CLOUD_PROFILE": "tmp"}, file: config, id: "id-tmp", region: "cn-shanghai", source: `profile "tmp"`},
		{name: "mode", cfg: alicloud.Config{Profile: "sso"}, file: config, fails: `mode "CloudSSO"`},
		{name: "half profile", cfg: alicloud.Config{Profile: "half"}, file: config, fails: "no access key"},
		{name: "no such profile", cfg: alicloud.Config{Profile: "x"}, file: config, fails: `no profile "x"`},
		{name: "no file for the profile", cfg: alicloud.Config{Profile: "x"}, fails: "aliyun configure --profile x"},
		{name: "bad file", file: `{"current":"sec-bad`, fails: "not valid JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("USERPROFILE", home)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if tt.file != "" {
				require.NoError(t, os.MkdirAll(filepath.Join(home, ".aliyun"), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(home, ".aliyun", "config.json"), []byte(tt.file), 0o600))
			}
			cr, err := alicloud.Resolve(tt.cfg)
			if tt.fails != "" {
				require.ErrorIs(t, err, alicloud.ErrCredentials)
				assert.ErrorContains(t, err, tt.fails)
				assert.NotContains(t, err.Error(), "sec-")
				assert.NotContains(t, err.Error(), "id-")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.id, cr.AccessKeyID)
			assert.Equal(t, tt.region, cr.Region)
			assert.Contains(t, cr.Source, tt.source)
			assert.NotContains(t, cr.Source, "sec-")
		})
	}

	t.Run("no region", func(t *testing.T) {
		_, err := alicloud.New(alicloud.Config{AccessKeyID: "a", AccessKeySecret: "b"})
		require.ErrorContains(t, err, "ALIBABA_CLOUD_REGION_ID")
	})
}

// The exact parameters of what is bought.
func TestRunInstancesParameters(t *testing.T) {
	f := &fake{t: t, actions: map[string]func(int, url.Values) (*http.Response, error){
		"RunInstances": func(int, url.Values) (*http.Response, error) {
			return answer(200, `{"RequestId":"R","InstanceIdSets":{"InstanceIdSet":["i-new"]}}`)
		},
	}}
	id, err := client(t, f).RunInstances(t.Context(), alicloud.NewInstance{
		Token: "tok", ImageID: "m-1", Name: "web-90-transition", Type: "ecs.g7.large", Zone: "cn-hangzhou-h", VSwitch: "vsw-1", KeyPair: "ops", RAMRole: "web",
		SecurityGroups: []string{"sg-1", "sg-2"}, UserData: []byte("#cloud-config\n"), AutoRelease: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC),
		Disks: []alicloud.Disk{{Type: "system", Category: "cloud_essd", PerformanceLevel: "PL1", Size: 40, Device: "/dev/xvda"}, {Type: "data", Category: "cloud_essd", PerformanceLevel: "PL0", Size: 100, Device: "/dev/xvdb"}},
		Tags:  map[string]string{"b": "2", "a": "1"},
	})
	require.NoError(t, err)
	assert.Equal(t, "i-new", id)
	q := f.seen[0]
	for _, k := range []string{"Timestamp", "Signature", "SignatureNonce", "SignatureMethod", "SignatureVersion", "SignatureType", "AccessKeyId", "SecurityToken", "Format", "Version"} {
		q.Del(k)
	}
	assert.Equal(t, url.Values{
		"Action": {"RunInstances"}, "RegionId": {"cn-hangzhou"}, "ZoneId": {"cn-hangzhou-h"}, "VSwitchId": {"vsw-1"}, "ClientToken": {"tok"}, "ImageId": {"m-1"},
		"InstanceName": {"web-90-transition"}, "InstanceType": {"ecs.g7.large"}, "Amount": {"1"}, "InstanceChargeType": {"PostPaid"}, "SpotStrategy": {"NoSpot"},
		"DeletionProtection": {"false"}, "SecurityGroupIds.1": {"sg-1"}, "SecurityGroupIds.2": {"sg-2"}, "RamRoleName": {"web"}, "KeyPairName": {"ops"},
		"UserData": {"I2Nsb3VkLWNvbmZpZwo="}, "AutoReleaseTime": {"2026-11-23T01:02:00Z"},
		"SystemDisk.Category": {"cloud_essd"}, "SystemDisk.PerformanceLevel": {"PL1"}, "SystemDisk.Size": {"40"},
		"DataDisk.1.Device": {"/dev/xvdb"}, "DataDisk.1.Category": {"cloud_essd"}, "DataDisk.1.PerformanceLevel": {"PL0"}, "DataDisk.1.Size": {"100"}, "DataDisk.1.DeleteWithInstance": {"true"},
		"Tag.1.Key": {"a"}, "Tag.1.Value": {"1"}, "Tag.2.Key": {"b"}, "Tag.2.Value": {"2"},
	}, q)
}

func TestWireBodyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 400, Status: "400 Bad Request", Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(append([]byte(`{"Code":"`), bytes.Repeat([]byte("x"), 40<<20)...)))}, nil
		}))
		_, err := c.Instances(t.Context(), alicloud.InstanceQuery{})
		require.Error(t, err)
		assert.Less(t, len(err.Error()), 1000)
	})
}

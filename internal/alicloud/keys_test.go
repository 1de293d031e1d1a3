package alicloud_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// noEnv takes the machine's own credentials out of a test and gives it a
// profile file.
func noEnv(t *testing.T, profiles string) {
	for _, name := range []string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN", "ALIBABA_CLOUD_REGION_ID", "ALIBABA_CLOUD_PROFILE",
		"ALICLOUD_ACCESS_KEY", "ALICLOUD_SECRET_KEY", "ALICLOUD_SECURITY_TOKEN", "ALICLOUD_REGION",
		"ALIBABA_CLOUD_ECS_METADATA", "ALIBABA_CLOUD_ECS_METADATA_DISABLED", "ALIBABA_CLOUD_IMDSV1_DISABLED",
	} {
		t.Setenv(name, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	if profiles != "" {
		require.NoError(t, os.MkdirAll(filepath.Join(home, ".aliyun"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(home, ".aliyun", "config.json"), []byte(profiles), 0o600))
	}
}

// imds is a metadata service that wants tokens and gives keys of an hour.
type imds struct {
	role    string
	v1      bool // does without tokens
	asked   atomic.Int32
	expires time.Duration
	broken  atomic.Bool
}

func (m *imds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/latest/api/token" {
		if m.v1 || r.Method != http.MethodPut || r.Header.Get("X-aliyun-ecs-metadata-token-ttl-seconds") == "" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "tok-of-imds")
		return
	}
	if !m.v1 && r.Header.Get("X-aliyun-ecs-metadata-token") != "tok-of-imds" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	const list = "/latest/meta-data/ram/security-credentials/"
	switch {
	case m.broken.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == list && m.role != "":
		io.WriteString(w, m.role)
	case m.role != "" && r.URL.Path == list+m.role:
		n := m.asked.Add(1)
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":"STS.imds%d","AccessKeySecret":"imds-secret-%d","SecurityToken":"imds-token-%d","Expiration":%q}`, n, n, n, time.Now().Add(m.expires).UTC().Format(time.RFC3339))
	default:
		http.NotFound(w, r)
	}
}

// The role of the instance: found by the machine's description, by a variable
// or by a profile, with and without tokens.
func TestECSRole(t *testing.T) {
	dmi := filepath.Join(t.TempDir(), "product_name")
	require.NoError(t, os.WriteFile(dmi, []byte("Alibaba Cloud ECS\n"), 0o600))
	elsewhere := filepath.Join(t.TempDir(), "product_name")
	require.NoError(t, os.WriteFile(elsewhere, []byte("Standard PC\n"), 0o600))
	for _, tt := range []struct {
		name, dmi, profiles, role string
		env                       map[string]string
		v1                        bool
		source, fails             string
	}{
		{name: "by the machine", dmi: dmi, role: "web", source: "role of this ECS instance"},
		{name: "first version", dmi: dmi, role: "web", v1: true, source: "role of this ECS instance"},
		{name: "first version forbidden", dmi: dmi, role: "web", v1: true, env: map[string]string{"ALIBABA_CLOUD_IMDSV1_DISABLED": "true"}, fails: "IMDSV1_DISABLED"},
		{name: "by a variable", dmi: elsewhere, role: "web", env: map[string]string{"ALIBABA_CLOUD_ECS_METADATA": "web"}, source: "ECS role web"},
		{name: "by a profile", dmi: elsewhere, role: "web", profiles: `{"current":"p","profiles":[{"name":"p","mode":"EcsRamRole","ram_role_name":"web"}]}`, source: `profile "p"`},
		{name: "profile without a name", dmi: elsewhere, role: "web", profiles: `{"current":"p","profiles":[{"name":"p","mode":"EcsRamRole"}]}`, source: `profile "p"`},
		{name: "another role", dmi: dmi, role: "db", env: map[string]string{"ALIBABA_CLOUD_ECS_METADATA": "web"}, fails: `no RAM role "web"`},
		{name: "no role", dmi: dmi, fails: "this instance has no RAM role"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noEnv(t, tt.profiles)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			srv := httptest.NewServer(&imds{role: tt.role, v1: tt.v1, expires: time.Hour})
			defer srv.Close()
			var key, token string
			c, err := alicloud.New(alicloud.OnMachine(alicloud.Config{Region: "cn-hangzhou", FirstPause: time.Millisecond, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				key, token = r.URL.Query().Get("AccessKeyId"), r.URL.Query().Get("SecurityToken")
				return answer(200, emptyInstances)
			})}, srv.URL, tt.dmi))
			require.NoError(t, err)
			_, err = c.Instances(t.Context(), alicloud.InstanceQuery{})
			if tt.fails != "" {
				require.ErrorIs(t, err, alicloud.ErrCredentials)
				assert.ErrorContains(t, err, tt.fails)
				assert.Empty(t, key, "nothing was sent")
				return
			}
			require.NoError(t, err)
			assert.Contains(t, c.CredentialSource(), tt.source)
			assert.Equal(t, "STS.imds1", key)
			assert.Equal(t, "imds-token-1", token)
		})
	}
	t.Run("not on ECS", func(t *testing.T) {
		noEnv(t, "")
		_, err := alicloud.New(alicloud.OnMachine(alicloud.Config{Region: "cn-hangzhou"}, "", elsewhere))
		require.ErrorIs(t, err, alicloud.ErrCredentials)
	})
	t.Run("switched off", func(t *testing.T) {
		noEnv(t, "")
		t.Setenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")
		_, err := alicloud.New(alicloud.OnMachine(alicloud.Config{Region: "cn-hangzhou"}, "", dmi))
		require.ErrorIs(t, err, alicloud.ErrCredentials)
	})
}

// Keys of a role are fetched once for many calls, renewed before they end, and
// an outage while the old ones are good is not noticed.
func TestRenewal(t *testing.T) {
	noEnv(t, `{"current":"p","profiles":[
		{"name":"p","mode":"ChainableRamRoleArn","source_profile":"base","ram_role_arn":"acs:ram::1:role/outer","region_id":"cn-hangzhou","external_id":"x-1"},
		{"name":"base","mode":"RamRoleArn","access_key_id":"LTAIbase","access_key_secret":"secret-of-base","ram_role_arn":"acs:ram::1:role/inner","ram_session_name":"ops","expired_seconds":1800}]}`)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var assumed []string
		used := map[string]int{}
		down := ""
		c, err := alicloud.New(alicloud.Config{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			q := r.URL.Query()
			if r.Body != nil {
				body, _ := io.ReadAll(r.Body)
				form, _ := url.ParseQuery(string(body))
				for k, v := range form {
					q[k] = v
				}
			}
			if q.Get("Action") != "AssumeRole" {
				used[q.Get("AccessKeyId")+" "+q.Get("SecurityToken")]++
				return answer(200, emptyInstances)
			}
			if down != "" {
				return refusal(map[bool]int{true: 503, false: 400}[down == "ServiceUnavailable"], down, "down")
			}
			assert.Equal(t, "sts.cn-hangzhou.aliyuncs.com", r.URL.Host)
			assumed = append(assumed, strings.Join([]string{q.Get("AccessKeyId"), q.Get("RoleArn"), q.Get("RoleSessionName"), q.Get("DurationSeconds"), q.Get("ExternalId")}, " "))
			var seconds int
			fmt.Sscan(q.Get("DurationSeconds"), &seconds)
			n := len(assumed)
			return answer(200, fmt.Sprintf(`{"RequestId":"R","Credentials":{"AccessKeyId":"STS.%d","AccessKeySecret":"sts-secret-%d","SecurityToken":"sts-token-%d","Expiration":%q},"AssumedRoleUser":{"Arn":"a"}}`,
				n, n, n, time.Now().Add(time.Duration(seconds)*time.Second).UTC().Format(time.RFC3339)))
		})})
		require.NoError(t, err)
		call := func() error { _, err := c.Instances(t.Context(), alicloud.InstanceQuery{}); return err }
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { assert.NoError(t, call()) })
		}
		wg.Wait()
		assert.Equal(t, []string{"LTAIbase acs:ram::1:role/inner ops 1800 ", "STS.1 acs:ram::1:role/outer upgradectl 3600 x-1"}, assumed)
		assert.Equal(t, map[string]int{"STS.2 sts-token-2": 8}, used)

		time.Sleep(54 * time.Minute)
		require.NoError(t, call())
		assert.Len(t, assumed, 2)
		// Four minutes are left, in which the service that renews them is down,
		// or refuses for flow control.
		time.Sleep(2 * time.Minute)
		for _, down = range []string{"ServiceUnavailable", "Throttling.User"} {
			for range 3 {
				begun := time.Now()
				for range 8 {
					wg.Go(func() { assert.NoError(t, call(), "the old keys are still good") })
				}
				wg.Wait()
				assert.LessOrEqual(t, time.Since(begun), 20*time.Second, "nobody waits long for new ones")
				time.Sleep(time.Second)
			}
		}
		assert.Equal(t, 8+1+2*3*8, used["STS.2 sts-token-2"])
		down = ""
		time.Sleep(2 * time.Minute)
		for n := 0; len(assumed) < 4 && n < 10; n++ {
			require.NoError(t, call())
			time.Sleep(20 * time.Second)
		}
		assert.Len(t, assumed, 4, "both roles were assumed anew")
		require.NoError(t, call())
		assert.Positive(t, used["STS.4 sts-token-4"])
		down = "ServiceUnavailable"
		time.Sleep(2 * time.Hour)
		err = call()
		var e *alicloud.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, alicloud.CodeNoCredentials, e.Code)
		for _, s := range []string{"secret", "sts-token", "STS.", "LTAI"} {
			assert.NotContains(t, err.Error(), s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Instances(ctx, alicloud.InstanceQuery{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestProfiles(t *testing.T) {
	noEnv(t, `{"current":"a","profiles":[
		{"name":"a","mode":"ChainableRamRoleArn","source_profile":"b","ram_role_arn":"r"},
		{"name":"b","mode":"ChainableRamRoleArn","source_profile":"a","ram_role_arn":"r"},
		{"name":"c","mode":"ChainableRamRoleArn","source_profile":"gone","ram_role_arn":"r"},
		{"name":"d","mode":"RamRoleArn","access_key_id":"k","access_key_secret":"s"},
		{"name":"e","mode":"RamRoleArn","ram_role_arn":"r"},
		{"name":"f","mode":"OAuth"}]}`)
	for name, want := range map[string]string{
		"a": "leads back to itself", "c": `source_profile "gone", which is not there`, "d": "no ram_role_arn", "e": "no access key", "f": `mode "OAuth"; supported are AK`,
	} {
		_, err := alicloud.Resolve(alicloud.Config{Profile: name})
		require.ErrorIs(t, err, alicloud.ErrCredentials, name)
		assert.ErrorContains(t, err, want)
	}
}

// The log service is signed by hand: a role's keys have to reach it too.
func TestLogsWithRole(t *testing.T) {
	noEnv(t, "")
	t.Setenv("ALIBABA_CLOUD_ECS_METADATA", "web")
	srv := httptest.NewServer(&imds{role: "web", expires: time.Hour})
	defer srv.Close()
	var auth, token string
	c, err := alicloud.New(alicloud.OnMachine(alicloud.Config{Region: "cn-hangzhou", FirstPause: time.Millisecond, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		auth, token = r.Header.Get("Authorization"), r.Header.Get("X-Acs-Security-Token")
		return &http.Response{StatusCode: 200, Header: http.Header{"X-Log-Progress": {"Complete"}}, Body: io.NopCloser(strings.NewReader(`[{"n":"1"}]`))}, nil
	})}, srv.URL, ""))
	require.NoError(t, err)
	q := alicloud.LogQuery{Project: "p", Store: "s", Query: "* | select count(1) as n limit 10", From: time.Unix(1e9, 0), To: time.Unix(1e9+60, 0)}
	rows, err := c.GetLogs(t.Context(), q)
	require.NoError(t, err)
	assert.Equal(t, []map[string]string{{"n": "1"}}, rows)
	assert.True(t, strings.HasPrefix(auth, "LOG STS.imds1:"), auth)
	assert.Equal(t, "imds-token-1", token)
}

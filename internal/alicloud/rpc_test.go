package alicloud

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rpcClient is a client of a server that answers with handle and keeps what it
// was asked.
func rpcClient(t *testing.T, handle func(n int, w http.ResponseWriter)) (*Client, *[]url.Values) {
	t.Helper()
	var n atomic.Int32
	var seen []url.Values
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		seen = append(seen, r.Form)
		handle(int(n.Add(1)), w)
	}))
	t.Cleanup(s.Close)
	c, err := New(Config{Region: "cn-hangzhou", Endpoint: s.URL, AccessKeyID: "ak", AccessKeySecret: "topsecret", FirstPause: time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return c, &seen
}

func say(status int, body string) func(int, http.ResponseWriter) {
	return func(_ int, w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

type rpcAnswer struct {
	RequestID string
	JobID     string
	Success   bool
	Total     int `json:"TotalCount"`
	Ratio     float64
	Servers   []struct {
		ServerID string
		Port     int
		Weight   *int
		Tags     map[string]string
	}
}

func TestRPCSendsAndDecodes(t *testing.T) {
	c, seen := rpcClient(t, say(200, `{"RequestId":"r","requestid":"no","JobId":"j-1","Success":"true","TotalCount":"4","Ratio":"0.5","New":{"x":1},
		"Servers":[{"ServerId":"i-1","Port":"8080","Weight":100,"Tags":{"a":1}},{"ServerId":7,"Port":"","Weight":null}]}`))
	var out rpcAnswer
	require.NoError(t, c.rpc(context.Background(), "alb", "2020-06-16", again("ListServerGroupServers"), map[string]string{"ServerGroupId": "sgp-1", "Servers.1.ServerId": "a&b=*~ c"}, &out))
	assert.Equal(t, "r", out.RequestID)
	assert.Equal(t, "j-1", out.JobID)
	assert.True(t, out.Success)
	assert.Equal(t, 4, out.Total)
	assert.Equal(t, 0.5, out.Ratio)
	require.Len(t, out.Servers, 2)
	assert.Equal(t, 8080, out.Servers[0].Port)
	assert.Equal(t, 100, *out.Servers[0].Weight)
	assert.Equal(t, map[string]string{"a": "1"}, out.Servers[0].Tags)
	assert.Equal(t, "7", out.Servers[1].ServerID)
	assert.Nil(t, out.Servers[1].Weight)

	q := (*seen)[0]
	for k, v := range map[string]string{"Action": "ListServerGroupServers", "Version": "2020-06-16", "RegionId": "cn-hangzhou", "ServerGroupId": "sgp-1", "Servers.1.ServerId": "a&b=*~ c"} {
		assert.Equal(t, []string{v}, q[k], k)
	}
	assert.NotEmpty(t, q.Get("Signature"))
}

// The retry classes are those of the typed calls.
func TestRPCRetries(t *testing.T) {
	throttledOnce := func(n int, w http.ResponseWriter) {
		if n == 1 {
			say(400, `{"RequestId":"r","Code":"Throttling.User","Message":"slow down"}`)(n, w)
			return
		}
		say(200, `{"RequestId":"r2","JobId":"j"}`)(n, w)
	}
	for _, tt := range []struct {
		name   string
		o      op
		handle func(int, http.ResponseWriter)
		sent   int
		code   string
	}{
		{"throttled", once("A"), throttledOnce, 2, ""},
		{"500 on a write without token", once("A"), say(500, `{"RequestId":"r","Code":"InternalError","Message":"m"}`), 1, "InternalError"},
		{"definitive", again("A"), say(404, `{"RequestId":"r","Code":"ResourceNotFound.ServerGroup","Message":"m"}`), 1, "ResourceNotFound.ServerGroup"},
		{"HTML", once("A"), say(502, `<html>bad gateway</html>`), 1, CodeBadAnswer},
		{"empty 200", once("A"), say(200, ``), 1, CodeBadAnswer},
		{"numeric code", once("A"), say(400, `{"RequestId":"r","Code":1001,"Message":"m"}`), 1, "1001"},
		{"another shape", once("A"), say(200, `{"RequestId":"r","Servers":{"Server":[]}}`), 1, CodeBadAnswer},
		{"a weight that is none", once("A"), say(200, `{"RequestId":"r","Servers":[{"Weight":"much"}]}`), 1, CodeBadAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, seen := rpcClient(t, tt.handle)
			var out rpcAnswer
			err := c.rpc(context.Background(), "nlb", "2022-04-30", tt.o, nil, &out)
			assert.Len(t, *seen, tt.sent)
			if tt.code == "" {
				require.NoError(t, err)
				assert.Equal(t, "j", out.JobID)
				return
			}
			var e *Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, tt.code, e.Code)
			assert.NotContains(t, err.Error(), "topsecret")
		})
	}
}

func TestRPCCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := New(Config{Region: "cn-hangzhou", AccessKeyID: "ak", AccessKeySecret: "topsecret", Transport: rtFunc(func(r *http.Request) (*http.Response, error) {
		cancel()
		<-r.Context().Done()
		return nil, r.Context().Err()
	})})
	require.NoError(t, err)
	err = c.rpc(ctx, "alb", "2020-06-16", read("ListListeners"), nil, nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, strings.Contains(err.Error(), "Signature"))
}

type rtFunc func(*http.Request) (*http.Response, error)

func (f rtFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRPCDomain(t *testing.T) {
	for _, tt := range []struct{ product, region, want string }{
		{"alb", "cn-hangzhou", "alb.cn-hangzhou.aliyuncs.com"},
		{"nlb", "cn-shanghai", "nlb.cn-shanghai.aliyuncs.com"},
		{"vpc", "cn-hangzhou", "vpc.aliyuncs.com"},
		{"vpc", "cn-chengdu", "vpc.cn-chengdu.aliyuncs.com"},
		{"alidns", "cn-hangzhou", "alidns.aliyuncs.com"},
		{"cms", "cn-hangzhou", "metrics.cn-hangzhou.aliyuncs.com"},
		{"dds", "cn-hangzhou", "mongodb.aliyuncs.com"},
		{"dds", "cn-chengdu", "mongodb.cn-chengdu.aliyuncs.com"},
	} {
		var host string
		c, err := New(Config{Region: tt.region, AccessKeyID: "ak", AccessKeySecret: "s", Transport: rtFunc(func(r *http.Request) (*http.Response, error) {
			host = r.URL.Scheme + "://" + r.URL.Host
			return nil, errors.New("no")
		})})
		require.NoError(t, err)
		require.Error(t, c.rpc(context.Background(), tt.product, "2020-01-01", once("A"), nil, nil))
		assert.Equal(t, "https://"+tt.want, host)
	}
}

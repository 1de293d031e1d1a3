package foreign

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	sls "github.com/aliyun/aliyun-log-go-sdk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// logs is a client of the log service: the project is the first label of the
// host, and every host is the simulator.
func (s *simulator) logs(secret string, version sls.AuthVersionType) sls.ClientInterface {
	c := sls.CreateNormalInterface("http://"+s.Region+".log.aliyuncs.com", s.Key, secret, "")
	c.SetHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.Host)
	}}})
	c.SetRetryTimeout(time.Second)
	c.SetAuthVersion(version)
	c.SetRegion(s.Region)
	return c
}

func logCode(err error) string {
	if e := new(sls.Error); errors.As(err, &e) {
		return e.Code
	}
	if e := new(sls.BadResponseError); errors.As(err, &e) {
		return e.RespBody
	}
	return ""
}

// TestLogSDK reads a log with both kinds of signatures of the log service.
func TestLogSDK(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]sls.AuthVersionType{"v1": sls.AuthV1, "v4": sls.AuthV4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			c := s.logs(s.Secret, version)
			from, to := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Minute).Unix()
			var all *sls.GetLogsResponse
			wait(t, "rows", func() bool {
				var err error
				all, err = c.GetLogs(s.Stock.LogProject, s.Stock.LogStore, "", from, to, "", 100, 0, false)
				require.NoError(t, err)
				return all.Count == 3
			})
			assert.Equal(t, "Complete", all.Progress)
			bad, err := c.GetLogsV3(s.Stock.LogProject, s.Stock.LogStore, &sls.GetLogRequest{From: from, To: to, Query: "status: 502", Lines: 10})
			require.NoError(t, err)
			require.Len(t, bad.Logs, 1)
			assert.Equal(t, "10.0.0.11:8080", bad.Logs[0]["upstream_addr"])
			counted, err := c.GetLogsV2(s.Stock.LogProject, s.Stock.LogStore, &sls.GetLogRequest{From: from, To: to,
				Query: "* | select upstream_addr, count(1) as n group by upstream_addr limit 10"})
			require.NoError(t, err)
			rows := map[string]string{}
			for _, r := range counted.Logs {
				rows[r["upstream_addr"]] = r["n"]
			}
			assert.Equal(t, map[string]string{"10.0.0.10:8080": "2", "10.0.0.11:8080": "1"}, rows)
			_, err = c.GetLogs(s.Stock.LogProject, "none", "", from, to, "", 1, 0, false)
			assert.Equal(t, "LogStoreNotExist", logCode(err))
			s.end()

			wrong := serve(t)
			_, err = wrong.logs("another", version).GetLogs(s.Stock.LogProject, s.Stock.LogStore, "", from, to, "", 1, 0, false)
			assert.Equal(t, "SignatureNotMatch", logCode(err))
			wrong.stop()
			assert.Empty(t, wrong.last.Calls)
		})
	}
}

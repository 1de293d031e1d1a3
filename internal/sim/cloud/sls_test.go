package cloud

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	logKey    = "LTAIlogs"
	logSecret = "secretOfTheLogTests"
)

// logs runs f with a cloud that has a balancer's log store.
func logs(t *testing.T, f func(t *testing.T, c *Cloud)) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{AccessKeyID: logKey, AccessKeySecret: logSecret})
		defer c.Close()
		c.SetAccessLog("lb-1", "ops-log", "slb")
		f(t, c)
	})
}

// getLogsV1 asks in the old form, signed with version 1.
func getLogsV1(query url.Values, change func(*http.Request)) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "https://ops-log.cn-hangzhou.log.aliyuncs.com/logstores/slb?"+query.Encode(), nil)
	h := r.Header
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("x-log-apiversion", "0.6.0")
	h.Set("x-log-signaturemethod", "hmac-sha1")
	h.Set("x-log-bodyrawsize", "0")
	if change != nil {
		change(r)
	}
	var pairs []string
	for _, k := range []string{"from", "line", "offset", "query", "reverse", "to", "topic", "type"} {
		if query.Has(k) {
			pairs = append(pairs, k+"="+query.Get(k))
		}
	}
	mac := hmac.New(sha1.New, []byte(logSecret))
	fmt.Fprintf(mac, "GET\n\n\n%s\nx-log-apiversion:0.6.0\nx-log-bodyrawsize:0\nx-log-signaturemethod:hmac-sha1\n%s?%s", h.Get("Date"), r.URL.Path, strings.Join(pairs, "&"))
	if h.Get("Authorization") == "" {
		h.Set("Authorization", "LOG "+logKey+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return r
}

// getLogsV4 asks in the new form, signed with version 4.
func getLogsV4(body string) *http.Request {
	r, _ := http.NewRequest(http.MethodPost, "https://ops-log.cn-hangzhou.log.aliyuncs.com/logstores/slb/logs", strings.NewReader(body))
	sum := sha256.Sum256([]byte(body))
	payload := hex.EncodeToString(sum[:])
	digest := md5.Sum([]byte(body))
	date := time.Now().UTC().Format("20060102T150405Z")
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Content-MD5": strings.ToUpper(hex.EncodeToString(digest[:])), "x-log-apiversion": "0.6.0",
		"x-log-bodyrawsize": fmt.Sprint(len(body)), "x-log-content-sha256": payload, "x-log-date": date,
	} {
		r.Header.Set(k, v)
	}
	canonical := "POST\n/logstores/slb/logs\n\ncontent-type:application/json\nhost:ops-log.cn-hangzhou.log.aliyuncs.com\nx-log-apiversion:0.6.0\nx-log-bodyrawsize:" +
		fmt.Sprint(len(body)) + "\nx-log-content-sha256:" + payload + "\nx-log-date:" + date +
		"\n\ncontent-type;host;x-log-apiversion;x-log-bodyrawsize;x-log-content-sha256;x-log-date\n" + payload
	key := []byte("aliyun_v4" + logSecret)
	scope := date[:8] + "/cn-hangzhou/sls/aliyun_v4_request"
	hashed := sha256.Sum256([]byte(canonical))
	for _, part := range append(strings.Split(scope, "/"), "SLS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hex.EncodeToString(hashed[:])) {
		m := hmac.New(sha256.New, key)
		io.WriteString(m, part)
		key = m.Sum(nil)
	}
	r.Header.Set("Authorization", "SLS4-HMAC-SHA256 Credential="+logKey+"/"+scope+",Signature="+hex.EncodeToString(key))
	return r
}

// ask sends a request and returns what came back.
func ask(t *testing.T, c *Cloud, r *http.Request) (status int, h http.Header, body []byte) {
	t.Helper()
	resp, err := c.Transport().RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, b
}

func hour() url.Values {
	now := time.Now().Unix()
	return url.Values{"type": {"log"}, "from": {fmt.Sprint(now - 3600)}, "to": {fmt.Sprint(now + 60)}}
}

// query asks in both forms, and sees that they agree.
func query(t *testing.T, c *Cloud, text string) ([]map[string]string, string) {
	t.Helper()
	q := hour()
	q.Set("query", text)
	status, h, body := ask(t, c, getLogsV1(q, nil))
	var e struct{ ErrorCode string }
	if status != 200 {
		require.NoError(t, json.Unmarshal(body, &e))
		return nil, e.ErrorCode
	}
	var rows []map[string]string
	require.NoError(t, json.Unmarshal(body, &rows))
	assert.Equal(t, "Complete", h.Get("x-log-progress"))
	assert.Equal(t, fmt.Sprint(len(rows)), h.Get("x-log-count"))

	b, _ := json.Marshal(map[string]any{"from": json.Number(q.Get("from")), "to": json.Number(q.Get("to")), "query": text, "line": 0, "offset": 0, "reverse": false, "powerSql": false})
	if !strings.Contains(text, "|") {
		b = bytes.Replace(b, []byte(`"line":0`), []byte(`"line":100`), 1)
	}
	status, _, body = ask(t, c, getLogsV4(string(b)))
	require.Equalf(t, 200, status, "%s", body)
	var answer struct {
		Meta struct {
			Progress string
			Count    int
			HasSQL   bool
		}
		Data []map[string]string
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	assert.Equal(t, rows, answer.Data)
	assert.Equal(t, len(rows), answer.Meta.Count)
	assert.Equal(t, strings.Contains(text, "|"), answer.Meta.HasSQL)
	return rows, ""
}

func TestLogQueries(t *testing.T) {
	logs(t, func(t *testing.T, c *Cloud) {
		for n := range 250 {
			c.LogAccess(AccessLog{LoadBalancerID: "lb-1", Port: 80 + n%2, Status: 200 + n%4*100, URI: fmt.Sprintf("/p/%d", n), UpstreamAddr: fmt.Sprintf("172.31.0.%d:8080", 5+45*(n%2)), UpstreamStatus: "200", Seconds: float64(n) / 100})
		}
		c.LogAccess(AccessLog{LoadBalancerID: "lb-1", Port: 80, Status: 200, UpstreamAddr: "172.31.0.50:8080, 172.31.0.5:8080", UpstreamStatus: "502, 200"})
		c.LogAccess(AccessLog{LoadBalancerID: "lb-2", Port: 80, Status: 200, UpstreamAddr: "172.31.0.5:8080"}) // has no log
		rows, _ := query(t, c, "*")
		assert.Empty(t, rows, "rows show only after the delay")
		time.Sleep(4 * time.Second)

		count := func(search string) int {
			rows, code := query(t, c, search+" | select count(1) as n")
			require.Emptyf(t, code, "%s", search)
			require.Len(t, rows, 1)
			var n int
			fmt.Sscan(rows[0]["n"], &n)
			return n
		}
		for search, want := range map[string]int{
			"*": 251, `slbid: "lb-1"`: 251, "slbid: lb-2": 0, "status: 500": 62, "status >= 400": 124, "status in [200 300]": 127,
			"status in (200 300]": 63, "status = 200 and slb_vport = 80": 64, "not status: 200": 187, "status: 200 or status: 300": 127,
			"__topic__: slb_layer7_access_log and (status: 300 or status: 500)": 125, "upstream_addr: 172.31.0.5": 126, "upstream_addr: 172.31.0.5*": 251,
			"request_uri: p": 250, "request_time > 2.4": 9,
		} {
			assert.Equalf(t, want, count(search), "%s", search)
		}
		for sql, want := range map[string]int{
			`select slb_vport, count(*) as n group by slb_vport`: 2, `select upstream_addr, count(1) as n where regexp_like(upstream_addr, '(^|[ ,])172\.31\.0\.5:') group by upstream_addr limit 1000`: 2,
			`select request_uri`: 100, `select request_uri limit 251`: 251, `select * from log limit 3`: 3, `select status, count_if(slb_vport = 80) as n group by status order by n desc limit 2`: 2,
			`select count(1) as n where status = 999`: 1, `select slb_vport where try_cast(upstream_status as bigint) >= 500`: 0,
		} {
			rows, code := query(t, c, "* | "+sql)
			require.Emptyf(t, code, "%s", sql)
			assert.Lenf(t, rows, want, "%s", sql)
		}
		rows, _ = query(t, c, "* | select status, count_if(slb_vport = 80) as n group by status order by n desc limit 2")
		assert.Equal(t, []map[string]string{{"status": "200", "n": "64"}, {"status": "400", "n": "62"}}, rows)
		rows, _ = query(t, c, "*")
		assert.Len(t, rows, 100, "a search gives 100 rows")
		assert.Equal(t, "/p/0", rows[0]["request_uri"])

		assert.Empty(t, c.Refused())
		for _, bad := range []string{
			"upstream_addr=172.31.0.5*", "status: ", "nofield: 1", "status: *5", "(status: 200", "status in [a b]", "* | insert into x", "* | select max(status)",
			"* | select nofield", "* | select status, count(1) as n", "* | select count(distinct client_ip)", "* | select status where status = '200'",
			"* | select status where regexp_like(upstream_addr, '(')", "* | select status limit x", "* | select status order by other", "* | select status; drop", `* | select "status"`,
			"* | select status where upstream_addr = 5", "status: 200 status: 300",
		} {
			_, code := query(t, c, bad)
			assert.Equalf(t, "ParameterInvalid", code, "%s", bad)
		}
		assert.Positive(t, c.Counts()["sls:GetLogs"])
	})
}

func TestLogProgress(t *testing.T) {
	logs(t, func(t *testing.T, c *Cloud) {
		for range 10 {
			c.LogAccess(AccessLog{LoadBalancerID: "lb-1", Port: 80, Status: 200, UpstreamAddr: "172.31.0.5:8080"})
		}
		c.SetLogs(Logs{Incomplete: 2})
		time.Sleep(5 * time.Second)
		q := hour()
		q.Set("query", "* | select count(1) as n")
		for _, want := range []string{"Incomplete", "Incomplete", "Complete", "Incomplete"} {
			_, h, body := ask(t, c, getLogsV1(q, nil))
			assert.Equal(t, want, h.Get("x-log-progress"))
			assert.Equal(t, want == "Complete", strings.Contains(string(body), `"10"`), "%s", body)
		}
	})
}

func TestLogRefusals(t *testing.T) {
	logs(t, func(t *testing.T, c *Cloud) {
		for what, change := range map[string]struct {
			code   string
			change func(*http.Request)
			query  func(url.Values)
		}{
			"another key":     {"Unauthorized", func(r *http.Request) { r.Header.Set("Authorization", "LOG other:x") }, nil},
			"wrong signature": {"SignatureNotMatch", func(r *http.Request) { r.Header.Set("Authorization", "LOG "+logKey+":AAAA") }, nil},
			"no signature":    {"Unauthorized", func(r *http.Request) { r.Header.Set("Authorization", "Basic x") }, nil},
			"skew": {"RequestTimeTooSkewed", func(r *http.Request) {
				r.Header.Set("Date", time.Now().Add(-16*time.Minute).UTC().Format(http.TimeFormat))
			}, nil},
			"no version":     {"InvalidAPIVersion", func(r *http.Request) { r.Header.Del("x-log-apiversion") }, nil},
			"another region": {"ProjectNotExist", func(r *http.Request) { r.Host = "ops-log.cn-beijing.log.aliyuncs.com" }, nil},
			"no project":     {"ProjectNotExist", func(r *http.Request) { r.Host = "other.cn-hangzhou.log.aliyuncs.com" }, nil},
			"no store":       {"LogStoreNotExist", func(r *http.Request) { r.URL.Path = "/logstores/other" }, nil},
			"empty window":   {"ParameterInvalid", nil, func(q url.Values) { q.Set("to", q.Get("from")) }},
			"no from":        {"ParameterInvalid", nil, func(q url.Values) { q.Del("from") }},
			"no number":      {"ParameterInvalid", nil, func(q url.Values) { q.Set("line", "x") }},
			"too many lines": {"ParameterInvalid", nil, func(q url.Values) { q.Set("line", "101") }},
			"lines and SQL": {"ParameterInvalid", nil, func(q url.Values) {
				q.Set("line", "10")
				q.Set("query", "* | select count(1) as n")
			}},
			"histogram": {"NotSupported", nil, func(q url.Values) { q.Set("type", "histogram") }},
		} {
			q := hour()
			q.Set("query", "*")
			if change.query != nil {
				change.query(q)
			}
			status, _, body := ask(t, c, getLogsV1(q, change.change))
			var e struct{ ErrorCode, ErrorMessage string }
			require.NoErrorf(t, json.Unmarshal(body, &e), "%s", body)
			assert.Equalf(t, change.code, e.ErrorCode, "%s: %s", what, body)
			assert.GreaterOrEqual(t, status, 400)
			assert.NotContains(t, e.ErrorMessage, logSecret)
		}
		good := `{"from":1,"to":2,"query":"*"}`
		r := getLogsV4(good)
		r.Body = io.NopCloser(strings.NewReader(`{"from":1,"to":9,"query":"*"}`))
		_, _, body := ask(t, c, r)
		assert.Contains(t, string(body), "PostBodyInvalid", "a body that was changed")
		_, _, body = ask(t, c, getLogsV4(`{"from":1,"to":2,"nosuch":1}`))
		assert.Contains(t, string(body), "ParameterInvalid")
		c.Deny("sls:GetLogs")
		_, _, body = ask(t, c, getLogsV4(good))
		assert.Contains(t, string(body), "Unauthorized")
		assert.Contains(t, string(body), "log:GetLogStoreLogs")
	})
}

// FuzzLogQuery: no query makes the log service panic, and a search that is taken
// finds no more than there is.
func FuzzLogQuery(f *testing.F) {
	for _, s := range []string{"*", `slbid: "lb-1" and status: 200 | select slb_vport, count(1) as n group by slb_vport limit 5`, "status in [200 300)", "not (a or b)", "* | select count_if(status >= 500)", "|", "* | select ' ''' limit 1"} {
		f.Add(s)
	}
	row := &logRow{AccessLog: AccessLog{LoadBalancerID: "lb-1", Port: 80, Status: 200, UpstreamAddr: "172.31.0.5:80"}}
	f.Fuzz(func(t *testing.T, text string) {
		search, sql, has := strings.Cut(text, "|")
		if m, err := parseSearch(strings.TrimSpace(search)); err == nil {
			m(row)
		}
		if q, err := parseSelect(strings.TrimSpace(sql)); has && err == nil {
			rows, keys := q.run([]*logRow{row, row})
			if len(rows) > 2 || len(keys) == 0 || len(rows) > cmp.Or(q.limit, 100) {
				t.Fatalf("%q: %d rows of 2", text, len(rows))
			}
		}
	})
}

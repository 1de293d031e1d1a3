package cloud

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5" // the log service names the digest of a body with it
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An AccessLog is one row of a layer-7 access log: one finished request.
type AccessLog struct {
	Time           time.Time // when the request ended; zero: now
	LoadBalancerID string
	ALB            bool // an application balancer's row: other topic, and app_lb_id in the place of slbid
	Port           int  // of the listener
	VIP            string
	ClientIP       string
	Host           string // header Host
	Method, URI    string
	UserAgent      string
	Status         int // as the client got it
	// UpstreamAddr is "ip:port" of the member that was asked, and UpstreamStatus
	// what it said; separated by ", " when several were tried in turn, "-" when
	// none was.
	UpstreamAddr, UpstreamStatus string
	Seconds                      float64 // the request took
}

// Logs says how the log service behaves.
type Logs struct {
	// Delay passes between a request and the moment from which a query finds its
	// row; divided by Speed. 0 means 3 s.
	Delay time.Duration
	// Incomplete is how many times in a row each query gets a partial result,
	// marked as such, before the whole one.
	Incomplete int
}

// maxLogs bounds the rows of one store, by dropping the oldest.
const maxLogs = 400_000

type logState struct {
	Logs
	projects map[string]map[string]*logStore
	of       map[string]logTarget // by balancer
	asked    map[string]int       // partial answers given, by query
}

type logTarget struct{ project, store string }

type logStore struct{ rows []logRow }

type logRow struct {
	AccessLog
	visible time.Time
}

// SetLogs changes how the log service behaves from now on.
func (c *Cloud) SetLogs(l Logs) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logs.Logs = l
}

// AddLogStore makes an empty log store.
func (c *Cloud) AddLogStore(project, store string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLogStore(project, store)
}

func (c *Cloud) addLogStore(project, store string) {
	if c.logs.projects == nil {
		c.logs.projects = map[string]map[string]*logStore{}
		c.logs.of = map[string]logTarget{}
		c.logs.asked = map[string]int{}
	}
	if c.logs.projects[project] == nil {
		c.logs.projects[project] = map[string]*logStore{}
	}
	if c.logs.projects[project][store] == nil {
		c.logs.projects[project][store] = &logStore{}
	}
}

// SetAccessLog makes a balancer (CLB or ALB) write its access log to a log
// store, which is made if need be; with an empty store it stops.
func (c *Cloud) SetAccessLog(loadBalancerID, project, store string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if store == "" {
		delete(c.logs.of, loadBalancerID)
		return
	}
	c.addLogStore(project, store)
	c.logs.of[loadBalancerID] = logTarget{project, store}
}

// AccessLogOf tells where a balancer writes its access log; ok is false when it
// writes none.
func (c *Cloud) AccessLogOf(loadBalancerID string) (project, store string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.logs.of[loadBalancerID]
	return t.project, t.store, ok
}

// LogAccess puts a row into the log store of its balancer. A balancer that does
// not log drops it.
func (c *Cloud) LogAccess(row AccessLog) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.logs.of[row.LoadBalancerID]
	if !ok {
		return
	}
	now := time.Now()
	if row.Time.IsZero() {
		row.Time = now
	}
	s := c.logs.projects[t.project][t.store]
	if len(s.rows) >= maxLogs {
		s.rows = slices.Delete(s.rows, 0, maxLogs/4)
	}
	s.rows = append(s.rows, logRow{row, now.Add(c.scaled(cmp.Or(c.logs.Delay, 3*time.Second)))})
}

// numericLogFields have an index of numbers; the others are texts.
var numericLogFields = map[string]bool{
	"status": true, "slb_vport": true, "request_time": true, "request_length": true, "body_bytes_sent": true,
	"__time__": true, "upstream_response_time": true,
}

// logFields are the fields of a row, in the order in which "select *" and the
// search show them.
var logFields = []string{
	"__source__", "__time__", "__topic__", "body_bytes_sent", "client_ip", "host", "http_host", "http_user_agent",
	"http_x_forwarded_for", "request_length", "request_method", "request_time", "request_uri", "scheme", "slb_vport",
	"status", "time", "upstream_addr", "upstream_response_time", "upstream_status", "vip_addr", "slbid", "app_lb_id",
}

// field returns a field of a row; ok is false for one that it does not have.
func (r *logRow) field(name string) (v string, ok bool) {
	switch name {
	case "__source__":
		return "log_service", true
	case "__time__":
		return strconv.FormatInt(r.Time.Unix(), 10), true
	case "__topic__":
		if r.ALB {
			return "alb_layer7_access_log", true
		}
		return "slb_layer7_access_log", true
	case "slbid":
		return r.LoadBalancerID, !r.ALB
	case "app_lb_id":
		return r.LoadBalancerID, r.ALB
	case "client_ip":
		return r.ClientIP, true
	case "host", "http_host":
		return cmp.Or(r.Host, "-"), true
	case "http_user_agent":
		return cmp.Or(r.UserAgent, "-"), true
	case "http_x_forwarded_for":
		return "-", true
	case "request_length", "body_bytes_sent":
		return "0", true
	case "request_method":
		return cmp.Or(r.Method, "GET"), true
	case "request_uri":
		return cmp.Or(r.URI, "/"), true
	case "request_time", "upstream_response_time":
		return strconv.FormatFloat(r.Seconds, 'f', 3, 64), true
	case "scheme":
		if r.Port == 443 {
			return "https", true
		}
		return "http", true
	case "slb_vport":
		return strconv.Itoa(r.Port), true
	case "status":
		return strconv.Itoa(r.Status), true
	case "time":
		return r.Time.UTC().Format(time.RFC3339), true
	case "upstream_addr":
		return cmp.Or(r.UpstreamAddr, "-"), true
	case "upstream_status":
		return cmp.Or(r.UpstreamStatus, "-"), true
	case "vip_addr":
		return r.VIP, true
	}
	return "", false
}

// A logRequest is a GetLogs request in either of its forms.
type logRequest struct {
	project, store string
	post           bool

	From    *int64 `json:"from"`
	To      *int64 `json:"to"`
	Topic   string `json:"topic"`
	Query   string `json:"query"`
	Line    *int64 `json:"line"`
	Offset  int64  `json:"offset"`
	Reverse bool   `json:"reverse"`

	PowerSQL  bool  `json:"powerSql"`
	FromNs    int64 `json:"fromNs"`
	ToNs      int64 `json:"toNs"`
	Highlight bool  `json:"highlight"`

	// What the official client sends with its zero values.
	Session, IsAccurate, Shard, ForwardTo any
}

// getLogs names the one action of the log service for faults and counts.
var getLogs = &action{name: "GetLogs", product: "sls"}

// serveSLS answers the requests of the Simple Log Service: GetLogs in both its
// forms, GET /logstores/STORE and POST /logstores/STORE/logs. The project is
// the first label of the host; a host that names none (an address) finds a
// store that exists in one project only.
func (c *Cloud) serveSLS(w http.ResponseWriter, r *http.Request, requestID string) {
	w.Header().Set("X-Log-Requestid", requestID)
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var body []byte
	var err error
	if r.Body != nil {
		body, err = io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	}
	var e *apiError
	if err != nil || len(body) > maxBody {
		e = fail(400, "PostBodyInvalid", "The body cannot be read.")
	}
	if e == nil {
		e = c.authenticateSLS(r, body)
	}
	var q *logRequest
	if e == nil {
		q, e = c.parseSLS(r, body)
	}
	if e == nil && c.logsDenied() {
		e = fail(403, "Unauthorized", "denied by sts or ram, action: log:GetLogStoreLogs, resource: acs:log:%s:*:project/%s/logstore/%s", c.cfg.Region, q.project, q.store)
	}
	if e == nil {
		if f := c.takeFault(getLogs, false); f != nil {
			if f.Kind == FaultError {
				c.wait(r.Context(), f.Delay)
				e = fail(cmp.Or(f.Status, 500), cmp.Or(f.Code, "InternalServerError"), "%s", cmp.Or(f.Message, "This fault was injected."))
			} else {
				c.answerFault(w, r, envelope{requestID: requestID}, *f)
				return
			}
		}
	}
	var res *logResult
	if e == nil {
		res, e = c.runSLS(q)
	}
	c.wait(r.Context(), c.scaled(c.cfg.Latency))
	if e != nil {
		if e.refused {
			c.record(fmt.Sprintf("GetLogs: %s: %s", e.code, e.message))
		}
		writeLogJSON(w, e.status, obj{"errorCode": e.code, "errorMessage": e.message})
		return
	}
	c.mu.Lock()
	c.counts[getLogs.key()]++
	c.mu.Unlock()
	progress := "Complete"
	if res.partial {
		progress = "Incomplete"
	}
	if q.post {
		writeLogJSON(w, 200, obj{"meta": obj{
			"progress": progress, "count": len(res.rows), "processedRows": res.processed, "processedBytes": 0,
			"elapsedMillisecond": 1, "hasSQL": res.sql != "", "whereQuery": res.search, "aggQuery": res.sql,
			"keys": res.keys, "isAccurate": true, "telementryType": "", "powerSql": q.PowerSQL, "limited": 0,
			"cpuSec": 0, "cpuCores": 0, "insertedSQL": "", "terms": []obj{}, "columnTypes": []string{},
		}, "data": res.rows})
		return
	}
	for k, v := range map[string]string{
		"Progress": progress, "Count": strconv.Itoa(len(res.rows)), "Processed-Rows": strconv.Itoa(res.processed),
		"Elapsed-Millisecond": "1", "Has-Sql": strconv.FormatBool(res.sql != ""),
		"Where-Query": res.search, "Agg-Query": res.sql,
	} {
		w.Header().Set("X-Log-"+k, v)
	}
	writeLogJSON(w, 200, res.rows)
}

func (c *Cloud) logsDenied() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.denied["sls:GetLogs"] || c.denied["log:GetLogStoreLogs"]
}

func writeLogJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: an answer that is not JSON: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// parseSLS reads a request.
func (c *Cloud) parseSLS(r *http.Request, body []byte) (*logRequest, *apiError) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	q := &logRequest{}
	invalid := func(format string, args ...any) (*logRequest, *apiError) {
		return nil, refuse(400, "ParameterInvalid", format, args...)
	}
	switch {
	case r.Method == http.MethodGet && len(path) == 2 && path[0] == "logstores":
		p, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return invalid("The query string cannot be parsed.")
		}
		if p.Get("type") != "log" {
			return nil, refuse(501, "NotSupported", "The type %q is not simulated: log.", p.Get("type"))
		}
		number := func(name string) (*int64, *apiError) {
			if !p.Has(name) {
				return nil, nil
			}
			n, err := strconv.ParseInt(p.Get(name), 10, 64)
			if err != nil {
				return nil, refuse(400, "ParameterInvalid", "%s is not a number: %q.", name, p.Get(name))
			}
			return &n, nil
		}
		var e *apiError
		var offset *int64
		for name, to := range map[string]**int64{"from": &q.From, "to": &q.To, "line": &q.Line, "offset": &offset} {
			if *to, e = number(name); e != nil {
				return nil, e
			}
		}
		if offset != nil {
			q.Offset = *offset
		}
		q.Topic, q.Query = p.Get("topic"), p.Get("query")
		for _, name := range []string{"reverse", "powerSql"} {
			if v := p.Get(name); v != "" && v != "true" && v != "false" {
				return invalid("%s is neither true nor false: %q.", name, v)
			}
		}
		q.Reverse, q.PowerSQL = p.Get("reverse") == "true", p.Get("powerSql") == "true"
		for name, v := range p {
			if !slices.Contains(strings.Fields("type from to topic query line offset reverse powerSql"), name) || len(v) > 1 {
				return invalid("There is no parameter %q, or it stands there twice.", name)
			}
		}
	case r.Method == http.MethodPost && len(path) == 3 && path[0] == "logstores" && path[2] == "logs":
		q.post = true
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.DisallowUnknownFields()
		if err := d.Decode(q); err != nil {
			return invalid("The body is not the JSON of a query: %v.", err)
		}
	default:
		return nil, refuse(501, "NotSupported", "%s %s is not simulated.", r.Method, r.URL.Path)
	}
	q.store = path[1]
	if q.From == nil || q.To == nil {
		return invalid("The parameters from and to are required.")
	}
	if *q.From >= *q.To {
		return invalid("from %d must be less than to %d.", *q.From, *q.To)
	}
	if n := q.Line; n != nil && (*n < 0 || *n > 100) || q.Offset < 0 {
		return invalid("line is 0 to 100, and offset not negative.")
	}
	return c.findStore(r, q)
}

// findStore fills in the project.
func (c *Cloud) findStore(r *http.Request, q *logRequest) (*logRequest, *apiError) {
	host := cmp.Or(r.Host, r.URL.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first, rest, _ := strings.Cut(host, ".")
	q.project = first
	if domain, ok := strings.CutSuffix(rest, ".log.aliyuncs.com"); ok {
		if region := strings.TrimSuffix(strings.TrimSuffix(domain, "-intranet"), "-share"); region != c.cfg.Region {
			return nil, fail(404, "ProjectNotExist", "The Project does not exist : %s", first)
		}
	} else if c.logs.projects[first] == nil {
		var in []string
		for p, stores := range c.logs.projects {
			if stores[q.store] != nil {
				in = append(in, p)
			}
		}
		if len(in) == 1 {
			q.project = in[0]
		}
	}
	switch {
	case c.logs.projects[q.project] == nil:
		return nil, fail(404, "ProjectNotExist", "The Project does not exist : %s", q.project)
	case c.logs.projects[q.project][q.store] == nil:
		return nil, fail(404, "LogStoreNotExist", "logstore %s does not exist", q.store)
	}
	return q, nil
}

// A logResult is what a query found.
type logResult struct {
	rows        []map[string]string
	keys        []string
	processed   int
	search, sql string
	partial     bool
}

// runSLS runs a query on the rows that are visible now.
func (c *Cloud) runSLS(q *logRequest) (*logResult, *apiError) {
	search, sql, hasSQL := strings.Cut(q.Query, "|")
	res := &logResult{search: strings.TrimSpace(search), sql: strings.TrimSpace(sql), rows: []map[string]string{}}
	match, err := parseSearch(res.search)
	if err != nil {
		return nil, fail(400, "ParameterInvalid", "ErrorType:SyntaxError.ErrorMessage:%v", err)
	}
	var sel *selectStatement
	if hasSQL {
		if sel, err = parseSelect(res.sql); err != nil {
			return nil, refuse(400, "ParameterInvalid", "ErrorType:SyntaxError.ErrorMessage:%v", err)
		}
		if q.Line != nil && *q.Line != 0 || q.Offset != 0 {
			return nil, refuse(400, "ParameterInvalid", "line and offset must be 0 in a query with SQL, whose LIMIT pages.")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var found []*logRow
	s := c.logs.projects[q.project][q.store]
	for i := range s.rows {
		r := &s.rows[i]
		if at := r.Time.Unix(); at < *q.From || at >= *q.To || r.visible.After(now) {
			continue
		}
		res.processed++
		if topic, _ := r.field("__topic__"); q.Topic != "" && topic != q.Topic {
			continue
		}
		if match(r) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b *logRow) int { return a.Time.Compare(b.Time) })
	if c.logs.Incomplete > 0 {
		key := fmt.Sprintf("%s/%s %d %d %s", q.project, q.store, *q.From, *q.To, q.Query)
		if c.logs.asked[key] < c.logs.Incomplete {
			c.logs.asked[key]++
			res.partial = true
			found = found[:len(found)/2]
		} else {
			delete(c.logs.asked, key)
		}
	}
	if sel != nil {
		res.rows, res.keys = sel.run(found)
		return res, nil
	}
	if q.Reverse {
		slices.Reverse(found)
	}
	line := int64(100)
	if q.Line != nil {
		line = *q.Line
	}
	from := min(q.Offset, int64(len(found)))
	for _, r := range found[from:min(from+line, int64(len(found)))] {
		res.rows = append(res.rows, r.all())
	}
	return res, nil
}

func (r *logRow) all() map[string]string {
	m := map[string]string{}
	for _, name := range logFields {
		if v, ok := r.field(name); ok {
			m[name] = v
		}
	}
	return m
}

// authenticateSLS checks both versions of the log service's signature:
//
//	Authorization: LOG ID:BASE64
//	Authorization: SLS4-HMAC-SHA256 Credential=ID/DATE/REGION/sls/aliyun_v4_request,Signature=HEX
func (c *Cloud) authenticateSLS(r *http.Request, body []byte) *apiError {
	auth := r.Header.Get("Authorization")
	if v := r.Header.Get("X-Log-Apiversion"); v != "0.6.0" && v != "0.4.0" {
		return refuse(400, "InvalidAPIVersion", "The header x-log-apiversion is %q, not 0.6.0.", v)
	}
	for name, values := range r.Header {
		if l := strings.ToLower(name); (strings.HasPrefix(l, "x-log-") || strings.HasPrefix(l, "x-acs-")) && len(values) > 1 {
			return refuse(400, "ParameterInvalid", "The header %s stands there twice.", l)
		}
	}
	if given := r.Header.Get("Content-Md5"); given != "" {
		if sum := md5.Sum(body); !strings.EqualFold(given, hex.EncodeToString(sum[:])) {
			return refuse(400, "PostBodyInvalid", "The header Content-MD5 is not that of the body.")
		}
	}
	var key, want, given string
	var at time.Time
	var err error
	switch version, rest, _ := strings.Cut(auth, " "); version {
	case "LOG":
		key, given, _ = strings.Cut(rest, ":")
		want = c.signLOG(r)
		date := cmp.Or(r.Header.Get("X-Log-Date"), r.Header.Get("Date"))
		if at, err = http.ParseTime(date); err != nil {
			return refuse(400, "InvalidDateFormat", "The header Date must be of the form RFC 822: %q.", date)
		}
		if m := r.Header.Get("X-Log-Signaturemethod"); m != "hmac-sha1" {
			return refuse(400, "InvalidSignatureMethod", "The header x-log-signaturemethod is %q, not hmac-sha1.", m)
		}
	case "SLS4-HMAC-SHA256":
		fields := map[string]string{}
		for field := range strings.SplitSeq(rest, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(field), "=")
			fields[k] = v
		}
		given = fields["Signature"]
		key, _, _ = strings.Cut(fields["Credential"], "/")
		date := r.Header.Get("X-Log-Date")
		if at, err = time.Parse("20060102T150405Z", date); err != nil {
			return refuse(400, "InvalidDateFormat", "The header x-log-date is not of the form 20060102T150405Z: %q.", date)
		}
		sum := sha256.Sum256(body)
		if r.Header.Get("X-Log-Content-Sha256") != hex.EncodeToString(sum[:]) {
			return refuse(400, "ContentSha256NotMatch", "The header x-log-content-sha256 is not that of the body.")
		}
		scope := date[:8] + "/" + c.cfg.Region + "/sls/aliyun_v4_request"
		if _, s, _ := strings.Cut(fields["Credential"], "/"); s != scope {
			return fail(403, "SignatureNotMatch", "The scope %q is not %q.", s, scope)
		}
		want = c.signSLS4(r, scope, date)
	default:
		return refuse(401, "Unauthorized", "The Authorization %q is not simulated: LOG or SLS4-HMAC-SHA256.", version)
	}
	if p := c.principal(key, r.Header.Get("X-Acs-Security-Token")); p != nil {
		if p.code == "InvalidSecurityToken.Expired" {
			return fail(401, "SecurityTokenExpired", "The security token you provided has expired")
		}
		return fail(401, "Unauthorized", "AccessKeyId not found: the key or its token is not known.")
	}
	if subtle.ConstantTimeCompare([]byte(want), []byte(given)) != 1 {
		return fail(403, "SignatureNotMatch", "signature does not match")
	}
	if skew := time.Since(at); skew > maxSkew || skew < -maxSkew {
		return fail(400, "RequestTimeTooSkewed", "Request time exceeds server time more than 15 minutes.")
	}
	return nil
}

// logHeaders returns the header lines that are signed, in order.
func logHeaders(r *http.Request, more ...string) (names []string, lines string) {
	values := map[string]string{}
	for k := range r.Header {
		l := strings.ToLower(k)
		if strings.HasPrefix(l, "x-log-") || strings.HasPrefix(l, "x-acs-") || slices.Contains(more, l) {
			values[l] = strings.TrimSpace(r.Header.Get(k))
		}
	}
	if slices.Contains(more, "host") {
		values["host"] = cmp.Or(r.Host, r.URL.Host)
	}
	names = slices.Sorted(maps.Keys(values))
	for _, n := range names {
		lines += n + ":" + values[n] + "\n"
	}
	return names, lines
}

// signLOG is version 1: HMAC-SHA1 in base64.
func (c *Cloud) signLOG(r *http.Request) string {
	_, headers := logHeaders(r)
	resource := r.URL.EscapedPath()
	if q := r.URL.Query(); len(q) > 0 {
		var pairs []string
		for _, k := range slices.Sorted(maps.Keys(q)) {
			pairs = append(pairs, k+"="+strings.Join(q[k], ""))
		}
		resource += "?" + strings.Join(pairs, "&")
	}
	mac := hmac.New(sha1.New, []byte(c.secret()))
	_, _ = io.WriteString(mac, r.Method+"\n"+r.Header.Get("Content-Md5")+"\n"+r.Header.Get("Content-Type")+"\n"+r.Header.Get("Date")+"\n"+headers+resource)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signSLS4 is version 4: HMAC-SHA256 in hexadecimal, with a key that holds for
// one day, region and product.
func (c *Cloud) signSLS4(r *http.Request, scope, date string) string {
	names, headers := logHeaders(r, "host", "content-type")
	q := r.URL.Query()
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(q)) {
		pair := k
		if v := q.Get(k); v != "" {
			pair += "=" + percent(v)
		}
		pairs = append(pairs, pair)
	}
	canonical := strings.Join([]string{r.Method, r.URL.EscapedPath(), strings.Join(pairs, "&"), headers, strings.Join(names, ";"), r.Header.Get("X-Log-Content-Sha256")}, "\n")
	hash := sha256.Sum256([]byte(canonical))
	sum := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		_, _ = io.WriteString(m, text)
		return m.Sum(nil)
	}
	key := []byte("aliyun_v4" + c.secret())
	for part := range strings.SplitSeq(scope, "/") {
		key = sum(key, part)
	}
	return hex.EncodeToString(sum(key, "SLS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hex.EncodeToString(hash[:])))
}

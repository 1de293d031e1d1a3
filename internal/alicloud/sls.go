package alicloud

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" // version 1 of the log service's signature is defined with it
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxLogRows is what one query may return: the log service itself ends a SQL
// result at its LIMIT, and at 100 rows without one.
const maxLogRows = 10_000

// A LogQuery asks a log store for the rows of [From, To). The service counts in
// whole seconds: From is rounded down and To up.
type LogQuery struct {
	Project, Store string
	// Query is a search expression, " | " and a SELECT with a LIMIT of its own.
	// Without a SELECT the service would give the first 100 rows only, so such a
	// query is refused.
	Query    string
	From, To time.Time
}

// GetLogs runs a query until the log service calls the result complete. An
// incomplete result is never returned: what is missing from it would read as
// traffic that was not there.
func (c *Client) GetLogs(ctx context.Context, q LogQuery) ([]map[string]string, error) {
	const action = "GetLogs"
	o := read(action)
	from, to := q.From.Unix(), q.To.Unix()
	if q.To.After(time.Unix(to, 0)) {
		to++
	}
	limit, err := sqlLimit(q.Query)
	switch {
	case err != nil:
	case !label(q.Project) || q.Store == "" || strings.ContainsAny(q.Store, "/?#% "):
		err = fmt.Errorf("%q is not a log project, or %q not a log store", q.Project, q.Store)
	case from >= to:
		err = fmt.Errorf("the window %d to %d is empty", from, to)
	}
	if err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", action, err)
	}
	params := map[string]string{
		"type": "log", "from": strconv.FormatInt(from, 10), "to": strconv.FormatInt(to, 10), "query": q.Query,
		"line": "0", "offset": "0", "reverse": "false", // what SQL has to be asked with
	}
	var rows []map[string]string
	err = c.retry(ctx, o, func() *Error {
		if e := c.ready(ctx, o); e != nil {
			return e
		}
		w := &wire{ctx: ctx, next: c.transport, plain: c.scheme == "HTTP"}
		var progress string
		rows, progress = c.logAttempt(ctx, o, w, q.Project, "/logstores/"+q.Store, params)
		if !w.answered || w.status/100 != 2 || w.code != "" {
			e := c.explain(ctx, o, w, w.err)
			slsError(e, c.region, q)
			return e
		}
		switch strings.ToLower(progress) {
		case "complete":
			if len(rows) >= limit {
				return &Error{Action: o.action, Code: CodeBadAnswer, Class: Definitive, HTTPStatus: w.status, RequestID: w.requestID,
					Message: fmt.Sprintf("the result has %d rows, as many as were asked for at most: more may be missing", len(rows)), hint: "ask for a shorter window"}
			}
			return nil
		case "incomplete":
			// The service answers in pieces when a query takes long; asked again it
			// goes on where it was.
			return &Error{Action: o.action, Code: "Incomplete", Class: Transient, HTTPStatus: w.status, RequestID: w.requestID,
				Message: "the log service has not read the whole window yet"}
		}
		return &Error{Action: o.action, Code: CodeBadAnswer, Class: Ambiguous, HTTPStatus: w.status, RequestID: w.requestID,
			Message: fmt.Sprintf("the answer does not say whether it is complete (x-log-progress %q)", progress)}
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// logAttempt sends one request to the log service and keeps in w what came
// back, as RoundTrip does for the other products.
func (c *Client) logAttempt(ctx context.Context, o op, w *wire, project, path string, params map[string]string) (rows []map[string]string, progress string) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	host := project + "." + c.region + ".log.aliyuncs.com"
	u := url.URL{Scheme: strings.ToLower(c.scheme), Host: host, Path: path, RawQuery: values(params).Encode()}
	if c.host != "" {
		u.Host = c.host
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		w.err = errors.New("the request cannot be built")
		return nil, ""
	}
	r.Host, w.host = host, u.Host
	h := r.Header
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("X-Log-Apiversion", "0.6.0")
	h.Set("X-Log-Signaturemethod", "hmac-sha1")
	h.Set("X-Log-Bodyrawsize", "0")
	h.Set("User-Agent", "upgradectl")
	cr := c.current() // of a role they change
	if cr.SecurityToken != "" {
		h.Set("X-Acs-Security-Token", cr.SecurityToken)
	}
	h.Set("Authorization", "LOG "+cr.AccessKeyID+":"+signLog(r.Method, h, path, params, cr.AccessKeySecret))

	resp, err := w.next.RoundTrip(r)
	if err != nil {
		w.err = err
		return nil, ""
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	resp.Body.Close()
	if err != nil {
		w.err = err
		return nil, ""
	}
	w.answered, w.status, w.requestID = true, resp.StatusCode, resp.Header.Get("X-Log-Requestid")
	w.date, _ = http.ParseTime(resp.Header.Get("Date"))
	var raw []map[string]json.RawMessage
	if resp.StatusCode/100 == 2 && len(body) <= maxAnswer && json.Unmarshal(body, &raw) == nil && raw != nil {
		rows = make([]map[string]string, 0, len(raw))
		for _, m := range raw {
			row := make(map[string]string, len(m))
			for k, v := range m {
				row[k] = text(v)
			}
			rows = append(rows, row)
		}
		return rows, resp.Header.Get("X-Log-Progress")
	}
	var envelope map[string]json.RawMessage
	_ = json.Unmarshal(body, &envelope)
	w.code, w.message = text(envelope["errorCode"]), text(envelope["errorMessage"])
	if w.code == "" || resp.StatusCode/100 == 2 {
		w.code, w.message = CodeBadAnswer, describe(resp, body)
	}
	return nil, ""
}

// label reports whether s can stand as the first label of a host name.
func label(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func values(params map[string]string) url.Values {
	v := url.Values{}
	for k, s := range params {
		v.Set(k, s)
	}
	return v
}

// sqlLimit finds the number after the last LIMIT of a query.
func sqlLimit(query string) (int, error) {
	_, sql, ok := strings.Cut(query, "|")
	if !ok {
		return 0, errors.New("the query has no SELECT")
	}
	words := strings.Fields(strings.ToLower(sql))
	if n := len(words); n >= 2 && words[n-2] == "limit" {
		if limit, err := strconv.Atoi(words[n-1]); err == nil && limit >= 1 && limit <= maxLogRows {
			return limit, nil
		}
	}
	return 0, fmt.Errorf("the query does not end with a LIMIT of 1 to %d", maxLogRows)
}

// signLog is version 1 of the log service's signature: HMAC-SHA1 over method,
// Content-MD5, Content-Type, Date, the x-log- and x-acs- headers and the
// resource with its parameters, unescaped and sorted (Alibaba Cloud, Simple Log
// Service, "Request signatures").
func signLog(method string, h http.Header, path string, params map[string]string, secret string) string {
	lines := []string{method, h.Get("Content-Md5"), h.Get("Content-Type"), h.Get("Date")}
	var own []string
	for k := range h {
		if l := strings.ToLower(k); strings.HasPrefix(l, "x-log-") || strings.HasPrefix(l, "x-acs-") {
			own = append(own, l+":"+h.Get(k))
		}
	}
	slices.Sort(own)
	lines = append(lines, own...)
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(params)) {
		pairs = append(pairs, k+"="+params[k])
	}
	resource := path
	if len(pairs) > 0 {
		resource += "?" + strings.Join(pairs, "&")
	}
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(strings.Join(append(lines, resource), "\n")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// slsError gives an answer of the log service its class and says what to do.
func slsError(e *Error, region string, q LogQuery) {
	where := "log store " + q.Store + " of project " + q.Project + " in " + region
	switch e.Code {
	case "ReadQuotaExceed", "ShardReadQuotaExceed", "ExceedQuota":
		e.Class = Throttled
	case "ServerBusy", "InternalServerError", "RequestTimeout":
		e.Class = Transient // a query changes nothing
	case "ProjectNotExist", "LogStoreNotExist":
		e.hint = "there is no " + where + "; it may have been deleted or renamed after access logging was switched on"
	case "ParameterInvalid", "InvalidQueryString":
		e.hint = "the log service does not take the query: switch the index of " + where + " on, with statistics for upstream_addr, upstream_status, status, slbid and slb_vport"
	case "Unauthorized", "Forbidden":
		e.hint = "the account may not read " + where + ": grant it log:GetLogStoreLogs"
	case "SignatureNotMatch", "InvalidAccessKeyId":
		e.hint = join("the log service does not accept the access key", e.hint)
	case "RequestTimeTooSkewed":
		e.hint = "set the clock of this machine: the log service bears 15 minutes"
	}
}

package cloud_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// The example of the documentation's page on version 3 signatures: request,
// keys and result were not computed here.
func TestSignature3OfTheDocumentation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, err := time.Parse(time.RFC3339, "2023-10-26T10:22:32Z")
		require.NoError(t, err)
		time.Sleep(time.Until(at)) // the bubble's clock starts in 2000
		c := cloud.New(cloud.Config{AccessKeyID: "YourAccessKeyId", AccessKeySecret: "YourAccessKeySecret", Region: "cn-shanghai"})
		defer c.Close()
		send := func(signature string) string {
			req, err := http.NewRequest("POST", "https://ecs.cn-shanghai.aliyuncs.com/?ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai", nil)
			require.NoError(t, err)
			empty := sha256.Sum256(nil)
			for k, v := range map[string]string{
				"x-acs-action": "RunInstances", "x-acs-version": "2014-05-26", "x-acs-date": "2023-10-26T10:22:32Z",
				"x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d", "x-acs-content-sha256": hex.EncodeToString(empty[:]),
				"Authorization": "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=" + signature,
			} {
				req.Header.Set(k, v)
			}
			resp, err := c.Transport().RoundTrip(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			var body struct{ Code, Message string }
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&body), "JSON without being asked")
			return body.Code
		}
		assert.Equal(t, "SignatureDoesNotMatch", send("06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c1"))
		assert.NotContains(t, send("06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"), "Signature", "the signature passes; the rest of the request does not")
		assert.Equal(t, "SignatureNonceUsed", send("06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"))
	})
}

// signed3 makes a request with a version 3 signature, written from the
// documentation and sharing nothing with the code under test.
func (a *api) signed3(method, version, action string, query url.Values, kind, body string, headers ...string) *http.Request {
	a.t.Helper()
	a.nonce++
	req, err := http.NewRequest(method, a.base+"?"+query.Encode(), strings.NewReader(body))
	require.NoError(a.t, err)
	sum := sha256.Sum256([]byte(body))
	h := map[string]string{
		"x-acs-action": action, "x-acs-version": version, "x-acs-date": time.Now().UTC().Format("2006-01-02T15:04:05Z"),
		"x-acs-signature-nonce": fmt.Sprintf("nonce3-%d", a.nonce), "x-acs-content-sha256": hex.EncodeToString(sum[:]),
	}
	if kind != "" {
		h["content-type"] = kind
	}
	for i := 0; i+1 < len(headers); i += 2 {
		h[headers[i]] = headers[i+1]
	}
	for k, v := range h {
		req.Header.Set(k, v)
	}
	h["host"] = req.URL.Host
	names := make([]string, 0, len(h))
	for k := range h {
		names = append(names, k)
	}
	slices.Sort(names)
	lines := ""
	for _, k := range names {
		lines += k + ":" + h[k] + "\n"
	}
	canonical := method + "\n/\n" + strings.ReplaceAll(query.Encode(), "+", "%20") + "\n" + lines + "\n" + strings.Join(names, ";") + "\n" + h["x-acs-content-sha256"]
	hash := sha256.Sum256([]byte(canonical))
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, "ACS3-HMAC-SHA256\n"+hex.EncodeToString(hash[:]))
	req.Header.Set("Authorization", "ACS3-HMAC-SHA256 Credential="+keyID+",SignedHeaders="+strings.Join(names, ";")+",Signature="+hex.EncodeToString(mac.Sum(nil)))
	return req
}

func (a *api) do(req *http.Request) (int, map[string]any) {
	a.t.Helper()
	resp, err := a.rt.RoundTrip(req)
	require.NoError(a.t, err)
	defer resp.Body.Close()
	var body map[string]any
	require.NoError(a.t, json.NewDecoder(resp.Body).Decode(&body))
	return resp.StatusCode, body
}

func TestVersion3(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		const form, js = "application/x-www-form-urlencoded", "application/json; charset=utf-8"
		q := url.Values{"RegionId": {"cn-hangzhou"}, "InstanceIds": {`["i-web90"]`}}
		for name, req := range map[string]*http.Request{
			"GET":        a.signed3("GET", ecs, "DescribeInstances", q, "", ""),
			"POST query": a.signed3("POST", ecs, "DescribeInstances", q, "", ""),
			"POST form":  a.signed3("POST", ecs, "DescribeInstances", nil, form, q.Encode()),
			"POST JSON":  a.signed3("POST", ecs, "DescribeInstances", nil, js, `{"RegionId":"cn-hangzhou","PageSize":10,"PageNumber":1,"InstanceIds":"[\"i-web90\"]","Tag":[{"Key":"env","Value":"prod"}]}`),
		} {
			status, body := a.do(req)
			assert.Equalf(t, 200, status, "%s: %v", name, body)
			assert.EqualValuesf(t, 1, body["TotalCount"], "%s", name)
		}
		assert.Empty(t, c.Refused())
		for name, row := range map[string]struct {
			req  *http.Request
			code string
		}{
			"body changed": {func() *http.Request {
				r := a.signed3("POST", ecs, "StopInstance", nil, form, "InstanceId=i-web90")
				r.Body = io.NopCloser(strings.NewReader("InstanceId=i-web89"))
				return r
			}(), "SignatureDoesNotMatch"},
			"query changed": {func() *http.Request {
				r := a.signed3("POST", ecs, "StopInstance", url.Values{"InstanceId": {"i-web90"}}, "", "")
				r.URL.RawQuery = "InstanceId=i-web89"
				return r
			}(), "SignatureDoesNotMatch"},
			"header added": {func() *http.Request {
				r := a.signed3("POST", ecs, "DescribeInstances", q, "", "")
				r.Header.Set("x-acs-extra", "1")
				return r
			}(), "IncompleteSignature"},
			"old":   {a.signed3("POST", ecs, "DescribeInstances", q, "", "", "x-acs-date", time.Now().Add(-16*time.Minute).UTC().Format("2006-01-02T15:04:05Z")), "InvalidTimeStamp.Expired"},
			"token": {a.signed3("POST", ecs, "DescribeInstances", q, "", "", "x-acs-security-token", "sts"), "InvalidSecurityToken.MismatchWithAccessKey"},
			"other algorithm": {func() *http.Request {
				r := a.signed3("POST", ecs, "DescribeInstances", q, "", "")
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "HMAC-SHA256", "HMAC-SM3", 1))
				return r
			}(), "IncompleteSignature"},
			"unknown parameter": {a.signed3("POST", ecs, "DescribeInstances", nil, js, `{"RegionId":"cn-hangzhou","Instances":{"Id":["i"]}}`), "UnsupportedParameter"},
			"not an object":     {a.signed3("POST", ecs, "DescribeInstances", nil, js, `[1]`), "InvalidParameter"},
		} {
			_, body := a.do(row.req)
			assert.Equalf(t, row.code, body["Code"], "%s: %v", name, body)
		}
		assert.Empty(t, c.Counts()["StopInstance"])
		assert.NotContains(t, strings.Join(c.Refused(), "\n"), secret)
	})
}

// XML is the default of version 1 requests: a root named after the action, a
// list as its element repeated, and errors in an Error.
func TestXML(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for _, format := range []string{"<unset>", "XML", "xml"} {
			status, body, err := a.send("GET", a.signed("GET", ecs, "DescribeInstances", "Format", format, "InstanceName", "web-9*"), nil)
			require.NoError(t, err)
			require.Equal(t, 200, status)
			var reply struct {
				XMLName    xml.Name
				TotalCount int
				RequestID  string `xml:"RequestId"`
				Instances  struct {
					Instance []struct {
						InstanceID       string `xml:"InstanceId"`
						SecurityGroupIDs struct {
							SecurityGroupID []string `xml:"SecurityGroupId"`
						} `xml:"SecurityGroupIds"`
						DeviceAvailable bool
					}
				}
			}
			require.NoError(t, xml.Unmarshal(body, &reply), string(body))
			assert.Equal(t, "DescribeInstancesResponse", reply.XMLName.Local)
			assert.Equal(t, 1, reply.TotalCount)
			require.Len(t, reply.Instances.Instance, 1)
			assert.Equal(t, "i-web90", reply.Instances.Instance[0].InstanceID)
			assert.Equal(t, []string{"sg-sim"}, reply.Instances.Instance[0].SecurityGroupIDs.SecurityGroupID)
			assert.True(t, reply.Instances.Instance[0].DeviceAvailable)
		}
		status, body, err := a.send("GET", a.signed("GET", ecs, "StopInstance", "Format", "<unset>", "InstanceId", "<a&b>"), nil)
		require.NoError(t, err)
		assert.Equal(t, 404, status)
		var e struct {
			XMLName                          xml.Name
			Code, Message, RequestId, HostId string
		}
		require.NoError(t, xml.Unmarshal(body, &e))
		assert.Equal(t, "Error InvalidInstanceId.NotFound cloud.invalid", e.XMLName.Local+" "+e.Code+" "+e.HostId)
		assert.Contains(t, e.Message, "<a&b>")
		assert.NotEmpty(t, e.RequestId)

		c.InjectFault(cloud.Fault{Code: "Throttling"})
		_, body, err = a.send("GET", a.signed("GET", ecs, "DescribeRegions", "Format", "<unset>"), nil)
		require.NoError(t, err)
		assert.True(t, bytes.Contains(body, []byte("<Error><Code>Throttling</Code>")), string(body))
	})
}

// A client that takes the simulator for its HTTP proxy sends the whole URL.
func TestAbsoluteForm(t *testing.T) {
	c := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
	defer c.Close()
	a := newAPI(t, c)
	a.base = "http://ecs-cn-hangzhou.aliyuncs.com/"
	srv := httptest.NewServer(c)
	defer srv.Close()
	proxy, err := url.Parse(srv.URL)
	require.NoError(t, err)
	tr := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer tr.CloseIdleConnections()
	a.rt = tr
	assert.Equal(t, 0, a.ok(ecs, "DescribeInstances").Len("Instances.Instance"))
}

func TestKnobs(t *testing.T) {
	world(t, func(cfg *cloud.Config) { cfg.Latency = 3 * time.Second }, func(c *cloud.Cloud, m *machines, a *api) {
		begun := time.Now()
		a.ok(ecs, "DescribeInstances")
		a.no(404, "InvalidInstanceId.NotFound", ecs, "StopInstance", "InstanceId", "i-none")
		assert.Equal(t, 6*time.Second, time.Since(begun))
	})
	world(t, func(cfg *cloud.Config) { cfg.Throttle = cloud.Throttle{Calls: 3, Per: time.Minute} }, func(c *cloud.Cloud, m *machines, a *api) {
		for range 3 {
			a.ok(ecs, "DescribeInstances")
		}
		a.no(400, "Throttling.User", ecs, "DescribeInstances")
		a.ok(ecs, "DescribeDisks")
		time.Sleep(time.Minute)
		a.ok(ecs, "DescribeInstances")
	})
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Code: "ServiceUnavailable", Status: 503, Writes: true, Skip: 1})
		a.ok(ecs, "DescribeInstances")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web89")
		a.ok(ecs, "DescribeInstances")
		a.no(503, "ServiceUnavailable", ecs, "StopInstance", "InstanceId", "i-web90")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
	})
}

func TestPermissions(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.Deny("StopInstance", "slb:DescribeLoadBalancers")
		r := a.call(ecs, "StopInstance", "InstanceId", "i-web90")
		assert.Equal(t, 403, r.Status)
		assert.Equal(t, "Forbidden.RAM", r.Str("Code"))
		assert.Equal(t, "ecs:StopInstance", r.Str("AccessDeniedDetail.AuthAction"))
		assert.Equal(t, "ImplicitDeny", r.Str("AccessDeniedDetail.NoPermissionType"))
		a.no(403, "Forbidden.RAM", slb, "DescribeLoadBalancers")
		a.ok(ecs, "DescribeInstances")
		assert.Equal(t, "Running", c.InstanceStatus("i-web90"))
		c.Allow("StopInstance")
		a.ok(ecs, "StopInstance", "InstanceId", "i-web90")
		c.Allow()
		a.ok(slb, "DescribeLoadBalancers")
	})
}

func TestTokenExpires(t *testing.T) {
	world(t, func(cfg *cloud.Config) {
		cfg.SecurityToken, cfg.TokenExpires = "sts", time.Now().Add(time.Hour)
	}, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "DescribeInstances", "SecurityToken", "sts")
		time.Sleep(time.Hour)
		a.no(400, "InvalidSecurityToken.Expired", ecs, "DescribeInstances", "SecurityToken", "sts")
		assert.Empty(t, c.Refused(), "an operator's mistake")
		// A role that is assumed anew; the old keys are old for good.
		c.SetCredentials(keyID, secret, "sts2", time.Now().Add(time.Hour))
		a.ok(ecs, "DescribeInstances", "SecurityToken", "sts2")
		a.no(400, "InvalidSecurityToken.Expired", ecs, "DescribeInstances", "SecurityToken", "sts")
		c.SetCredentials("STS.other", secret, "sts3", time.Time{})
		a.no(400, "InvalidSecurityToken.Expired", ecs, "DescribeInstances", "SecurityToken", "sts2")
		assert.Empty(t, c.Refused())
	})
}

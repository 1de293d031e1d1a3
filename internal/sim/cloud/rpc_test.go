package cloud_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// The example that the cloud's documentation of the signature has carried for
// a decade: parameters, secret and result were not computed here.
func TestSignatureOfTheDocumentation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, err := time.Parse(time.RFC3339, "2016-02-23T12:46:24Z")
		require.NoError(t, err)
		time.Sleep(time.Until(at)) // the bubble's clock starts in 2000
		c := cloud.New(cloud.Config{AccessKeyID: "testid", AccessKeySecret: "testsecret"})
		defer c.Close()
		send := func(signature string) (int, string) {
			req, err := http.NewRequest("GET", "http://ecs.aliyuncs.com/?Timestamp=2016-02-23T12%3A46%3A24Z&Format=XML&AccessKeyId=testid"+
				"&Action=DescribeRegions&SignatureMethod=HMAC-SHA1&SignatureNonce=3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"+
				"&Version=2014-05-26&SignatureVersion=1.0&Signature="+signature, nil)
			require.NoError(t, err)
			resp, err := c.Transport().RoundTrip(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return resp.StatusCode, string(body)
		}
		status, body := send("OLeaidS1JvxuMvnyHOwuJ%2BuX5qY%3D")
		assert.Equal(t, 200, status)
		assert.Contains(t, body, "<DescribeRegionsResponse><Regions><Region>")
		status, body = send("OLeaidS1JvxuMvnyHOwuJ%2BuX5qX%3D")
		assert.Equal(t, 400, status)
		assert.Contains(t, body, "<Error><Code>SignatureDoesNotMatch</Code>")
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format("2006-01-02T15:04:05Z") }
	for _, row := range []struct {
		name   string
		status int
		code   string
		kv     func() []string
	}{
		{"wrong signature", 400, "SignatureDoesNotMatch", func() []string { return []string{"Signature", "bm9wZQ=="} }},
		{"no signature method", 400, "IncompleteSignature", func() []string { return []string{"SignatureMethod", "<unset>"} }},
		{"another signature type", 400, "IncompleteSignature", func() []string { return []string{"SignatureType", "BEARERTOKEN"} }},
		{"unknown key", 404, "InvalidAccessKeyId.NotFound", func() []string { return []string{"AccessKeyId", "other"} }},
		{"unexpected token", 400, "InvalidSecurityToken.MismatchWithAccessKey", func() []string { return []string{"SecurityToken", "sts"} }},
		{"old", 400, "InvalidTimeStamp.Expired", func() []string { return []string{"Timestamp", ago(15*time.Minute + time.Second)} }},
		{"from the future", 400, "InvalidTimeStamp.Expired", func() []string { return []string{"Timestamp", ago(-15*time.Minute - time.Second)} }},
		{"no time", 400, "InvalidTimeStamp.Format", func() []string { return []string{"Timestamp", "yesterday"} }},
		{"a format of nobody", 400, "InvalidParameter.Format", func() []string { return []string{"Format", "YAML"} }},
		{"unknown version", 400, "InvalidVersion", func() []string { return []string{"Version", "2020-01-01"} }},
		{"other product's action", 403, "InvalidAction", func() []string { return []string{"Version", slb} }},
		{"unknown action", 403, "InvalidAction", func() []string { return []string{"Action", "DescribeUnicorns"} }},
		{"other region", 404, "InvalidRegionId.NotFound", func() []string { return []string{"RegionId", "cn-beijing"} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
				a.no(row.status, row.code, ecs, "DescribeInstances", row.kv()...)
				// Wrong credentials are an operator's mistake, not a client's.
				switch row.name {
				case "other region":
				case "wrong signature", "unknown key":
					assert.Empty(t, c.Refused())
				default:
					require.Len(t, c.Refused(), 1)
				}
				assert.NotContains(t, strings.Join(c.Refused(), "\n"), secret)
				assert.Empty(t, c.Counts())
			})
		})
	}
}

func TestSkewWithinLimits(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for _, d := range []time.Duration{14 * time.Minute, -14 * time.Minute} {
			a.ok(ecs, "DescribeInstances", "Timestamp", time.Now().Add(d).UTC().Format("2006-01-02T15:04:05Z"))
		}
	})
}

func TestNonceOnce(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "DescribeInstances", "SignatureNonce", "one")
		a.no(400, "SignatureNonceUsed", ecs, "DescribeInstances", "SignatureNonce", "one")
		time.Sleep(20 * time.Minute)
		a.no(400, "SignatureNonceUsed", ecs, "DescribeInstances", "SignatureNonce", "one")
	})
}

func TestSecurityToken(t *testing.T) {
	world(t, func(cfg *cloud.Config) { cfg.SecurityToken = "sts+/=" }, func(c *cloud.Cloud, m *machines, a *api) {
		a.ok(ecs, "DescribeInstances", "SecurityToken", "sts+/=")
		a.no(400, "InvalidSecurityToken.MismatchWithAccessKey", ecs, "DescribeInstances")
	})
}

// Clients place their parameters in four ways; empty ones are signed too.
func TestPlacements(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		odd := []string{"InstanceName", "a b*~+/=é'\"", "SecurityToken", "", "Status", ""}
		for name, send := range map[string]func() (int, []byte, error){
			"POST query": func() (int, []byte, error) {
				return a.send("POST", a.signed("POST", ecs, "DescribeInstances", odd...), nil)
			},
			"POST form": func() (int, []byte, error) {
				return a.send("POST", nil, a.signed("POST", ecs, "DescribeInstances", odd...))
			},
			"GET": func() (int, []byte, error) {
				return a.send("GET", a.signed("GET", ecs, "DescribeInstances", odd...), nil)
			},
			"POST both": func() (int, []byte, error) {
				q, f := a.signed("POST", ecs, "DescribeInstances", odd...), url.Values{}
				f.Set("InstanceName", q.Get("InstanceName"))
				q.Del("InstanceName")
				return a.send("POST", q, f)
			},
		} {
			status, body, err := send()
			require.NoError(t, err)
			assert.Equalf(t, 200, status, "%s: %s", name, body)
		}
		q := a.signed("POST", ecs, "DescribeInstances", "Status", "Running")
		status, body, err := a.send("POST", q, url.Values{"Status": {"Stopped"}})
		require.NoError(t, err)
		assert.Equalf(t, 400, status, "a parameter in both places: %s", body)
		status, _, err = a.send("PUT", a.signed("PUT", ecs, "DescribeInstances"), nil)
		require.NoError(t, err)
		assert.Equal(t, 403, status)
	})
}

func TestOverSockets(t *testing.T) {
	c := cloud.New(cloud.Config{AccessKeyID: keyID, AccessKeySecret: secret})
	defer c.Close()
	c.AddInstance(cloud.Instance{ID: "i-1", PrivateIP: "172.31.0.90"})
	srv := httptest.NewServer(c)
	defer srv.Close()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	a := &api{t: t, rt: tr, base: srv.URL + "/"}
	assert.Equal(t, "i-1", a.ok(ecs, "DescribeInstances").Str("Instances.Instance.0.InstanceId"))
	c.InjectFault(cloud.Fault{Kind: cloud.FaultCut})
	_, _, err := a.send("POST", a.signed("POST", ecs, "DescribeInstances"), nil)
	require.Error(t, err)
	require.ErrorIs(t, err, io.EOF)
}

func TestTokens(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		create := []string{"DiskId", "d-sys", "ClientToken", "t1", "SnapshotName", "one"}
		first := a.ok(ecs, "CreateSnapshot", create...).Str("SnapshotId")
		assert.Equal(t, first, a.ok(ecs, "CreateSnapshot", create...).Str("SnapshotId"), "not refused by the running snapshot: it is the same one")
		a.no(403, "IdempotentParameterMismatch", ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", "t1", "SnapshotName", "two")
		a.no(400, "InvalidClientToken.ValueNotSupported", ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", strings.Repeat("x", 65))
		// What failed did not use its token.
		a.no(404, "InvalidDiskId.NotFound", ecs, "CreateSnapshot", "DiskId", "d-none", "ClientToken", "t2")
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-data", "ClientToken", "t2")

		time.Sleep(3 * time.Minute)
		mk := []string{"SnapshotId", first, "ClientToken", "t1", "ImageName", "img"}
		img := a.ok(ecs, "CreateImage", mk...).Str("ImageId")
		assert.Equal(t, img, a.ok(ecs, "CreateImage", mk...).Str("ImageId"), "tokens belong to an action")
		a.no(400, "IdempotenceParamNotMatch", ecs, "CreateImage", "SnapshotId", first, "ClientToken", "t1", "ImageName", "img2")

		time.Sleep(4 * time.Minute)
		run := a.cloneOf(img, "ClientToken", "t1")
		id := a.ok(ecs, "RunInstances", run...).Str("InstanceIdSets.InstanceIdSet.0")
		assert.Equal(t, id, a.ok(ecs, "RunInstances", run...).Str("InstanceIdSets.InstanceIdSet.0"))
		a.no(403, "IdempotentParameterMismatch", ecs, "RunInstances", a.cloneOf(img, "ClientToken", "t1", "HostName", "x")...)
	})
}

// slowDisks lets a snapshot take its time to begin.
type slowDisks struct {
	*machines
	block chan struct{}
}

func (s slowDisks) Snapshot(id string) (string, error) {
	<-s.block
	return s.machines.Snapshot(id)
}

func TestTokenInProgress(t *testing.T) {
	block := make(chan struct{})
	world(t, func(cfg *cloud.Config) {
		block = make(chan struct{})
		cfg.Machines = slowDisks{cfg.Machines.(*machines), block}
	}, func(c *cloud.Cloud, m *machines, a *api) {
		other := newAPI(t, c)
		other.nonce = 1000
		done := make(chan struct{})
		go func() {
			defer close(done)
			other.ok(ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", "t")
		}()
		synctest.Wait()
		a.no(403, "IdempotentProcessing", ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", "t")
		close(block)
		<-done
		a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", "t")
	})
}

package cloud_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

const (
	keyID  = "testid"
	secret = "testsecret"
	ecs    = "2014-05-26"
	slb    = "2014-05-15"
)

// api signs and sends requests the way any client does; it shares nothing with
// the code under test.
type api struct {
	t     *testing.T
	rt    http.RoundTripper
	base  string
	nonce int
}

func newAPI(t *testing.T, c *cloud.Cloud) *api {
	return &api{t: t, rt: c.Transport(), base: "http://cloud.invalid/"}
}

// signed returns the parameters of a request with everything it needs.
func (a *api) signed(method, version, action string, kv ...string) url.Values {
	a.nonce++
	v := url.Values{
		"AccessKeyId": {keyID}, "Action": {action}, "Version": {version}, "Format": {"JSON"}, "RegionId": {"cn-hangzhou"},
		"SignatureMethod": {"HMAC-SHA1"}, "SignatureVersion": {"1.0"}, "SignatureType": {""},
		"SignatureNonce": {fmt.Sprintf("nonce-%d", a.nonce)},
		"Timestamp":      {time.Now().UTC().Format("2006-01-02T15:04:05Z")},
	}
	for i := 0; i+1 < len(kv); i += 2 {
		v.Set(kv[i], kv[i+1])
		if kv[i+1] == "<unset>" {
			v.Del(kv[i])
		}
	}
	if v.Get("Signature") == "" {
		v.Set("Signature", sign(method, v, secret))
	}
	return v
}

func sign(method string, v url.Values, secret string) string {
	esc := func(s string) string {
		return strings.NewReplacer("+", "%20", "*", "%2A", "%7E", "~").Replace(url.QueryEscape(s))
	}
	var pairs []string
	for k := range v {
		if k != "Signature" {
			pairs = append(pairs, esc(k)+"="+esc(v.Get(k)))
		}
	}
	sort.Strings(pairs)
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	io.WriteString(mac, method+"&"+esc("/")+"&"+esc(strings.Join(pairs, "&")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (a *api) send(method string, query, form url.Values) (int, []byte, error) {
	a.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, a.base+"?"+query.Encode(), body)
	require.NoError(a.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.rt.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}

// answer is a decoded body; At walks it.
type answer struct {
	t      *testing.T
	Status int
	Body   map[string]any
}

// At returns what stands under a path like Instances.Instance.0.Status.
func (r answer) At(path string) any {
	r.t.Helper()
	var v any = r.Body
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			n := 0
			_, err := fmt.Sscan(p, &n)
			require.NoError(r.t, err)
			require.Less(r.t, n, len(x), "%s in %v", path, r.Body)
			v = x[n]
		default:
			require.Failf(r.t, "no such path", "%s in %v", path, r.Body)
		}
	}
	return v
}

// Str is At for strings.
func (r answer) Str(path string) string {
	r.t.Helper()
	s, ok := r.At(path).(string)
	require.Truef(r.t, ok, "%s is %T", path, r.At(path))
	return s
}

// Len is the length of the list under a path.
func (r answer) Len(path string) int {
	r.t.Helper()
	l, ok := r.At(path).([]any)
	require.Truef(r.t, ok, "%s is %T", path, r.At(path))
	return len(l)
}

func (a *api) call(version, action string, kv ...string) answer {
	a.t.Helper()
	status, data, err := a.send("POST", a.signed("POST", version, action, kv...), nil)
	require.NoError(a.t, err)
	r := answer{t: a.t, Status: status}
	require.NoErrorf(a.t, json.Unmarshal(data, &r.Body), "%s", data)
	assert.NotEmpty(a.t, r.Body["RequestId"])
	return r
}

// ok is a call that must succeed.
func (a *api) ok(version, action string, kv ...string) answer {
	a.t.Helper()
	r := a.call(version, action, kv...)
	require.Equalf(a.t, 200, r.Status, "%s: %v", action, r.Body)
	return r
}

// no is a call that must be answered with an error.
func (a *api) no(status int, code, version, action string, kv ...string) {
	a.t.Helper()
	r := a.call(version, action, kv...)
	assert.Equalf(a.t, fmt.Sprintf("%d %s", status, code), fmt.Sprintf("%d %v", r.Status, r.Body["Code"]), "%s: %v", action, r.Body)
	assert.NotEmpty(a.t, r.Body["Message"])
	assert.NotEmpty(a.t, r.Body["HostId"])
}

// machines records what the cloud asks for.
type machines struct {
	mu      sync.Mutex
	log     []string
	made    []cloud.Machine
	fail    string // the call that fails, like "create"
	command func(ctx context.Context, id, script string) (int, []byte, error)
}

func (m *machines) note(call, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, call+" "+id)
	if call == m.fail {
		return errors.New("the machine says no")
	}
	return nil
}

func (m *machines) calls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.log...)
}

// failing sets which call fails from now on; "" for none.
func (m *machines) failing(call string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = call
}

func (m *machines) machinesMade() []cloud.Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]cloud.Machine(nil), m.made...)
}

func (m *machines) Snapshot(id string) (string, error) {
	err := m.note("snapshot", id)
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("state-%s-%d", id, len(m.log)), err
}

func (m *machines) Create(x cloud.Machine) error {
	m.mu.Lock()
	m.made = append(m.made, x)
	m.mu.Unlock()
	return m.note("create", x.InstanceID)
}

func (m *machines) Start(id string) error  { return m.note("start", id) }
func (m *machines) Stop(id string) error   { return m.note("stop", id) }
func (m *machines) Reboot(id string) error { return m.note("reboot", id) }
func (m *machines) Delete(id string) error { return m.note("delete", id) }

func (m *machines) RunCommand(ctx context.Context, id, script string) (int, []byte, error) {
	return m.command(ctx, id, script)
}

// world runs f in a bubble of virtual time with a cloud that has the host of
// the runbook (a system and a data disk) and a neighbour.
func world(t *testing.T, change func(*cloud.Config), f func(c *cloud.Cloud, m *machines, a *api)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &machines{}
		cfg := cloud.Config{
			AccessKeyID: keyID, AccessKeySecret: secret, Machines: m,
			FreeIPs: []string{"172.31.0.91", "172.31.0.92"},
		}
		if change != nil {
			change(&cfg)
		}
		c := cloud.New(cfg)
		defer c.Close()
		c.AddInstance(cloud.Instance{
			ID: "i-web90", Name: "web-90", PrivateIP: "172.31.0.90", ENI: "eni-90", KeyPair: "ops", RAMRole: "reader",
			Tags:  map[string]string{"env": "prod"},
			Disks: []cloud.Disk{{ID: "d-sys", Size: 40}, {ID: "d-data", Size: 200}},
		})
		c.AddInstance(cloud.Instance{ID: "i-web89", Name: "web-89", PrivateIP: "172.31.0.89"})
		f(c, m, newAPI(t, c))
	})
}

// image makes an Available image of web-90's disks.
func (a *api) image() string {
	a.t.Helper()
	s := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
	d := a.ok(ecs, "CreateSnapshot", "DiskId", "d-data").Str("SnapshotId")
	time.Sleep(3 * time.Minute)
	img := a.ok(ecs, "CreateImage", "ImageName", "web-90-image", "DiskDeviceMapping.1.SnapshotId", d, "DiskDeviceMapping.2.SnapshotId", s).Str("ImageId")
	time.Sleep(4 * time.Minute)
	return img
}

// clone makes a Running clone of web-90.
func (a *api) clone(kv ...string) string {
	a.t.Helper()
	id := a.ok(ecs, "RunInstances", a.cloneOf(a.image(), kv...)...).Str("InstanceIdSets.InstanceIdSet.0")
	time.Sleep(31 * time.Second)
	return id
}

func (a *api) cloneOf(image string, kv ...string) []string {
	return append([]string{"ImageId", image, "InstanceType", "ecs.g6.large", "VSwitchId", "vsw-sim", "SecurityGroupIds.1", "sg-sim"}, kv...)
}

func (a *api) status(id string) string {
	a.t.Helper()
	r := a.ok(ecs, "DescribeInstances", "InstanceIds", `["`+id+`"]`)
	if r.Len("Instances.Instance") == 0 {
		return ""
	}
	return r.Str("Instances.Instance.0.Status")
}

func TestCountsAndResources(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone("Tag.1.Key", "run", "Tag.1.Value", "r1")
		a.no(404, "InvalidInstanceId.NotFound", ecs, "StopInstance", "InstanceId", "i-none")
		assert.Equal(t, map[string]int{"CreateSnapshot": 2, "CreateImage": 1, "RunInstances": 1}, c.Counts())
		var made []string
		for _, r := range c.Resources() {
			if r.CreatedByAPI {
				made = append(made, r.Type)
				if r.ID == id {
					assert.Equal(t, map[string]string{"run": "r1"}, r.Tags)
				}
			}
		}
		assert.Equal(t, []string{"instance", "disk", "disk", "snapshot", "snapshot", "image"}, made)
		assert.Empty(t, c.Refused(), "an unknown ID is no fault of the client's code")
		assert.Equal(t, "172.31.0.91", c.InstanceIP(id))
		assert.Empty(t, c.InstanceIP("i-none"))
	})
}

func TestCloseEndsEverything(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		ended := make(chan struct{})
		m.command = func(ctx context.Context, _, _ string) (int, []byte, error) {
			<-ctx.Done()
			close(ended)
			return 0, nil, ctx.Err()
		}
		a.ok(ecs, "RunCommand", "Type", "RunShellScript", "CommandContent", "sleep 1000", "Timeout", "3600", "InstanceId.1", "i-web90")
		a.ok(ecs, "RunInstances", a.cloneOf(a.image())...)
		a.ok(ecs, "ModifyInstanceAutoReleaseTime", "InstanceId", "i-web89", "AutoReleaseTime", time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z"))
		synctest.Wait()
		c.Close()
		c.Close()
		<-ended
		a.no(503, "ServiceUnavailable", ecs, "DescribeInstances")
		time.Sleep(2 * time.Hour)
		assert.NotContains(t, strings.Join(m.calls(), "\n"), "create", "nothing happens after Close")
		assert.Equal(t, "Running", c.InstanceStatus("i-web89"))
	})
}

func TestSpeedDividesDurations(t *testing.T) {
	world(t, func(cfg *cloud.Config) { cfg.Speed = 60 }, func(c *cloud.Cloud, m *machines, a *api) {
		s := a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys").Str("SnapshotId")
		time.Sleep(3 * time.Second)
		assert.Equal(t, "accomplished", a.ok(ecs, "DescribeSnapshots", "SnapshotIds", `["`+s+`"]`).Str("Snapshots.Snapshot.0.Status"))
	})
}

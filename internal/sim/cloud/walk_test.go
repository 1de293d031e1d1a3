package cloud

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestRandomWalk calls every action with whatever its table allows, in every
// order: the answer is always a whole one, and what the account holds always
// fits together. UPGRADECTL_SLOW makes it longer.
func TestRandomWalk(t *testing.T) {
	seeds := uint64(3)
	if os.Getenv(testenv.SlowVariable) != "" {
		seeds = 60
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				c := New(Config{AccessKeyID: "id", AccessKeySecret: "secret", FreeIPs: []string{"172.31.0.91", "172.31.0.92", "172.31.0.93"}})
				defer c.Close()
				c.AddInstance(Instance{ID: "i-1", PrivateIP: "172.31.0.90", ENI: "eni-1", KeyPair: "kp", RAMRole: "r", Disks: []Disk{{ID: "d-1"}, {ID: "d-2"}}})
				c.AddInstance(Instance{ID: "i-2", PrivateIP: "172.31.0.89", ChargeType: "PrePaid"})
				c.AddImage(Image{ID: "m-1", Owner: "system"})
				c.AddLoadBalancer(LoadBalancer{ID: "lb-1",
					Listeners: []Listener{{Port: 80, Protocol: "http", BackendPort: 80, HealthCheck: true, Rules: []Rule{{ID: "rule-1", Name: "n", Domain: "a.example", VServerGroup: "rsp-1"}}}, {Port: 81, BackendPort: 81}},
					Default:   []Backend{{ServerID: "i-1", Weight: 100}}, Groups: []VServerGroup{{ID: "rsp-1", Name: "g", Backends: []Backend{{ServerID: "i-1", Port: 80, Weight: 100}}}}})
				var all []*action
				for _, p := range products() {
					for _, a := range p.actions {
						if a.name != "CreateKeyPair" { // making a key costs more than all the rest
							all = append(all, c.actions[p.version][a.name])
						}
					}
				}
				good, done := 0, map[string]bool{}
				for n := range 600 {
					a := all[r.IntN(len(all))]
					p := map[string]string{"Version": a.version, "Action": a.name, "RegionId": "cn-hangzhou", "Format": []string{"JSON", "JSON", "XML"}[r.IntN(3)]}
					for _, q := range a.params {
						// What is required always, of the rest a few.
						if q.served && (q.required || r.IntN(8) == 0) && !strings.HasPrefix(q.name, "DryRun") {
							p[strings.NewReplacer("#", "1", "*", "Member").Replace(q.name)] = c.anything(r, q)
						}
					}
					status := c.signedCall(t, p, n)
					if status == 200 {
						good++
						done[a.name] = true
					}
					if r.IntN(10) == 0 {
						time.Sleep(time.Duration(r.IntN(400)) * time.Second)
					}
					c.consistent(t, a.name)
				}
				t.Logf("%d of 600 calls, %d of %d actions were carried out", good, len(done), len(all))
				require.Greater(t, good, 60, "most of the walk was refused")
			})
		})
	}
}

// anything is a value for a parameter: often the right one.
func (c *Cloud) anything(r *rand.Rand, q param) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	pick := func(l ...string) string { return l[r.IntN(len(l))] }
	some := func(prefix string) string {
		var l []string
		for _, res := range c.instances {
			l = append(l, res.ID, res.ENI)
		}
		for id := range c.disks {
			l = append(l, id)
		}
		for id := range c.snapshots {
			l = append(l, id)
		}
		for id := range c.images {
			l = append(l, id)
		}
		for id := range c.groups {
			l = append(l, id)
		}
		for id := range c.invocations {
			l = append(l, id)
		}
		for id := range c.vpcs {
			l = append(l, id)
		}
		for id := range c.vswitches {
			l = append(l, id)
		}
		for id := range c.securityGroups {
			l = append(l, id)
		}
		for id := range c.balancers {
			l = append(l, id)
		}
		slices.Sort(l)
		l = slices.DeleteFunc(l, func(id string) bool { return !strings.HasPrefix(id, prefix) })
		if len(l) == 0 || r.IntN(12) == 0 {
			return prefix + "none"
		}
		return l[r.IntN(len(l))]
	}
	value := func() string {
		last := q.name[strings.LastIndexByte(strings.TrimSuffix(q.name, ".#"), '.')+1:]
		last = strings.TrimSuffix(strings.TrimSuffix(last, ".#"), "s")
		switch last {
		case "InstanceId", "ServerId", "ResourceId":
			return some("i-")
		case "DiskId", "ExcludeDiskId":
			return some("d-")
		case "SnapshotId":
			return some("s-")
		case "ImageId":
			return some("m-")
		case "SnapshotGroupId":
			return some("ssg-")
		case "InvokeId":
			return some("t-")
		case "VpcId":
			return some("vpc-")
		case "VSwitchId":
			return some("vsw-")
		case "SecurityGroupId":
			return some("sg-")
		case "LoadBalancerId":
			return some("lb-")
		case "VServerGroupId":
			return pick("rsp-1", "rsp-none")
		case "RegionId":
			return "cn-hangzhou"
		case "ZoneId":
			return pick("cn-hangzhou-h", "cn-hangzhou-i")
		case "InstanceType":
			return pick("ecs.g6.large", "ecs.zz.large")
		case "KeyPairName":
			return pick("kp", "kp2", "kp3")
		case "ResourceType":
			return pick("instance", "disk", "image", "snapshot", "nothing")
		case "Type":
			return "RunShellScript"
		case "DestinationResource":
			return pick("InstanceType", "SystemDisk", "Zone", "x")
		case "BackendServer":
			return pick(`[{"ServerId":"i-1","Weight":1}]`, `[{'ServerId':'i-2','Port':'80','Weight':'0'}]`, `[{"ServerId":"i-1","Port":80}]`, `[]`, `x`)
		case "CidrBlock":
			return pick("10.0.0.0/16", "172.31.1.0/24", "x")
		case "ClientToken":
			return pick("a", "b")
		}
		return pick("x", "1", "web", "self")
	}
	switch q.kind {
	case "int":
		return pick("1", "10", "80", "0", "100", "-1")
	case "bool":
		return pick("true", "false")
	case "ids":
		return `["` + value() + `"]`
	case "json":
		return pick(`[{"ServerId":"i-1"}]`, `{}`, `[]`, `["x"]`, `[{"RuleName":"n","Domain":"b.example","VServerGroupId":"rsp-1"}]`, `null`, `1`)
	}
	return value()
}

// signedCall sends parameters, sees that the answer is a whole one and returns
// its status.
func (c *Cloud) signedCall(t *testing.T, p map[string]string, nonce int) int {
	t.Helper()
	for k, v := range map[string]string{"AccessKeyId": "id", "SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0",
		"SignatureNonce": strconv.Itoa(nonce), "Timestamp": time.Now().UTC().Format(stampSeconds)} {
		p[k] = v
	}
	form := url.Values{"Signature": {signature("POST", p, "secret")}}
	for k, v := range p {
		form.Set(k, v)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://cloud.invalid/", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var reply struct {
		RequestID string `json:"RequestId" xml:"RequestId"`
		Code      string
		Message   string
	}
	if p["Format"] == "XML" {
		err = xml.Unmarshal(body, &reply)
	} else {
		err = json.Unmarshal(body, &reply)
	}
	if bad := new(json.UnmarshalTypeError); resp.StatusCode == 200 && errors.As(err, &bad) {
		err = nil // some answers have a Code of their own
	}
	require.NoErrorf(t, err, "%v: %s", p, body)
	require.NotEmptyf(t, reply.RequestID, "%v: %s", p, body)
	if resp.StatusCode != 200 {
		require.NotEmptyf(t, reply.Code, "%v: %s", p, body)
		require.NotEmptyf(t, reply.Message, "%v: %s", p, body)
		require.Lessf(t, resp.StatusCode, 500, "%v: %s", p, body)
	}
	return resp.StatusCode
}

// consistent checks that what the account holds fits together.
func (c *Cloud) consistent(t *testing.T, after string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := func(format string, args ...any) string { return "after " + after + ": " + fmt.Sprintf(format, args...) }
	ips := map[string]string{}
	for id, i := range c.instances {
		require.Empty(t, ips[i.PrivateIP], at("%s and %s have one address", id, ips[i.PrivateIP]))
		ips[i.PrivateIP] = id
		require.NoError(t, i.ctx.Err(), at("%s is there and gone", id))
		system, devices := 0, map[string]bool{}
		for _, d := range c.disksOf(i) {
			if d.Type == "system" {
				system++
			}
			require.False(t, devices[d.Device], at("%s has two disks at %s", id, d.Device))
			devices[d.Device] = true
		}
		require.Equal(t, 1, system, at("system disks of %s", id))
	}
	for _, ip := range c.freeIPs {
		require.Empty(t, ips[ip], at("%s is free and used", ip))
	}
	for id, d := range c.disks {
		require.True(t, d.instance == "" || c.instances[d.instance] != nil, at("the disk %s is attached to %s", id, d.instance))
	}
	for id, i := range c.images {
		for _, m := range i.mappings {
			require.True(t, m.snapshot == "" || c.snapshots[m.snapshot] != nil, at("the image %s lost its snapshot %s", id, m.snapshot))
		}
	}
	running := map[string]string{}
	for id, s := range c.snapshots {
		if s.disk != "" && s.status() == "progressing" {
			require.Empty(t, running[s.disk], at("two snapshots of %s", s.disk))
			running[s.disk] = id
		}
	}
	for id, b := range c.balancers {
		for _, m := range b.members() {
			require.True(t, c.server(m) != nil, at("%s holds %s, which is gone", id, m.ServerID))
		}
	}
}

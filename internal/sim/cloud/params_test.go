package cloud

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// required is, action by action, what the published contracts call required
// besides RegionId. An action that is not here is not served.
var required = map[string]string{
	"DescribeInstances": "", "DescribeInstanceAttribute": "InstanceId", "DescribeInstanceStatus": "", "DescribeDisks": "",
	"CreateSnapshot": "DiskId", "DescribeSnapshots": "", "DeleteSnapshot": "SnapshotId",
	"CreateImage": "", "DescribeImages": "", "DeleteImage": "ImageId",
	"RunInstances": "", "StartInstance": "InstanceId", "StopInstance": "InstanceId", "RebootInstance": "InstanceId",
	"DeleteInstance": "InstanceId", "ModifyInstanceAutoReleaseTime": "InstanceId", "ModifyInstanceAttribute": "InstanceId",
	"TagResources": "ResourceId.1 ResourceType Tag.1.Key Tag.1.Value", "DescribeUserData": "InstanceId", "DescribeInstanceRamRole": "",
	"RunCommand": "CommandContent Type", "DescribeInvocationResults": "", "DescribeCloudAssistantStatus": "", "DescribeRegions": "",

	"DescribeLoadBalancers": "", "DescribeLoadBalancerAttribute": "LoadBalancerId", "DescribeLoadBalancerListeners": "",
	"DescribeVServerGroups": "LoadBalancerId", "DescribeVServerGroupAttribute": "VServerGroupId",
	"SetVServerGroupAttribute":         "VServerGroupId",
	"AddVServerGroupBackendServers":    "BackendServers VServerGroupId",
	"RemoveVServerGroupBackendServers": "BackendServers VServerGroupId",
	"AddBackendServers":                "LoadBalancerId", "SetBackendServers": "LoadBalancerId", "RemoveBackendServers": "BackendServers LoadBalancerId",
	"DescribeHealthStatus": "LoadBalancerId", "DescribeRules": "ListenerPort LoadBalancerId", "DescribeMasterSlaveServerGroups": "LoadBalancerId",
}

// noRegion are the actions whose contract does not require RegionId.
const noRegion = `DescribeInstanceAttribute CreateSnapshot DeleteSnapshot StartInstance StopInstance RebootInstance DeleteInstance
 ModifyInstanceAutoReleaseTime ModifyInstanceAttribute DescribeRegions DescribeLoadBalancerAttribute DescribeLoadBalancerListeners
 AddBackendServers SetBackendServers RemoveBackendServers DescribeHealthStatus`

func request(version, action string, kv ...string) map[string]string {
	p := map[string]string{"Version": version, "Action": action, "Format": "JSON", "RegionId": "cn-hangzhou"}
	for i := 0; i+1 < len(kv); i += 2 {
		p[kv[i]] = kv[i+1]
	}
	return p
}

// example returns a value that passes the check of a parameter.
func example(p param) string {
	if p.name == "RegionId" {
		return "cn-hangzhou"
	}
	return map[string]string{"": "x", "int": "1", "bool": "true", "ids": `["x"]`}[p.kind]
}

// complete returns a request with every required parameter of an action.
func complete(version string, a *action) map[string]string {
	p := request(version, a.name)
	for _, q := range a.params {
		if q.required && q.name != "RegionId" {
			p[strings.ReplaceAll(q.name, "#", "1")] = example(q)
		}
	}
	return p
}

func TestParameterTables(t *testing.T) {
	c := New(Config{})
	defer c.Close()
	word := regexp.MustCompile(`^[A-Z][A-Za-z0-9]*(\.(#|\*|[0-9]|[A-Za-z][A-Za-z0-9]*))*$`)
	served := 0
	for version, actions := range c.actions {
		for name, a := range actions {
			served++
			want, known := required[name]
			assert.Truef(t, known, "%s has no entry here", name)
			for _, p := range a.params {
				assert.Regexpf(t, word, p.name, "a word of %s", name)
				assert.Containsf(t, []string{"", "int", "bool", "ids"}, p.kind, "%s of %s", p.name, name)
				assert.Falsef(t, p.required && !p.served, "%s of %s is required and not served", p.name, name)
			}
			full := complete(version, a)
			_, err := c.parse(full)
			assert.Nilf(t, err, "%s: %v", name, err)

			for _, p := range strings.Fields(want) {
				without := complete(version, a)
				delete(without, p)
				_, err := c.parse(without)
				if assert.NotNilf(t, err, "%s without %s", name, p) {
					assert.Equal(t, "MissingParameter", err.code)
					assert.True(t, err.refused)
				}
			}
			without := complete(version, a)
			delete(without, "RegionId")
			_, err = c.parse(without)
			assert.Equalf(t, !slices.Contains(strings.Fields(noRegion), name), err != nil, "%s without RegionId", name)

			for _, p := range a.params {
				given := complete(version, a)
				concrete := strings.NewReplacer("#", "1", "*", "Member").Replace(p.name)
				given[concrete] = example(p)
				_, err := c.parse(given)
				if p.served {
					assert.Nilf(t, err, "%s %s: %v", name, concrete, err)
				} else if assert.NotNilf(t, err, "%s %s is not simulated", name, concrete) {
					assert.Equal(t, "UnsupportedParameter", err.code)
					given[concrete] = ""
					_, err = c.parse(given)
					assert.Nilf(t, err, "%s: an empty %s is none", name, concrete)
				}
			}
			given := complete(version, a)
			given["Instanceid"] = "x"
			_, err = c.parse(given)
			if assert.NotNilf(t, err, "%s: unknown parameter", name) {
				assert.Equal(t, "UnsupportedParameter", err.code)
				assert.True(t, err.refused)
			}
		}
	}
	assert.Len(t, required, served)
}

func TestParameterValues(t *testing.T) {
	c := New(Config{})
	defer c.Close()
	for _, row := range []struct{ action, name, value, code string }{
		{"DescribeInstances", "MaxResults", "many", "InvalidParameter"},
		{"DescribeInstances", "InstanceIds", "i-1", "InvalidParameter"},
		{"DescribeInstances", "InstanceIds", "[" + strings.TrimSuffix(strings.Repeat(`"i",`, 101), ",") + "]", "InvalidParameter"},
		{"DescribeInstances", "Tag.0.Key", "k", "UnsupportedParameter"},
		{"DescribeInstances", "Tag.01.Key", "k", "UnsupportedParameter"},
		{"DescribeInstances", "Tag.2.Key", "k", "InvalidParameter"},
		{"DescribeInstances", "Tag.Key", "k", "UnsupportedParameter"},
		{"DescribeImages", "IsSupportCloudinit", "yes", "InvalidParameter"},
	} {
		_, err := c.parse(request(ecsVersion, row.action, row.name, row.value))
		if assert.NotNilf(t, err, "%+v", row) {
			assert.Equalf(t, row.code, err.code, "%+v", row)
		}
	}
}

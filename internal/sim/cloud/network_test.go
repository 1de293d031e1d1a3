package cloud_test

import (
	"crypto/md5"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

const vpcAPI = "2016-04-28"

// A VPC and what is in it are made in the order that the cloud asks for, in
// either version of the API, and go in the opposite one.
func TestNetworks(t *testing.T) {
	for _, version := range []string{ecs, vpcAPI} {
		world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
			r := a.ok(version, "CreateVpc", "CidrBlock", "10.8.0.0/16", "VpcName", "n")
			vpc := r.Str("VpcId")
			assert.NotEmpty(t, r.Str("RouteTableId"))
			a.no(400, "IncorrectVpcStatus", version, "CreateVSwitch", "VpcId", vpc, "ZoneId", "cn-hangzhou-h", "CidrBlock", "10.8.1.0/24")
			time.Sleep(3 * time.Second)
			assert.Equal(t, "Available", a.ok(version, "DescribeVpcs", "VpcId", vpc).At("Vpcs.Vpc.0.Status"))
			for cidr, code := range map[string]string{"10.9.0.0/24": "InvalidCidrBlock.Malformed", "10.8.1.1/24": "InvalidCidrBlock.Malformed", "10.8.0.0/30": "InvalidCidrBlock.Malformed"} {
				a.no(400, code, version, "CreateVSwitch", "VpcId", vpc, "ZoneId", "cn-hangzhou-h", "CidrBlock", cidr)
			}
			vsw := a.ok(version, "CreateVSwitch", "VpcId", vpc, "ZoneId", "cn-hangzhou-h", "CidrBlock", "10.8.1.0/29").Str("VSwitchId")
			a.no(400, "InvalidCidrBlock.Overlapped", version, "CreateVSwitch", "VpcId", vpc, "ZoneId", "cn-hangzhou-h", "CidrBlock", "10.8.1.0/24")
			time.Sleep(3 * time.Second)
			sg := a.ok(ecs, "CreateSecurityGroup", "VpcId", vpc).Str("SecurityGroupId")

			// Of eight addresses the first and the last three are the cloud's.
			img := a.image()
			run := []string{"ImageId", img, "InstanceType", "ecs.g6.large", "VSwitchId", vsw, "SecurityGroupId", sg}
			a.no(403, "QuotaExceeded.PrivateIpAddress", ecs, "RunInstances", append(run, "Amount", "5")...)
			ids := a.ok(ecs, "RunInstances", append(run, "Amount", "4")...)
			time.Sleep(time.Minute)
			seen := map[string]bool{}
			for i := range 4 {
				seen[c.InstanceIP(ids.Str("InstanceIdSets.InstanceIdSet."+string(rune('0'+i))))] = true
			}
			assert.Equal(t, map[string]bool{"10.8.1.1": true, "10.8.1.2": true, "10.8.1.3": true, "10.8.1.4": true}, seen)
			assert.EqualValues(t, 0, a.ok(version, "DescribeVSwitches", "VSwitchId", vsw).At("VSwitches.VSwitch.0.AvailableIpAddressCount"))

			a.no(400, "DependencyViolation", version, "DeleteVSwitch", "VSwitchId", vsw)
			a.no(400, "DependencyViolation.VSwitch", version, "DeleteVpc", "VpcId", vpc)
			a.no(403, "DependencyViolation", ecs, "DeleteSecurityGroup", "SecurityGroupId", sg)
			for i := range 4 {
				a.ok(ecs, "DeleteInstance", "InstanceId", ids.Str("InstanceIdSets.InstanceIdSet."+string(rune('0'+i))), "Force", "true")
			}
			time.Sleep(time.Minute)
			a.ok(version, "DeleteVSwitch", "VSwitchId", vsw)
			a.no(400, "DependencyViolation.SecurityGroup", version, "DeleteVpc", "VpcId", vpc)
			a.ok(ecs, "DeleteSecurityGroup", "SecurityGroupId", sg)
			a.ok(version, "DeleteVpc", "VpcId", vpc)
			a.no(404, "InvalidVpcId.NotFound", version, "DeleteVpc", "VpcId", vpc)
		})
	}
}

// Rules are added once, shown by direction, and removed by what they are or by
// their ID; a group that another one's rules name stays.
func TestSecurityGroupRules(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		one, two := a.ok(ecs, "CreateSecurityGroup").Str("SecurityGroupId"), a.ok(ecs, "CreateSecurityGroup").Str("SecurityGroupId")
		ingress := []string{"SecurityGroupId", one, "IpProtocol", "tcp", "PortRange", "80/443", "SourceCidrIp", "10.0.0.0/8", "Priority", "3"}
		a.ok(ecs, "AuthorizeSecurityGroup", ingress...)
		a.ok(ecs, "AuthorizeSecurityGroup", ingress...)
		a.ok(ecs, "AuthorizeSecurityGroup", "SecurityGroupId", one, "Permissions.1.IpProtocol", "ALL", "Permissions.1.PortRange", "-1/-1", "Permissions.1.SourceGroupId", two,
			"Permissions.2.IpProtocol", "UDP", "Permissions.2.PortRange", "53/53", "Permissions.2.Ipv6SourceCidrIp", "2001:db8::/32", "Permissions.2.Policy", "drop")
		a.ok(ecs, "AuthorizeSecurityGroupEgress", "SecurityGroupId", one, "IpProtocol", "icmp", "PortRange", "-1/-1", "DestCidrIp", "0.0.0.0/0")
		for _, bad := range [][]string{
			{"IpProtocol", "tcp", "PortRange", "80", "SourceCidrIp", "10.0.0.0/8"}, {"IpProtocol", "tcp", "PortRange", "80/79", "SourceCidrIp", "10.0.0.0/8"},
			{"IpProtocol", "icmp", "PortRange", "1/1", "SourceCidrIp", "10.0.0.0/8"}, {"IpProtocol", "tcp", "PortRange", "80/80"},
			{"IpProtocol", "tcp", "PortRange", "80/80", "SourceCidrIp", "10.0.0.0/8", "SourceGroupId", two}, {"IpProtocol", "tcp", "PortRange", "80/80", "SourceCidrIp", "2001:db8::/32"},
			{"IpProtocol", "tcp", "PortRange", "80/80", "SourceCidrIp", "10.0.0.0/8", "Priority", "101"}, {"IpProtocol", "quic", "PortRange", "80/80", "SourceCidrIp", "10.0.0.0/8"},
		} {
			r := a.call(ecs, "AuthorizeSecurityGroup", append([]string{"SecurityGroupId", one}, bad...)...)
			assert.Equalf(t, 400, r.Status, "%v", bad)
		}
		r := a.ok(ecs, "DescribeSecurityGroupAttribute", "SecurityGroupId", one, "Direction", "ingress")
		assert.Equal(t, 3, r.Len("Permissions.Permission"))
		assert.Equal(t, "3", r.At("Permissions.Permission.0.Priority"), "a string")
		assert.Equal(t, "2001:db8::/32", r.At("Permissions.Permission.2.Ipv6SourceCidrIp"))
		assert.Equal(t, "Drop", r.At("Permissions.Permission.2.Policy"))
		out := a.ok(ecs, "DescribeSecurityGroupAttribute", "SecurityGroupId", one, "Direction", "egress")
		assert.Equal(t, 1, out.Len("Permissions.Permission"))
		assert.Equal(t, "0.0.0.0/0", out.At("Permissions.Permission.0.DestCidrIp"))
		assert.Empty(t, out.At("Permissions.Permission.0.SourceCidrIp"))
		a.no(403, "DependencyViolation", ecs, "DeleteSecurityGroup", "SecurityGroupId", two)
		a.ok(ecs, "RevokeSecurityGroup", ingress...)
		a.ok(ecs, "RevokeSecurityGroup", "SecurityGroupId", one, "SecurityGroupRuleId.1", r.Str("Permissions.Permission.1.SecurityGroupRuleId"))
		assert.Equal(t, 2, a.ok(ecs, "DescribeSecurityGroupAttribute", "SecurityGroupId", one).Len("Permissions.Permission"))
		a.ok(ecs, "DeleteSecurityGroup", "SecurityGroupId", two)

		// An instance keeps at least one group.
		a.no(403, "InstanceLastSecurityGroup", ecs, "LeaveSecurityGroup", "SecurityGroupId", "sg-sim", "InstanceId", "i-web90")
		a.ok(ecs, "JoinSecurityGroup", "SecurityGroupId", one, "InstanceId", "i-web90")
		a.no(403, "InvalidInstanceId.AlreadyExists", ecs, "JoinSecurityGroup", "SecurityGroupId", one, "InstanceId", "i-web90")
		a.ok(ecs, "LeaveSecurityGroup", "SecurityGroupId", "sg-sim", "InstanceId", "i-web90")
		assert.Equal(t, one, a.ok(ecs, "DescribeNetworkInterfaces", "InstanceId", "i-web90").At("NetworkInterfaceSets.NetworkInterfaceSet.0.SecurityGroupIds.SecurityGroupId.0"))
	})
}

// A key pair's two halves belong together, and its fingerprint is the one that
// ssh-keygen shows (MD5, without colons).
func TestKeyPairs(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		made := a.ok(ecs, "CreateKeyPair", "KeyPairName", "one")
		block, _ := pem.Decode([]byte(made.Str("PrivateKeyBody")))
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		assert.NoError(t, err)
		line := a.ok(ecs, "DescribeKeyPairs", "KeyPairName", "one", "IncludePublicKey", "true").Str("KeyPairs.KeyPair.0.PublicKey")
		encoded, isRSA := strings.CutPrefix(line, "ssh-rsa ")
		assert.True(t, isRSA)
		public, err := base64.StdEncoding.DecodeString(encoded)
		assert.NoError(t, err)
		// RFC 4253, section 6.6: string "ssh-rsa", mpint e, mpint n; the first bit
		// of n is set, so that a zero byte stands before it.
		assert.Equal(t, "\x00\x00\x00\x07ssh-rsa\x00\x00\x00\x03\x01\x00\x01\x00\x00\x01\x01\x00"+string(key.N.Bytes()), string(public))
		assert.Equal(t, fmt.Sprintf("%x", md5.Sum(public)), made.Str("KeyPairFingerPrint"))
		assert.Equal(t, made.Str("KeyPairFingerPrint"), a.ok(ecs, "ImportKeyPair", "KeyPairName", "two", "PublicKeyBody", line+" comment").Str("KeyPairFingerPrint"))
		a.no(400, "KeyPair.AlreadyExist", ecs, "CreateKeyPair", "KeyPairName", "one")
		a.no(400, "InvalidPublicKeyBody.Malformed", ecs, "ImportKeyPair", "KeyPairName", "three", "PublicKeyBody", "ssh-rsa AAAA")

		r := a.ok(ecs, "AttachKeyPair", "KeyPairName", "one", "InstanceIds", `["i-web90"]`)
		assert.Equal(t, "0", r.At("FailCount"), "a string")
		assert.Equal(t, "true", r.At("Results.Result.0.Success"))
		assert.Equal(t, "one", a.ok(ecs, "DescribeInstances", "InstanceIds", `["i-web90"]`).At("Instances.Instance.0.KeyPairName"))
		assert.Equal(t, "1", a.ok(ecs, "DetachKeyPair", "KeyPairName", "two", "InstanceIds", `["i-web90"]`).At("FailCount"))
		a.no(403, "InvalidParameter.KeypairAlreadyAttachedInstance", ecs, "DeleteKeyPairs", "KeyPairNames", `["two","one"]`)
		a.ok(ecs, "DetachKeyPair", "KeyPairName", "one", "InstanceIds", `["i-web90"]`)
		a.ok(ecs, "DeleteKeyPairs", "KeyPairNames", `["two","one"]`)
		assert.Equal(t, 0, a.ok(ecs, "DescribeKeyPairs", "KeyPairName", "one").Len("KeyPairs.KeyPair"))
	})
}

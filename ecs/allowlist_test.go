package ecs_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// trust runs f with a client on a cloud that knows one instance.
func trust(t *testing.T, f func(t *testing.T, sim *cloud.Cloud, c *ecs.Client)) {
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: "LTAItrust", AccessKeySecret: "secretOfTheTrustTest"})
		defer sim.Close()
		sim.AddInstance(cloud.Instance{ID: "i-90", PrivateIP: "172.31.0.90"})
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: "LTAItrust", AccessKeySecret: "secretOfTheTrustTest"}, ecs.WithTransport(sim.Transport()))
		require.NoError(t, err)
		f(t, sim, c)
		assert.Empty(t, sim.Refused())
	})
}

func TestListTrust(t *testing.T) {
	trust(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client) {
		for n := range 120 { // more than a page of instances that do not know us
			sim.AddDatabase(cloud.Database{Product: "rds", ID: fmt.Sprintf("rm-x%d", n), AllowLists: map[string][]string{"default": {"172.31.0.9", "172.31.0.0/32"}}})
		}
		for _, p := range []string{"rds", "r-kvstore", "dds", "polardb"} {
			sim.AddDatabase(cloud.Database{Product: p, ID: p + "-narrow", Name: "orders", AllowLists: map[string][]string{"app": {"10.1.2.3", "172.31.0.90"}}})
			sim.AddDatabase(cloud.Database{Product: p, ID: p + "-block", AllowLists: map[string][]string{"app": {"172.31.0.90"}, "vpc": {"172.31.0.0/16"}}})
			sim.AddDatabase(cloud.Database{Product: p, ID: p + "-open", AllowLists: map[string][]string{"all": {"0.0.0.0/0"}}})
			sim.AddDatabase(cloud.Database{Product: p, ID: p + "-stranger", AllowLists: map[string][]string{"default": {"172.31.0.9"}}})
			sim.AddDatabase(cloud.Database{Product: p, ID: p + "-part", AllowLists: map[string][]string{"app": {"172.31.0.64/27"}}})
		}
		sim.AddDatabase(cloud.Database{Product: "dds", ID: "dds-shards", Type: "sharding", AllowLists: map[string][]string{"app": {"172.31.0.90"}}})
		sim.AddDatabase(cloud.Database{Product: "polardb", ID: "pc-group", AllowLists: map[string][]string{"app": {"172.31.0.90"}}, SecurityGroups: []string{"sg-app"}})

		found, err := c.ListTrust(t.Context(), ecs.TrustQuery{Old: []string{"172.31.0.90"}, New: []string{"172.31.0.101"}, Groups: []string{"sg-app"}})
		require.NoError(t, err)
		var got []string
		for _, f := range found {
			got = append(got, f.Severity+" "+f.Product+" "+f.ID)
			assert.Equal(t, ecs.TrustAllowList, f.Kind)
			assert.Contains(t, f.Evidence, "172.31.0.101")
			assert.Contains(t, f.Remedy, "172.31.0.101")
		}
		assert.ElementsMatch(t, []string{
			"block rds rds-narrow", "block rds rds-part", "block redis r-kvstore-narrow", "block redis r-kvstore-part",
			"block mongodb dds-narrow", "block mongodb dds-part", "block mongodb dds-shards", "block polardb polardb-narrow", "block polardb polardb-part",
		}, got)

		// Before the clone exists its address is known by its block only.
		found, err = c.ListTrust(t.Context(), ecs.TrustQuery{Old: []string{"172.31.0.90"}, New: []string{"172.31.0.0/20"}})
		require.NoError(t, err)
		assert.Len(t, found, 10, "the group is not ours now")

		for _, q := range []ecs.TrustQuery{{}, {Old: []string{"172.31.0.90"}}, {Old: []string{"x"}, New: []string{"172.31.0.1"}}, {Old: []string{"172.31.0.90"}, New: []string{"172.31.0.300"}}} {
			_, err = c.ListTrust(t.Context(), q)
			require.Error(t, err)
		}
	})
}

// TestTrustNotChecked: a product that may not be asked is named, and the others
// are asked all the same.
func TestTrustNotChecked(t *testing.T) {
	for denied, permission := range map[string]string{
		"rds:DescribeDBInstances": "rds:DescribeDBInstances", "rds:DescribeDBInstanceIPArrayList": "rds:DescribeDBInstanceIPArrayList",
		"r-kvstore:DescribeInstances": "kvstore:DescribeInstances", "dds:DescribeSecurityIps": "dds:DescribeSecurityIps", "polardb:DescribeDBClusters": "polardb:DescribeDBClusters",
	} {
		trust(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client) {
			sim.Deny(denied)
			for _, p := range []string{"rds", "r-kvstore", "dds", "polardb"} {
				sim.AddDatabase(cloud.Database{Product: p, ID: p + "-1", AllowLists: map[string][]string{"app": {"172.31.0.90"}}})
			}
			found, err := c.ListTrust(t.Context(), ecs.TrustQuery{Old: []string{"172.31.0.90"}, New: []string{"172.31.0.101"}})
			require.NoError(t, err)
			require.Len(t, found, 4)
			n := slices.IndexFunc(found, func(f ecs.TrustFinding) bool { return f.Kind == ecs.TrustNotChecked })
			require.GreaterOrEqual(t, n, 0)
			assert.Equal(t, "not checked: needs "+permission, found[n].Evidence)
		})
	}
	trust(t, func(t *testing.T, sim *cloud.Cloud, _ *ecs.Client) {
		c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: "LTAItrust", AccessKeySecret: "not the secret"}, ecs.WithTransport(sim.Transport()))
		require.NoError(t, err)
		_, err = c.ListTrust(t.Context(), ecs.TrustQuery{Old: []string{"172.31.0.90"}, New: []string{"172.31.0.101"}})
		require.ErrorIs(t, err, ecs.ErrCredentials)
	})
}

package ecs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// FuzzTrust holds the comparison against counting: a database is found exactly
// when its entries hold the old address and leave out some new one.
func FuzzTrust(f *testing.F) {
	f.Add("172.31.0.90,10.0.0.0/8", byte(90), byte(101))
	f.Add("172.31.0.64/26", byte(90), byte(101))
	f.Add("0.0.0.0/0", byte(1), byte(2))
	f.Add(" 172.31.0.90 ,,%,rds-group,::1", byte(90), byte(90))
	f.Fuzz(func(t *testing.T, entries string, from, to byte) {
		if len(entries) > 200 || strings.ContainsFunc(entries, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Skip("no list of addresses")
		}
		list := strings.Split(entries, ",")
		before, after := netip.AddrFrom4([4]byte{172, 31, 0, from}), netip.AddrFrom4([4]byte{172, 31, 0, to})
		holds := func(a netip.Addr) bool {
			return slices.ContainsFunc(list, func(e string) bool {
				e = strings.TrimSpace(e)
				if x, err := netip.ParseAddr(e); err == nil {
					return x.Unmap() == a
				}
				p, err := netip.ParsePrefix(e)
				return err == nil && p.Contains(a)
			})
		}
		older, err := prefixes([]string{before.String()})
		require.NoError(t, err)
		newer, err := prefixes([]string{after.String()})
		require.NoError(t, err)
		found := missing([]alicloud.AllowList{{Product: "rds", ID: "rm-1", Group: "app", Entries: entries}}, older, newer, nil)
		assert.Equal(t, holds(before) && !holds(after), len(found) == 1, "%q %s %s: %v", entries, before, after, found)
	})
}

func TestSecurityGroupTrust(t *testing.T) {
	rule := func(group, source, protocol, ports string) alicloud.SecurityGroupRule {
		return alicloud.SecurityGroupRule{GroupID: group, Source: source, Protocol: protocol, Ports: ports}
	}
	rules := []alicloud.SecurityGroupRule{
		rule("sg-db", "172.31.0.90", "TCP", "3306/3306"), rule("sg-db", "10.0.0.0/8", "TCP", "3306/3306"),
		rule("sg-web", "172.31.0.90/32", "TCP", "80/80"), rule("sg-web", "172.31.0.0/16", "TCP", "80/80"),
		rule("sg-ssh", "172.31.0.90", "TCP", "22/22"), rule("sg-ssh", "172.31.0.0/16", "TCP", "80/80"),
		rule("sg-all", "172.31.0.90", "UDP", "53/53"), rule("sg-all", "172.31.0.0/24", "ALL", "-1/-1"),
		rule("sg-other", "172.31.0.9", "TCP", "1/1"),
	}
	older, err := prefixes([]string{"172.31.0.90"})
	require.NoError(t, err)
	newer, err := prefixes([]string{"172.31.0.101"})
	require.NoError(t, err)
	var got []string
	for _, f := range missingRules(rules, older, newer) {
		assert.Equal(t, SeverityBlock, f.Severity)
		got = append(got, f.ID)
	}
	assert.Equal(t, []string{"sg-db", "sg-ssh"}, got)
}

package alicloud

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// sdkShapes reads the structs of an SDK package from its source: to compile
// those packages would take minutes.
func sdkShapes(t *testing.T, pkg string) map[string]*ast.StructType {
	t.Helper()
	// Package go/build does not find modules in a test built with -trimpath.
	dir, err := exec.Command("go", "list", "-find", "-f", "{{.Dir}}", "github.com/aliyun/alibaba-cloud-sdk-go/services/"+pkg).Output()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	all := map[string]*ast.StructType{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				if ts, ok := s.(*ast.TypeSpec); ok {
					if st, ok := ts.Type.(*ast.StructType); ok {
						all[ts.Name.Name] = st
					}
				}
			}
		}
	}
	return all
}

// misfit says where a JSON value would not decode strictly into a type.
func misfit(shapes map[string]*ast.StructType, path string, v any, to ast.Expr) []string {
	wrong := func() []string { return []string{fmt.Sprintf("%s is %T", path, v)} }
	switch to := to.(type) {
	case *ast.ArrayType:
		list, ok := v.([]any)
		if !ok {
			return wrong()
		}
		var all []string
		for i, x := range list {
			all = append(all, misfit(shapes, fmt.Sprintf("%s[%d]", path, i), x, to.Elt)...)
		}
		return all
	case *ast.Ident:
		switch to.Name {
		case "string":
			if _, ok := v.(string); !ok {
				return wrong()
			}
			return nil
		case "bool":
			if _, ok := v.(bool); !ok {
				return wrong()
			}
			return nil
		case "int", "int64":
			if n, ok := v.(json.Number); !ok || strings.ContainsAny(n.String(), ".eE") {
				return wrong()
			}
			return nil
		case "float64":
			if _, ok := v.(json.Number); !ok {
				return wrong()
			}
			return nil
		}
		shape := shapes[to.Name]
		m, ok := v.(map[string]any)
		if shape == nil || !ok {
			return wrong()
		}
		fields := map[string]ast.Expr{}
		for _, f := range shape.Fields.List {
			if f.Tag != nil {
				fields[reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")] = f.Type
			}
		}
		var all []string
		for k, x := range m {
			if fields[k] == nil {
				all = append(all, path+"."+k+" is not known")
				continue
			}
			all = append(all, misfit(shapes, path+"."+k, x, fields[k])...)
		}
		return all
	}
	return wrong()
}

// answersSeen keeps every answer, by action.
type answersSeen struct {
	next http.RoundTripper
	of   map[string][][]byte
}

func (s *answersSeen) RoundTrip(r *http.Request) (*http.Response, error) {
	var form []byte
	if r.Body != nil {
		form, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(form))
	}
	resp, err := s.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	v, _ := url.ParseQuery(r.URL.RawQuery + "&" + string(form))
	if resp.StatusCode == 200 {
		name := v.Get("Version") + " " + v.Get("Action")
		s.of[name] = append(s.of[name], body)
	}
	return resp, err
}

// TestShapes decodes every simulated answer of the products without a typed
// client strictly into the SDK's struct for it, and sees that our client reads
// them.
func TestShapes(t *testing.T) {
	products := map[string]struct{ pkg, version string }{
		"vpc": {"vpc", vpcVersion}, "alidns": {"alidns", dnsVersion}, "ess": {"ess", essVersion}, "rds": {"rds", "2014-08-15"},
		"r-kvstore": {"r-kvstore", "2015-01-01"}, "dds": {"dds", "2015-12-01"}, "polardb": {"polardb", "2017-08-01"},
	}
	seen := &answersSeen{of: map[string][][]byte{}}
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: "LTAIshapes", AccessKeySecret: "secretOfTheShapes"})
		defer sim.Close()
		seen.next = sim.Transport()
		c, err := New(Config{Region: "cn-hangzhou", AccessKeyID: "LTAIshapes", AccessKeySecret: "secretOfTheShapes", Transport: seen})
		require.NoError(t, err)
		ctx := context.Background()
		sim.AddInstance(cloud.Instance{ID: "i-90", PrivateIP: "172.31.0.90"})
		sim.AddNATGateway(cloud.NATGateway{ID: "ngw-1", Entries: []cloud.ForwardEntry{{ExternalIP: "203.0.113.1", ExternalPort: "80", InternalIP: "172.31.0.90", InternalPort: "80"}}})
		sim.AddHaVip(cloud.HaVip{ID: "havip-1", Address: "172.31.0.99", Master: "i-90", Instances: []string{"i-90"}})
		sim.AddRoute(cloud.Route{Destination: "10.0.0.0/8", NextHopID: "i-90"})
		sim.AddScalingMember(cloud.ScalingMember{Group: "asg-1", InstanceID: "i-90"})
		sim.AddDNSRecord(cloud.DNSRecord{Domain: "example.com", RR: "www", Value: "203.0.113.1"})
		ok := func(product, action string, params ...string) map[string]any {
			t.Helper()
			p := map[string]string{}
			for i := 0; i+1 < len(params); i += 2 {
				p[params[i]] = params[i+1]
			}
			var out map[string]any
			require.NoError(t, c.rpc(ctx, product, products[product].version, once(action), p, &out), action)
			return out
		}
		eip := ok("vpc", "AllocateEipAddress", "Bandwidth", "5")["AllocationId"].(string)
		ok("vpc", "AssociateEipAddress", "AllocationId", eip, "InstanceId", "i-90")
		time.Sleep(5 * time.Second)
		eips, err := c.EIPs(ctx, "EcsInstance", "i-90")
		require.NoError(t, err)
		assert.Len(t, eips, 1)
		assert.Equal(t, "i-90", eips[0].InstanceID)
		ok("vpc", "UnassociateEipAddress", "AllocationId", eip)
		time.Sleep(5 * time.Second)
		ok("vpc", "ReleaseEipAddress", "AllocationId", eip)
		assert.Empty(t, sim.EIPs())
		gateways, err := c.NATGateways(ctx, "vpc-sim")
		require.NoError(t, err)
		entries, err := c.ForwardEntries(ctx, gateways[0].ForwardTables[0], "172.31.0.90")
		require.NoError(t, err)
		assert.Len(t, entries, 1)
		vips, err := c.HaVips(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"i-90"}, vips[0].Instances)
		tables, err := c.RouteTables(ctx, "vpc-sim")
		require.NoError(t, err)
		routes, err := c.Routes(ctx, tables[0], "i-90")
		require.NoError(t, err)
		assert.Len(t, routes, 1)
		members, err := c.ScalingMembers(ctx, "i-90")
		require.NoError(t, err)
		assert.Len(t, members, 1)
		ok("ess", "SetInstancesProtection", "InstanceId.1", "i-90", "ScalingGroupId", "asg-1", "ProtectedFromScaleIn", "true")
		ok("ess", "EnterStandby", "InstanceId.1", "i-90", "ScalingGroupId", "asg-1")
		assert.Equal(t, "Standby", sim.ScalingMembers()[0].State)
		ok("ess", "ExitStandby", "InstanceId.1", "i-90", "ScalingGroupId", "asg-1")
		domains, err := c.Domains(ctx)
		require.NoError(t, err)
		records, err := c.DNSRecords(ctx, domains[0], "203.0.113.1")
		require.NoError(t, err)
		assert.Len(t, records, 1)
		for product, db := range map[string]struct {
			list                     func(context.Context) ([]AllowList, error)
			modify, id, list1, group string
		}{
			"rds":       {c.RDSAllowLists, "ModifySecurityIps", "DBInstanceId", "DBInstanceIPArrayName", ""},
			"r-kvstore": {c.RedisAllowLists, "ModifySecurityIps", "InstanceId", "SecurityIpGroupName", ""},
			"dds":       {c.MongoDBAllowLists, "ModifySecurityIps", "DBInstanceId", "SecurityIpGroupName", ""},
			"polardb":   {c.PolarDBAllowLists, "ModifyDBClusterAccessWhitelist", "DBClusterId", "DBClusterIPArrayName", "sg-1"},
		} {
			d := cloud.Database{Product: product, ID: "db-1", Name: "orders"}
			if db.group != "" {
				d.SecurityGroups = []string{db.group}
			}
			sim.AddDatabase(d)
			ok(product, db.modify, db.id, "db-1", db.list1, "upgradectl", "SecurityIps", "172.31.0.101", "ModifyMode", "Append")
			assert.Equal(t, []string{"172.31.0.101"}, sim.AllowList(product, "db-1", "upgradectl"))
			got, err := db.list(ctx)
			require.NoError(t, err)
			assert.Equal(t, "172.31.0.101", got[1].Entries)
			assert.Equal(t, "orders", got[1].Name)
			assert.Equal(t, "vpc-sim", got[1].VPC)
			ok(product, db.modify, db.id, "db-1", db.list1, "upgradectl", "SecurityIps", "172.31.0.101", "ModifyMode", "Delete")
			assert.Equal(t, []string{"127.0.0.1"}, sim.AllowList(product, "db-1", "upgradectl"), "an empty list lets nobody in")
		}
		assert.Empty(t, sim.Refused())
	})
	for name, p := range products {
		shapes := sdkShapes(t, p.pkg)
		for key, bodies := range seen.of {
			version, action, _ := strings.Cut(key, " ")
			if version != p.version {
				continue
			}
			for _, body := range bodies {
				d := json.NewDecoder(bytes.NewReader(body))
				d.UseNumber()
				var v any
				require.NoError(t, d.Decode(&v))
				assert.Emptyf(t, misfit(shapes, action, v, &ast.Ident{Name: action + "Response"}), "%s:%s: %s", name, action, body)
			}
		}
		for _, a := range cloud.Actions() {
			if product, action, _ := strings.Cut(a, ":"); product == name && name != "vpc" { // networks have a test of their own
				assert.Containsf(t, seen.of, p.version+" "+action, "%s is simulated and not looked at here", a)
			}
		}
	}
	for _, a := range []string{"DescribeEipAddresses", "DescribeNatGateways", "DescribeForwardTableEntries", "DescribeHaVips", "DescribeRouteTableList", "DescribeRouteEntryList"} {
		assert.Contains(t, seen.of, vpcVersion+" "+a)
	}
}

// TestSecurityGroupRules: only rules that let IPv4 addresses in are listed, of
// every group of the VPC.
func TestSecurityGroupRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := cloud.New(cloud.Config{AccessKeyID: "LTAIshapes", AccessKeySecret: "secretOfTheShapes"})
		defer sim.Close()
		c, err := New(Config{Region: "cn-hangzhou", AccessKeyID: "LTAIshapes", AccessKeySecret: "secretOfTheShapes", Transport: sim.Transport()})
		require.NoError(t, err)
		sim.AddVPC(cloud.VPC{ID: "vpc-1"})
		for n := range 60 { // more than a page
			sim.AddSecurityGroup(cloud.SecurityGroup{ID: fmt.Sprintf("sg-%d", n), VPC: "vpc-1"})
		}
		allow := func(action string, params map[string]string) {
			t.Helper()
			params["SecurityGroupId"], params["IpProtocol"] = "sg-57", "tcp"
			require.NoError(t, c.rpc(t.Context(), "ecs", "2014-05-26", once(action), params, nil))
		}
		allow("AuthorizeSecurityGroup", map[string]string{"PortRange": "3306/3306", "SourceCidrIp": "172.31.0.90"})
		allow("AuthorizeSecurityGroup", map[string]string{"PortRange": "22/22", "SourceCidrIp": "172.31.0.91", "Policy": "drop"})
		allow("AuthorizeSecurityGroup", map[string]string{"PortRange": "80/80", "SourceGroupId": "sg-1"})
		allow("AuthorizeSecurityGroupEgress", map[string]string{"PortRange": "443/443", "DestCidrIp": "172.31.0.90"})
		rules, err := c.SecurityGroupRules(t.Context(), "vpc-1")
		require.NoError(t, err)
		require.Len(t, rules, 1)
		assert.Equal(t, "sg-57 172.31.0.90/32 TCP 3306/3306", strings.Replace(fmt.Sprint(rules[0].GroupID, " ", rules[0].Source, " ", strings.ToUpper(rules[0].Protocol), " ", rules[0].Ports), "90 ", "90/32 ", 1))
	})
}

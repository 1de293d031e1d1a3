package alicloud

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCallsAreListed holds the table of actions against the source: every name
// given to read, once or again, and every name of an action given as a plain
// argument, stands in it, and nothing else does.
func TestCallsAreListed(t *testing.T) {
	listed, used := map[string]bool{}, map[string]bool{}
	seen := map[string]bool{}
	for _, c := range calls {
		for name := range strings.FieldsSeq(c.actions) {
			name = strings.TrimRight(name, "*+")
			assert.Falsef(t, seen[c.product+":"+name], "%s:%s stands there twice", c.product, name)
			seen[c.product+":"+name] = true
			listed[name] = true
		}
	}
	set := token.NewFileSet()
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, e.Name(), nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Names) == 1 && v.Names[0].Name == "action" && len(v.Values) == 1 {
				if l, ok := v.Values[0].(*ast.BasicLit); ok {
					name, _ := strconv.Unquote(l.Value)
					used[name] = true
				}
			}
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun := ""
			switch f := call.Fun.(type) {
			case *ast.Ident:
				fun = f.Name
			case *ast.SelectorExpr:
				fun = f.Sel.Name
			}
			for _, a := range call.Args {
				l, ok := a.(*ast.BasicLit)
				if !ok || l.Kind != token.STRING {
					continue
				}
				name, _ := strconv.Unquote(l.Value)
				switch fun {
				case "read", "once", "again", "groupWrite":
					used[name] = true
				}
			}
			return true
		})
	}
	require.Greater(t, len(used), 60)
	for name := range used {
		assert.Truef(t, listed[name], "the action %q is called and does not stand in the table of actions.go", name)
	}
	for name := range listed {
		assert.Truef(t, used[name], "the action %q stands in the table of actions.go and nobody calls it", name)
	}
}

func TestPermissionNames(t *testing.T) {
	for want, got := range map[string]string{
		"ecs:RunInstances":            Permission("ecs", "RunInstances"),
		"log:GetLogStoreLogs":         Permission("sls", "GetLogs"),
		"kvstore:DescribeInstances":   Permission("r-kvstore", "DescribeInstances"),
		"dds:DescribeDBInstances":     Permission("dds", "DescribeDBInstances"),
		"alidns:DescribeDomains":      Permission("alidns", "DescribeDomains"),
		"slb:SetBackendServers":       Permission("slb", "SetBackendServers"),
		"nlb:AddServersToServerGroup": Permission("nlb", "AddServersToServerGroup"),
	} {
		assert.Equal(t, want, got)
	}
	for _, c := range Calls("ecs", "slb") {
		assert.Regexp(t, `^(ecs|slb):[A-Z]\w+$`, c.Action)
		assert.False(t, c.Own && !c.Write)
	}
}

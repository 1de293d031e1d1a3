package cloud_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestRunCommand(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		m.command = func(ctx context.Context, id, script string) (int, []byte, error) {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
				return 0, []byte("half"), ctx.Err()
			}
			switch script {
			case "echo hi":
				return 0, []byte("hi from " + id + "\n"), nil
			case "exit 3":
				return 3, []byte("no"), nil
			case "long":
				return 0, []byte(strings.Repeat("a", 10) + strings.Repeat("b", 24<<10)), nil
			}
			return 0, nil, errors.New("the agent does not answer")
		}
		run := func(script string, kv ...string) string {
			return a.ok(ecs, "RunCommand", append([]string{"Type", "RunShellScript", "CommandContent", script, "InstanceId.1", "i-web90"}, kv...)...).Str("InvokeId")
		}
		const one = "Invocation.InvocationResults.InvocationResult.0."
		id := run(base64.StdEncoding.EncodeToString([]byte("echo hi")), "ContentEncoding", "Base64")
		r := a.ok(ecs, "DescribeInvocationResults", "InvokeId", id)
		_, has := r.At(strings.TrimSuffix(one, ".")).(map[string]any)["ExitCode"]
		assert.False(t, has, "no exit code before the end")
		synctest.Wait()
		assert.Equal(t, "Running", a.ok(ecs, "DescribeInvocationResults", "InvokeId", id).At(one+"InvocationStatus"))
		time.Sleep(11 * time.Second)
		r = a.ok(ecs, "DescribeInvocationResults", "InvokeId", id)
		assert.Equal(t, "Success", r.At(one+"InvocationStatus"))
		assert.Equal(t, "Finished", r.At(one+"InvokeRecordStatus"))
		assert.Equal(t, base64.StdEncoding.EncodeToString([]byte("hi from i-web90\n")), r.At(one+"Output"), "base64 unless asked")
		assert.EqualValues(t, 0, r.At(one+"ExitCode"))
		r = a.ok(ecs, "DescribeInvocationResults", "InvokeId", id, "ContentEncoding", "PlainText")
		assert.Equal(t, "hi from i-web90\n", r.At(one+"Output"))

		for _, row := range []struct{ script, timeout, status, code string }{
			{"exit 3", "60", "Failed", "ExitCodeNonzero"},
			{"lost", "60", "Failed", "ClientNotRunning"},
			{"echo hi", "5", "Timeout", "ExecutionTimeout"},
		} {
			id := run(row.script, "Timeout", row.timeout)
			time.Sleep(11 * time.Second)
			r := a.ok(ecs, "DescribeInvocationResults", "InvokeId", id)
			assert.Equal(t, row.status+" "+row.code, r.Str(one+"InvocationStatus")+" "+r.Str(one+"ErrorCode"))
		}
		id = run("long")
		time.Sleep(11 * time.Second)
		r = a.ok(ecs, "DescribeInvocationResults", "InvokeId", id, "ContentEncoding", "PlainText")
		assert.EqualValues(t, 10, r.At(one+"Dropped"))
		assert.NotContains(t, r.Str(one+"Output"), "a")

		id = run("echo hi")
		synctest.Wait()
		a.ok(ecs, "DeleteInstance", "InstanceId", "i-web90", "Force", "true")
		synctest.Wait()
		assert.Equal(t, "InstanceReleased", a.ok(ecs, "DescribeInvocationResults", "InvokeId", id).At(one+"ErrorCode"))
	})
}

func TestRunCommandRefusals(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		for _, row := range []struct {
			status int
			code   string
			kv     []string
		}{
			{400, "InvalidCmdType.NotFound", []string{"Type", "RunBatScript"}},
			{400, "InvalidRepeatMode.NotFound", []string{"RepeatMode", "EveryReboot"}},
			{400, "InvalidParameter.CommandContent", []string{"ContentEncoding", "Base64", "CommandContent", "echo hi"}},
			{400, "CmdContent.ExceedLimit", []string{"CommandContent", strings.Repeat("x", 24<<10+1)}},
			{400, "MissingParameter", []string{"InstanceId.1", ""}},
			{404, "InvalidInstanceId.NotFound", []string{"InstanceId.1", "i-none"}},
			{400, "InvalidParameter.Timeout", []string{"Timeout", "0"}},
		} {
			a.no(row.status, row.code, ecs, "RunCommand", append([]string{"Type", "RunShellScript", "CommandContent", "true", "InstanceId.1", "i-web90"}, row.kv...)...)
		}
		a.no(404, "InvalidInvokeId.NotFound", ecs, "DescribeInvocationResults", "InvokeId", "t-none")
	})
}

func TestCloudAssistantFollowsPower(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		at := func() any {
			return a.ok(ecs, "DescribeCloudAssistantStatus", "InstanceId.1", "i-web90").
				At("InstanceCloudAssistantStatusSet.InstanceCloudAssistantStatus.0.CloudAssistantStatus")
		}
		assert.Equal(t, "true", at())
		c.PoweredOff("i-web90")
		assert.Equal(t, "false", at())
		id := a.ok(ecs, "RunCommand", "Type", "RunShellScript", "CommandContent", "true", "InstanceId.1", "i-web90").Str("InvokeId")
		synctest.Wait()
		assert.Equal(t, "InstanceNotRunning", a.ok(ecs, "DescribeInvocationResults", "InvokeId", id).At("Invocation.InvocationResults.InvocationResult.0.ErrorCode"))
	})
}

func TestWithoutMachines(t *testing.T) {
	world(t, func(cfg *cloud.Config) { cfg.Machines = nil }, func(c *cloud.Cloud, m *machines, a *api) {
		id := a.clone()
		assert.Equal(t, "Running", a.status(id))
		inv := a.ok(ecs, "RunCommand", "Type", "RunShellScript", "CommandContent", "true", "InstanceId.1", id).Str("InvokeId")
		synctest.Wait()
		assert.Equal(t, "ClientNotRunning", a.ok(ecs, "DescribeInvocationResults", "InvokeId", inv).At("Invocation.InvocationResults.InvocationResult.0.ErrorCode"))
	})
}

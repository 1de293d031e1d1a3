package cloud_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

func TestFaults(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Action: "DescribeDisks", Code: "Throttling.User", Times: 2})
		a.ok(ecs, "DescribeInstances")
		a.no(400, "Throttling.User", ecs, "DescribeDisks")
		a.no(400, "Throttling.User", ecs, "DescribeDisks")
		a.ok(ecs, "DescribeDisks")

		c.InjectFault(cloud.Fault{Code: "ServiceUnavailable", Status: 503, Times: -1})
		for range 5 {
			a.no(503, "ServiceUnavailable", ecs, "DescribeDisks")
		}
	})
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		raw := func() (int, string) {
			status, body, err := a.send("POST", a.signed("POST", ecs, "DescribeRegions"), nil)
			require.NoError(t, err)
			return status, string(body)
		}
		c.InjectFault(cloud.Fault{})
		a.no(500, "InternalError", ecs, "DescribeRegions")
		c.InjectFault(cloud.Fault{Kind: cloud.FaultHTML})
		status, body := raw()
		assert.Equal(t, 502, status)
		assert.Contains(t, body, "<html>")
		c.InjectFault(cloud.Fault{Kind: cloud.FaultNumericCode})
		status, body = raw()
		assert.Equal(t, 500, status)
		assert.Contains(t, body, `"Code":500`)
		c.InjectFault(cloud.Fault{Kind: cloud.FaultEmpty})
		status, body = raw()
		assert.Equal(t, 200, status)
		assert.Empty(t, body)
		assert.Empty(t, c.Counts(), "nothing took effect")
		assert.Empty(t, c.Refused(), "no fault of the client's")
	})
}

// The connection ends after the effect took place; only the token tells the
// second attempt that it did.
func TestCutAfterTheEffect(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Action: "CreateSnapshot", Kind: cloud.FaultCut, Applied: true})
		// What is refused anyway does not use the fault up.
		a.no(404, "InvalidDiskId.NotFound", ecs, "CreateSnapshot", "DiskId", "d-none")
		_, _, err := a.send("POST", a.signed("POST", ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", "t"), nil)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		there := a.ok(ecs, "DescribeSnapshots").Str("Snapshots.Snapshot.0.SnapshotId")
		assert.Equal(t, there, a.ok(ecs, "CreateSnapshot", "DiskId", "d-sys", "ClientToken", "t").Str("SnapshotId"))

		c.InjectFault(cloud.Fault{Action: "CreateSnapshot", Kind: cloud.FaultCut})
		_, _, err = a.send("POST", a.signed("POST", ecs, "CreateSnapshot", "DiskId", "d-data"), nil)
		require.Error(t, err)
		assert.Equal(t, 1, a.ok(ecs, "DescribeSnapshots").Len("Snapshots.Snapshot"), "cut before the effect")
	})
}

func TestSlowAnswerMeetsCancellation(t *testing.T) {
	world(t, nil, func(c *cloud.Cloud, m *machines, a *api) {
		c.InjectFault(cloud.Fault{Action: "StopInstance", Applied: true, Delay: time.Hour})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		req, err := http.NewRequestWithContext(ctx, "POST", a.base+"?"+a.signed("POST", ecs, "StopInstance", "InstanceId", "i-web90").Encode(), nil)
		require.NoError(t, err)
		_, err = a.rt.RoundTrip(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Second, time.Since(begun))
		assert.Equal(t, "Stopping", c.InstanceStatus("i-web90"), "it took effect all the same")
	})
}

package ecs_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// TestCancel: every call that can block for long ends in the moment in which its
// context does, with an error that is the context's, and leaves no goroutine.
func TestCancel(t *testing.T) {
	stuck := func(sim *cloud.Cloud, action string) {
		sim.InjectFault(cloud.Fault{Action: action, Kind: cloud.FaultStuck, Times: -1})
	}
	busy := func(sim *cloud.Cloud, action, code string) {
		sim.InjectFault(cloud.Fault{Action: action, Code: code, Status: 403, Times: -1})
	}
	snapshot := func(t *testing.T, c *ecs.Client) []string {
		snaps, err := c.CreateSnapshots(t.Context(), ecs.SnapshotInput{InstanceID: "i-web90", Token: "t"})
		require.NoError(t, err)
		return ids(snaps)
	}
	for name, call := range map[string]func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) func(ctx context.Context) error{
		"snapshots": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			stuck(sim, "CreateSnapshot")
			made := snapshot(t, c)
			return func(ctx context.Context) error { _, err := c.WaitSnapshots(ctx, made, nil); return err }
		},
		"image": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			snaps, err := c.WaitSnapshots(t.Context(), snapshot(t, c), nil)
			require.NoError(t, err)
			stuck(sim, "CreateImage")
			id, err := c.CreateImage(t.Context(), ecs.ImageInput{Name: "image", Token: "t", Snapshots: snaps})
			require.NoError(t, err)
			return func(ctx context.Context) error { _, err := c.WaitImage(ctx, id, nil); return err }
		},
		"instance": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			stuck(sim, "StopInstance")
			require.NoError(t, c.StopInstance(t.Context(), "i-web90"))
			return func(ctx context.Context) error {
				_, err := c.WaitInstance(ctx, "i-web90", ecs.StatusStopped, nil)
				return err
			}
		},
		"a snapshot of a busy disk": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			busy(sim, "CreateSnapshot", "IncorrectDiskStatus.CreatingSnapshot")
			return func(ctx context.Context) error {
				_, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: "i-web90", Token: "t"})
				return err
			}
		},
		"a stop that is refused": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			busy(sim, "StopInstance", "IncorrectInstanceStatus")
			return func(ctx context.Context) error { return c.StopInstance(ctx, "i-web90") }
		},
		"command": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			stuck(sim, "RunCommand")
			return func(ctx context.Context) error {
				_, err := c.RunCommand(ctx, ecs.CommandInput{InstanceID: "i-web90", Script: "true", Timeout: time.Hour})
				return err
			}
		},
		"host keys": func(t *testing.T, _ *cloud.Cloud, c *ecs.Client, m *machines) func(context.Context) error {
			m.notUp = 1000
			return func(ctx context.Context) error { _, err := c.HostKeys(ctx, "i-web90"); return err }
		},
		"quarantine": func(t *testing.T, _ *cloud.Cloud, c *ecs.Client, m *machines) func(context.Context) error {
			m.out["i-web90"] = "crond.service active held\n"
			return func(ctx context.Context) error {
				return c.CheckQuarantine(ctx, "i-web90", ecs.Quarantine{Units: []string{"crond"}})
			}
		},
		"reboot": func(t *testing.T, _ *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := c.RebootAndWait(ctx, "i-web90", func(context.Context) (string, error) { return "same", nil })
				return err
			}
		},
		"a throttled look": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			busy(sim, "DescribeInstances", "Throttling.User")
			return func(ctx context.Context) error {
				_, err := c.WaitInstance(ctx, "i-web90", ecs.StatusStopped, nil)
				return err
			}
		},
		"release": func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, _ *machines) func(context.Context) error {
			snaps, err := c.WaitSnapshots(t.Context(), snapshot(t, c), nil)
			require.NoError(t, err)
			busy(sim, "DeleteSnapshot", "SnapshotCreatedImage")
			return func(ctx context.Context) error {
				return c.Release(ctx, ecs.ReleaseInput{Guard: ecs.Guard{TagKey: ecs.TokenTag, TagValue: "t"}, Snapshots: ids(snaps)}, nil)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			world(t, func(t *testing.T, sim *cloud.Cloud, c *ecs.Client, m *machines) {
				const patience = 47 * time.Second
				f := call(t, sim, c, m)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun := time.Now()
				time.AfterFunc(patience, cancel)
				err := f(ctx)
				require.ErrorIs(t, err, context.Canceled)
				assert.Equal(t, patience, time.Since(begun), "%v", err)
			})
		})
	}
}

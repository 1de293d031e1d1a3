package foreign

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPacker builds an image from an instance by both roads of packer's
// builder: through a snapshot of the system disk, and from the instance with
// all of its disks. The builder has no setting for an endpoint; it speaks plain
// HTTP and honours HTTP_PROXY, so that its requests arrive in the absolute form.
func TestPacker(t *testing.T) {
	packer, err := exec.LookPath("packer")
	need(t, "packer", err)
	build := func(t *testing.T, s *simulator, secret string, ignoreDataDisks bool) (string, error) {
		template, err := json.Marshal(map[string]any{"builders": []any{map[string]any{
			"type": "alicloud-ecs", "access_key": s.Key, "secret_key": secret, "region": s.Region, "skip_region_validation": true,
			"image_name": "packed", "image_description": "by packer", "source_image": s.Stock.ImageID, "instance_type": s.Stock.InstanceType, "io_optimized": "true",
			"zone_id": s.Stock.ZoneID, "communicator": "none", "ssh_private_ip": true, "image_ignore_data_disks": ignoreDataDisks,
			"image_disk_mappings": []any{map[string]any{"disk_name": "data", "disk_size": 40, "disk_category": "cloud_essd", "disk_delete_with_instance": true}},
			"tags":                map[string]any{"made_by": "packer"},
		}}})
		require.NoError(t, err)
		dir := t.TempDir()
		file := filepath.Join(dir, "template.json")
		require.NoError(t, os.WriteFile(file, template, 0o600))
		return s.client([]string{"HTTP_PROXY=" + s.Endpoint, "http_proxy=" + s.Endpoint, "NO_PROXY=", "no_proxy=", "CHECKPOINT_DISABLE=1", "PACKER_CACHE_DIR=" + dir, "HOME=" + dir, "PACKER_LOG=0"},
			packer, "build", "-color=false", file)
	}
	for _, ignore := range []bool{true, false} {
		t.Run("image_ignore_data_disks="+strconv.FormatBool(ignore), func(t *testing.T) {
			t.Parallel()
			// Packer looks every five seconds: all is done at its first look.
			s := serve(t, "--speed", "100000")
			out, err := build(t, s, s.Secret, ignore)
			require.NoErrorf(t, err, "%s", out)
			end := s.end()
			var images, snapshots int
			for _, r := range end.Created {
				assert.Equalf(t, "packer", r.Tags["made_by"], "%s %s", r.Type, r.ID)
				switch r.Type {
				case "image":
					images++
					assert.Equal(t, "packed", r.Name)
					assert.Contains(t, out, r.ID)
				case "snapshot":
					snapshots++
				default:
					t.Errorf("left behind: %s %s", r.Type, r.ID)
				}
			}
			assert.Equal(t, 1, images)
			assert.Equal(t, map[bool]int{true: 1, false: 2}[ignore], snapshots)
			assert.Equal(t, map[bool]int{true: 1, false: 0}[ignore], end.Calls["CreateSnapshot"])
			assert.GreaterOrEqual(t, len(end.Calls), map[bool]int{true: 26, false: 23}[ignore])
		})
	}
	t.Run("wrong secret", func(t *testing.T) {
		t.Parallel()
		s := serve(t)
		out, err := build(t, s, "another", true)
		require.Error(t, err)
		assert.Contains(t, out, "SignatureDoesNotMatch")
		s.stop()
		assert.Empty(t, s.last.Calls)
	})
}

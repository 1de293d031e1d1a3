package upgrade

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/hostinv"
)

// What is written is told by the directory that a person knows; logs are
// counted, and what a system writes by itself is nobody's data.
func TestGroupWritten(t *testing.T) {
	dirs, logs := groupWritten([]string{
		"/srv/order/data/a.db", "/srv/order/data/2026/11/b.db", "/srv/order/app.jar", "/opt/x", "/marker",
		"/srv/order/logs/app.out", "/var/log/messages", "/srv/pay/nohup.out", "/srv/pay/app.log.2026-11-22.gz", "/srv/pay/app.pid",
		"/var/lib/docker/volumes/orders/_data/x", "/var/lib/docker/overlay2/abc/diff/app/upload.png", "/var/lib/docker/overlay2/abc/diff/tmp/x",
		"/var/lib/docker/overlay2/abc/diff/var/log/nginx/access.log", "/var/lib/docker/overlay2/abc/link", "/var/lib/docker/containers/abc/config.v2.json",
		"/var/lib/rpm/Packages", "/var/lib/yum/history/x", "/var/cache/yum/x", "/tmp/x", "/run/x", "/etc/resolv.conf", "/root/.bash_history",
		"/etc/nginx/nginx.conf", "/var/lib/mysql/ibdata1", "/var/lib/upgradectl/lease", "",
	})
	assert.Equal(t, 6, logs)
	var names []string
	for _, d := range dirs {
		names = append(names, d.Dir)
	}
	assert.Equal(t, []string{"/", "/etc/nginx", "/opt", "/srv/order", "/srv/order/data", "/var/lib/docker/overlay2/abc", "/var/lib/docker/volumes/orders", "/var/lib/mysql"}, names)
	assert.Equal(t, 2, dirs[4].Files)
	assert.Equal(t, []string{"/srv/order/data/a.db", "/srv/order/data/2026/11/b.db"}, dirs[4].Some)
}

// The system disk is that of /, with all its partitions, and no other.
func TestSystemMounts(t *testing.T) {
	inv := &hostinv.Inventory{Mounts: []hostinv.Mount{
		{Source: "/dev/vda1", Target: "/boot"}, {Source: "/dev/vda3", Target: "/"}, {Source: "/dev/vdb1", Target: "/data"}, {Source: "/dev/vda2", Target: "/var"}, {Source: "tmpfs", Target: "/run"},
	}}
	assert.Equal(t, []string{"/", "/boot", "/var"}, systemMounts(inv))
	inv.Mounts = []hostinv.Mount{{Source: "/dev/nvme0n1p1", Target: "/"}, {Source: "/dev/nvme1n1p1", Target: "/data"}, {Source: "/dev/nvme0n1p2", Target: "/srv"}}
	assert.Equal(t, []string{"/", "/srv"}, systemMounts(inv))
}

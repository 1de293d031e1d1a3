package upgrade_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// upgradeBy runs a strategy on a host as step 3.6 does, and proves that what was
// resolved is what has come. replay, when not nil, is what another host got.
func upgradeBy(t *testing.T, c *hostinv.Conn, key string, conf hostos.StrategyConfig, replay []hostos.Package) (*hostos.Assessment, *hostos.Upgraded) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a question that nobody answers would last longer
	defer cancel()
	a, err := hostos.Assess(ctx, c, conf)
	if replay != nil {
		a, err = hostos.AssessReplay(ctx, c, conf, replay)
	}
	require.NoError(t, err)
	require.Empty(t, a.Blocking())
	script, err := hostos.UpgradeScript(conf, a.OS, replay)
	require.NoError(t, err)
	require.NoError(t, hostos.CheckTransactions(ctx, c))
	require.NoError(t, hostos.StartJob(ctx, c, key, script))
	_, err = hostos.WaitJob(ctx, c, key, 100*time.Millisecond, nil)
	require.NoError(t, err)
	u, err := hostos.CheckUpgraded(ctx, c, conf, a, a.OS.Packages)
	require.NoError(t, err)
	assert.Empty(t, hostos.DiffPackages("resolved", a.Transaction.Apply(a.OS.Packages), "done", u.Packages))
	return a, u
}

func packageNames(list []hostos.Package) string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

// strategies: each strategy of an RPM host brings what it says and nothing else,
// from real repositories: what updateinfo calls a security update, the kernel
// alone, and everything from the vault when the mirrors are gone.
func (s *labSession) strategies(t *testing.T, h *lab.Host) {
	c := s.dial(t, labProd)
	defer c.Close()
	const info = "/etc/yum.repos.d/CentOS-Base.repo"
	a, u := upgradeBy(t, c, "security", hostos.StrategyConfig{Strategy: hostos.Security}, nil)
	assert.Equal(t, lab.SecurityUpdate, packageNames(u.Installed))
	assert.Empty(t, a.Transaction.Kernel())
	assert.Equal(t, lab.KernelBefore, u.Kernel, "no new one comes, and none is asked for")

	// The same from a repository without updateinfo, as those of CentOS are.
	s.w.must(h, "sed -i 's|centos/7/updates|fault/scriptlet|' "+info)
	a, err := hostos.Assess(t.Context(), c, hostos.StrategyConfig{Strategy: hostos.Security})
	require.NoError(t, err)
	assert.Contains(t, strings.Join(a.Blocking(), "\n"), "no-security-updates")
	s.w.must(h, "sed -i 's|fault/scriptlet|centos/7/updates|' "+info)

	conf := hostos.StrategyConfig{Strategy: hostos.KernelOnly}
	_, u = upgradeBy(t, c, "kernel", conf, nil)
	assert.Equal(t, "kernel-"+lab.KernelAfter, packageNames(u.Installed))
	assert.Empty(t, u.Removed, "the old one stays")
	assert.Equal(t, lab.KernelAfter, u.Kernel)
	checks, err := hostos.CheckPreReboot(t.Context(), c, conf, u.Kernel)
	require.NoError(t, err)
	assert.Empty(t, hostos.Failed(checks))

	// The mirrors of an end-of-life release are gone; the vault is there.
	s.w.must(h, "sed -i 's|8090/centos/7/|8090/gone/7/|' "+info)
	before := s.w.must(h, "cat "+info)
	vault := hostos.StrategyConfig{Strategy: hostos.YumUpdate, Vault: lab.MirrorURL + "/" + lab.TreeVault}
	a, err = hostos.Assess(t.Context(), c, hostos.StrategyConfig{Strategy: hostos.YumUpdate})
	require.NoError(t, err)
	assert.Contains(t, strings.Join(a.Blocking(), "\n"), "dead-mirror")
	a, err = hostos.Assess(t.Context(), c, vault)
	require.NoError(t, err)
	require.Empty(t, a.Blocking())
	assert.Len(t, a.Transaction.Upgrade, 5)
	assert.Equal(t, before, s.w.must(h, "cat "+info), "resolved without touching the host's files")
	from, err := hostos.GetRepos(t.Context(), c)
	require.NoError(t, err)
	to, err := from.Vault(vault.Vault)
	require.NoError(t, err)
	require.NoError(t, hostos.SetRepos(t.Context(), c, from, to))
	_, u = upgradeBy(t, c, "vault", vault, nil)
	assert.Equal(t, packageNames(a.Transaction.Incoming()), packageNames(u.Installed))
	assert.Contains(t, s.w.must(h, "cat /etc/redhat-release"), lab.ReleaseAfter)
	require.NoError(t, hostos.SetRepos(t.Context(), c, to, from))
	assert.Equal(t, before, s.w.must(h, "cat "+info), "byte for byte")

	// A database of packages that cannot be read is not a host without packages.
	s.w.must(h, "cd /var/lib/rpm; mkdir /root/aside; mv rpmdb.sqlite* /root/aside; echo 'no database' >rpmdb.sqlite")
	err = hostos.CheckTransactions(t.Context(), c)
	require.ErrorContains(t, err, "the database cannot be read")
	assert.ErrorContains(t, err, "rpm --rebuilddb")
	a, err = hostos.Assess(t.Context(), c, hostos.StrategyConfig{Strategy: hostos.YumUpdate})
	require.NoError(t, err)
	assert.Contains(t, strings.Join(a.Blocking(), "\n"), "unfinished-transaction")
	s.w.must(h, "cd /var/lib/rpm; rm rpmdb.sqlite*; mv /root/aside/* .; rmdir /root/aside")
	assert.NoError(t, hostos.CheckTransactions(t.Context(), c))
}

// debian is the strategy apt on a host with Debian's own package manager: what
// it resolves is what comes, a copy of the host gets the same although the
// repository has moved on, what is held is named and stays, no question about a
// changed file stops it, and a dpkg that was killed is seen.
func (s *labSession) debian(t *testing.T) {
	const addr, copied = "172.31.0.95", "172.31.0.96"
	ctx, w := t.Context(), s.w
	publish := func(debs ...lab.Deb) {
		t.Helper()
		require.NoError(t, w.mirror.Publish(ctx, debs...))
	}
	pin := func(h *lab.Host) {
		t.Helper()
		require.NoError(t, s.dialer.Pin(h.Addr, strings.Split(strings.TrimSpace(w.must(h, "cat /etc/ssh/ssh_host_*_key.pub")), "\n")))
	}
	kernel := func(release string) lab.Deb {
		return lab.Deb{Name: "linux-image-" + release, Version: "6.1.100-1", Files: map[string]string{
			"/boot/vmlinuz-" + release: "image of " + release + "\n", "/boot/initrd.img-" + release: strings.Repeat("initramfs of "+release+"\n", 10),
		}}
	}
	const runs = "echo \"$1 $2\" >>/var/log/shop.posts\n"
	publish(
		lab.Deb{Name: "shop-lib", Version: "1.0"}, lab.Deb{Name: "shop-old", Version: "1.0"}, lab.Deb{Name: "shop-held", Version: "1.0"},
		lab.Deb{Name: "shop-agent", Version: "1.0", Fields: "Depends: shop-lib\n", Files: map[string]string{"/etc/shop.conf": "level=1\n"}, Postinst: runs},
		kernel("6.1.0-50-lab"), lab.Deb{Name: "linux-image-lab", Version: "6.1.50", Fields: "Depends: linux-image-6.1.0-50-lab\n"},
	)
	h, err := w.lab.Add(ctx, "i-deb95", "deb-95", addr, w.auth, lab.Setup{Kernel: "6.1.0-50-lab", Enable: []string{"cron"}, Files: map[string]string{
		"/etc/apt/sources.list": lab.DebianSource + "\n", addressFile: "iface eth7 inet static\n  address " + addr + "/24\n"},
		Script: "rm -rf /etc/apt/sources.list.d/*\n"})
	require.NoError(t, err)
	pin(h)
	w.must(h, "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -y -q install shop-agent shop-old shop-held linux-image-lab && apt-mark hold shop-held && echo level=9 >/etc/shop.conf")
	publish(
		lab.Deb{Name: "shop-lib", Version: "1.1"}, lab.Deb{Name: "shop-held", Version: "1.1"}, lab.Deb{Name: "shop-extra", Version: "1.0"},
		lab.Deb{Name: "shop-agent", Version: "1.1", Fields: "Depends: shop-lib (>= 1.1), shop-extra\nConflicts: shop-old\n", Files: map[string]string{"/etc/shop.conf": "level=2\n"}, Postinst: runs},
		kernel("6.1.0-56-lab"), lab.Deb{Name: "linux-image-lab", Version: "6.1.56", Fields: "Depends: linux-image-6.1.0-56-lab\n"},
	)
	kept := w.must(h, upgrade.KeepScript("disk"))
	m := w.lab.Machines()
	state, err := m.Snapshot("i-deb95")
	require.NoError(t, err)
	require.NoError(t, m.Create(cloud.Machine{InstanceID: "i-deb96", HostName: "deb-96", PrivateIP: copied, From: state}))
	require.NoError(t, m.Start("i-deb96"))

	c := s.dial(t, addr)
	defer c.Close()
	origin, err := hostos.GetPackages(ctx, c)
	require.NoError(t, err)
	_, u := upgradeBy(t, c, "kernel", hostos.StrategyConfig{Strategy: hostos.KernelOnly}, nil)
	assert.Equal(t, "linux-image-6.1.0-56-lab:amd64=6.1.100-1 linux-image-lab:amd64=6.1.56", packageNames(u.Installed))
	assert.Equal(t, "6.1.0-56-lab", u.Kernel)

	conf := hostos.StrategyConfig{Strategy: hostos.Apt}
	a, u := upgradeBy(t, c, "apt", conf, nil)
	assert.Equal(t, "shop-extra:amd64=1.0", packageNames(a.Transaction.Install))
	assert.Equal(t, "shop-agent:amd64=1.1 shop-lib:amd64=1.1", packageNames(hostos.NewPackageSet(a.Transaction.Upgrade...)))
	assert.Equal(t, "shop-old:amd64=1.0", packageNames(a.Transaction.Remove))
	assert.Contains(t, a.OS.Excludes, hostos.Exclude{Where: "apt-mark hold", Pattern: "shop-held"})
	var said []string
	for _, f := range a.Findings {
		said = append(said, f.String())
	}
	assert.Contains(t, strings.Join(said, "\n"), "exclude:shop-held (warn): apt-mark hold keeps packages back: shop-held")
	assert.Equal(t, "level=9\n", w.must(h, "cat /etc/shop.conf"), "settings that were changed by hand stay, and nobody is asked")
	assert.Equal(t, "configure \nconfigure 1.0\n", w.must(h, "cat /var/log/shop.posts"), "each postinst ran once")
	assert.Contains(t, w.must(h, "dpkg-query -W shop-held"), "1.0")

	// The repository moves on; the copy gets what was tried, to the version.
	publish(lab.Deb{Name: "shop-lib", Version: "1.2"}, lab.Deb{Name: "shop-extra", Version: "1.1"})
	twin := w.lab.Host("i-deb96")
	require.NoError(t, twin.WaitUp(ctx))
	pin(twin)
	d := s.dial(t, copied)
	defer d.Close()
	there, err := hostos.GetPackages(ctx, d)
	require.NoError(t, err)
	require.Equal(t, origin, there)
	replay := u.Packages.Minus(there)
	// Somebody holds one of them there: it is named before anything begins.
	w.must(twin, "apt-mark hold shop-lib")
	b, err := hostos.AssessReplay(ctx, d, conf, replay)
	require.NoError(t, err)
	assert.Contains(t, strings.Join(b.Blocking(), "\n"), "shop-lib")
	w.must(twin, "apt-mark unhold shop-lib")
	_, got := upgradeBy(t, d, "replay", conf, replay)
	assert.Empty(t, hostos.DiffPackages("the host", u.Packages, "its copy", got.Packages))
	assert.Equal(t, "level=9\n", w.must(twin, "cat /etc/shop.conf"))

	// A dpkg that is killed in its middle.
	publish(lab.Deb{Name: "shop-extra", Version: "1.2", Postinst: "echo $PPID >/waiting.new; mv /waiting.new /waiting\nwhile [ ! -e /go ]; do sleep 0.1; done\n"})
	require.NoError(t, hostos.StartJob(ctx, d, "killed", "apt-get -q update; DEBIAN_FRONTEND=noninteractive apt-get -y -q install shop-extra\n"))
	w.must(twin, "until [ -e /waiting ]; do sleep 0.1; done; kill -9 $(cat /waiting); touch /go")
	_, err = hostos.WaitJob(ctx, d, "killed", 100*time.Millisecond, nil)
	require.Error(t, err)
	err = hostos.CheckTransactions(ctx, d)
	require.ErrorContains(t, err, "dpkg --configure -a")
	t.Log(err)
	b, err = hostos.Assess(ctx, d, conf)
	require.NoError(t, err)
	assert.Contains(t, strings.Join(b.Blocking(), "\n"), "unfinished-transaction")
	w.must(twin, "dpkg --configure -a && DEBIAN_FRONTEND=noninteractive apt-get -f -y -q install")
	assert.NoError(t, hostos.CheckTransactions(ctx, d))

	s.itself(t, h, twin, kept)
}

// addressFile sets an address on an interface that the lab's hosts do not have.
const addressFile = "/etc/network/interfaces.d/fixed"

// itself makes the copy of a host that host, as production's new system disk
// becomes production: sshd shows its keys, it has its name and machine ID, its
// network's files are those of before, and what was held back runs. kept is what
// the script said that put all this aside before the copy was made.
func (s *labSession) itself(t *testing.T, origin, twin *lab.Host, kept string) {
	ctx, w := t.Context(), s.w
	const identity = "cat /etc/machine-id /proc/sys/kernel/hostname; ls -ln /etc/ssh/ssh_host_*; sha256sum /etc/ssh/ssh_host_* " + addressFile + "; grep -H . /etc/machine-id; systemctl is-active cron"
	want := w.must(origin, identity)
	require.NotEqual(t, want, w.must(twin, identity), "cloud-init gave the copy an identity of its own")
	assert.Equal(t, "700 0\n", w.must(twin, "stat -c '%a %u' /var/lib/upgradectl/identity-disk"))

	// The quarantine, as cloud-init runs it; the boot that it asks for is that at
	// the end.
	q := ecs.Quarantine{Units: []string{"cron.service"}, Addresses: []string{origin.Addr}, MachineID: strings.TrimSpace(w.must(origin, "cat /etc/machine-id"))}
	data, err := q.UserData()
	require.NoError(t, err)
	var config struct {
		Bootcmd [][]string `yaml:"bootcmd"`
	}
	require.NoError(t, yaml.Unmarshal(data, &config))
	require.Len(t, config.Bootcmd, 1)
	require.Equal(t, []string{"sh", "-c"}, config.Bootcmd[0][:2])
	hold := config.Bootcmd[0][2]
	require.Contains(t, hold, "shutdown -r now")
	w.must(twin, strings.ReplaceAll(hold, "shutdown -r now", ":"))
	check, err := q.CheckScript()
	require.NoError(t, err)
	w.until("cron is held", func() bool { return len(q.NotHeld([]byte(w.must(twin, check)))) == 0 })
	assert.Equal(t, "iface eth7 inet dhcp\n", w.must(twin, "cat "+addressFile))

	script, err := upgrade.OwnScript("disk", q)
	require.NoError(t, err)
	assert.Equal(t, "done\n", w.must(twin, script))
	assert.Equal(t, "done\n", w.must(twin, script), "the second time there is nothing to do")
	assert.Equal(t, "inactive\n", w.must(twin, "systemctl is-active cron || :"), "nothing starts before the reboot")
	require.NoError(t, w.lab.Machines().Reboot(twin.ID))
	require.NoError(t, twin.WaitUp(ctx))
	w.until("cron runs", func() bool { return w.must(twin, "systemctl is-active cron || :") == "active\n" })
	assert.Equal(t, want, w.must(twin, identity))
	assert.Equal(t, "gone\n", w.must(twin, "ls -d /etc/upgradectl /var/lib/upgradectl/identity-* /etc/systemd/system/cron.service.d >/dev/null 2>&1 || echo gone"))

	// The keys that were put aside are those by which production is known then.
	var keys []string
	for line := range strings.Lines(kept) {
		if f := strings.Fields(line); strings.HasPrefix(line, "ssh-") {
			keys = append(keys, f[0]+" "+f[1])
		}
	}
	require.NotEmpty(t, keys, kept)
	require.NoError(t, s.dialer.Pin(twin.Addr, keys))
	c := s.dial(t, twin.Addr)
	assert.Contains(t, keys, c.HostKey())
	require.NoError(t, c.Close())
}

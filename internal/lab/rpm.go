package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Releases of the kernel that the packages of the lab bring. uname(2) stays
// the machine's: see the stand-in of [Host].
const (
	KernelBefore = "3.10.0-862.9.1.el7.x86_64"
	KernelAfter  = "3.10.0-1160.6.1.el7.x86_64"

	ReleaseBefore = "CentOS Linux release 7.5.1804 (Core)"
	ReleaseAfter  = "CentOS Linux release 7.9.2009 (Core)"
)

// The repositories of a [Mirror], by their place below its URL. The names are
// those of a real mirror; the two of Fault hold what a mirror should not.
const (
	RepoOS      = "centos/7/os"        // what a host is installed from
	RepoUpdates = "centos/7/updates"   // one newer version of most of it
	RepoDocker  = "docker-ce/7/stable" // docker-ce
	RepoKernel  = "fault/kernel"       // a still newer kernel that cannot be installed
	RepoBroken  = "fault/broken"       // an update whose dependency nobody provides
	RepoFailing = "fault/scriptlet"    // an update whose %pre fails
	RepoLarge   = "fault/large"        // an update of 64 MiB

	// TreeVault is where an end-of-life release keeps its repositories os and
	// updates, below the architecture: the same as the two above.
	TreeVault = "vault/7.9.2009"
)

// SecurityUpdate is the one package of RepoUpdates that its updateinfo calls a
// security update. CentOS's own repositories have no updateinfo; those of
// Alibaba Cloud Linux and of Rocky have.
const SecurityUpdate = "openssl-libs-1:1.0.2k-21.el7_9.x86_64"

// updateInfo is the updateinfo.xml of RepoUpdates: a security advisory and one
// that is none.
const updateInfo = `<?xml version="1.0" encoding="UTF-8"?>
<updates>
  <update from="lab" status="final" type="security" version="1">
    <id>LABSA-2020:5566</id>
    <title>Important: openssl</title>
    <issued date="2020-12-16 00:00:00"/>
    <severity>Important</severity>
    <description>CVE-2020-1971</description>
    <pkglist><collection short="lab"><name>lab</name>
      <package name="openssl-libs" epoch="1" version="1.0.2k" release="21.el7_9" arch="x86_64"><filename>openssl-libs-1.0.2k-21.el7_9.x86_64.rpm</filename></package>
    </collection></pkglist>
  </update>
  <update from="lab" status="final" type="bugfix" version="1">
    <id>LABBA-2020:5001</id>
    <title>glibc</title>
    <issued date="2020-12-01 00:00:00"/>
    <description>a time zone</description>
    <pkglist><collection short="lab"><name>lab</name>
      <package name="glibc" epoch="0" version="2.17" release="317.el7" arch="x86_64"><filename>glibc-2.17-317.el7.x86_64.rpm</filename></package>
    </collection></pkglist>
  </update>
</updates>
`

// A pkg is one binary package: what its spec file says. Files whose text
// starts with "-> " are symbolic links; those in a bin directory are
// executable.
type pkg struct {
	name, epoch, version, release                    string
	requires, provides, conflicts, obsoletes, config []string
	files                                            map[string]string
	pre, post, preun, postun, posttrans, install     string
}

// spec is the paragraph of a package in a spec file. All packages of a
// repository come from one spec: rpmbuild then runs once.
func (p pkg) spec(b *strings.Builder) {
	fmt.Fprintf(b, "%%package -n %s\nSummary: %s\nLicense: none\n", p.name, p.name)
	if p.epoch != "" {
		fmt.Fprintf(b, "Epoch: %s\n", p.epoch)
	}
	fmt.Fprintf(b, "Version: %s\nRelease: %s\n", p.version, p.release)
	for tag, values := range map[string][]string{"Requires": p.requires, "Provides": p.provides, "Conflicts": p.conflicts, "Obsoletes": p.obsoletes} {
		for _, v := range values {
			fmt.Fprintf(b, "%s: %s\n", tag, v)
		}
	}
	fmt.Fprintf(b, "%%description -n %s\n%s\n", p.name, p.name)
	for _, s := range []struct{ name, text string }{{"pre", p.pre}, {"post", p.post}, {"preun", p.preun}, {"postun", p.postun}, {"posttrans", p.posttrans}} {
		if s.text != "" {
			fmt.Fprintf(b, "%%%s -n %s\n%s\n", s.name, p.name, s.text)
		}
	}
	fmt.Fprintf(b, "%%files -n %s\n", p.name)
	for _, name := range slices.Sorted(mapKeys(p.files)) {
		if slices.Contains(p.config, name) {
			b.WriteString("%config(noreplace) ")
		}
		fmt.Fprintln(b, name)
	}
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// build makes the binary packages of a repository, and its index.
func build(ctx context.Context, scratch, repo string, packages []pkg) error {
	root := filepath.Join(scratch, "root")
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	var spec, install strings.Builder
	spec.WriteString("Name: lab\nVersion: 1\nRelease: 1\nSummary: lab\nLicense: none\n%description\nlab\n")
	for _, p := range packages {
		p.spec(&spec)
		for name, text := range p.files {
			to := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			if target, ok := strings.CutPrefix(text, "-> "); ok {
				if err := os.Symlink(target, to); err != nil {
					return err
				}
				continue
			}
			mode := os.FileMode(0o644)
			if strings.HasSuffix(filepath.Dir(name), "bin") {
				mode = 0o755
			}
			if err := os.WriteFile(to, []byte(text), mode); err != nil {
				return err
			}
		}
		install.WriteString(p.install)
	}
	fmt.Fprintf(&spec, "%%install\nmkdir -p %%{buildroot}\ncp -a %s/. %%{buildroot}\ncd %%{buildroot}\n%s", root, install.String())
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	name := filepath.Join(scratch, "lab.spec")
	if err := os.WriteFile(name, []byte(spec.String()), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "rpmbuild", "-bb", "--quiet", "--nodeps", "--target", "x86_64",
		"--define", "_topdir "+filepath.Join(scratch, "top"), "--define", "_rpmdir "+repo,
		"--define", "_build_id_links none", "--define", "__os_install_post %{nil}", "--define", "_binary_payload w1.gzdio", name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("rpmbuild of %s: %w: %s", filepath.Base(repo), err, out)
	}
	if out, err := exec.CommandContext(ctx, "createrepo_c", "--quiet", "--workers", "1", repo).CombinedOutput(); err != nil {
		return fmt.Errorf("createrepo_c of %s: %w: %s", filepath.Base(repo), err, out)
	}
	return nil
}

// packages is what the repositories hold.
func packages() map[string][]pkg {
	updates := []pkg{
		{name: "bash", version: "4.2.46", release: "34.el7", provides: []string{"/bin/sh", "/usr/bin/sh"}},
		{name: "glibc", version: "2.17", release: "317.el7", files: map[string]string{"/usr/share/lab/glibc": "317\n"}},
		{name: "openssl-libs", epoch: "1", version: "1.0.2k", release: "21.el7_9", files: map[string]string{"/usr/share/lab/openssl": "21\n"}},
		{name: "systemd", version: "219", release: "78.el7_9.2"},
		release("7", "9.2009.0.el7.centos", ReleaseAfter, "7.9.2009"),
		kernel(strings.TrimSuffix(KernelAfter, ".x86_64")),
		agent("1.1"),
	}
	return map[string][]pkg{
		RepoOS: {
			{name: "bash", version: "4.2.46", release: "30.el7", provides: []string{"/bin/sh", "/usr/bin/sh"}},
			{name: "glibc", version: "2.17", release: "222.el7", files: map[string]string{"/usr/share/lab/glibc": "222\n"}},
			{name: "openssl-libs", epoch: "1", version: "1.0.2k", release: "12.el7", files: map[string]string{"/usr/share/lab/openssl": "12\n"}},
			{name: "systemd", version: "219", release: "57.el7"},
			{name: "nmap-ncat", epoch: "2", version: "6.40", release: "13.el7"},
			{name: "yum-utils", version: "1.1.31", release: "46.el7_5"},
			release("7", "5.1804.el7.centos.2", ReleaseBefore, "7.5.1804"),
			kernel(strings.TrimSuffix(KernelBefore, ".x86_64")),
			{name: "grubby", version: "8.28", release: "23.el7", files: map[string]string{"/usr/sbin/grubby": grubby}},
			{name: "dracut", version: "033", release: "535.el7_5.1", files: map[string]string{"/usr/bin/lsinitrd": lsinitrd}},
			docker113("docker", map[string]string{
				"/usr/bin/dockerd-current":               "-> " + engine,
				"/usr/lib/systemd/system/docker.service": fmt.Sprintf(dockerUnit, "/usr/bin/dockerd-current"),
			}),
			docker113("docker-client", map[string]string{"/usr/bin/docker-current": "-> " + client, "/usr/bin/docker": "-> docker-current"}),
			docker113("docker-common", map[string]string{"/etc/sysconfig/docker-common": ""}),
			agent("1.0"),
		},
		RepoUpdates: updates,
		RepoDocker: {
			{name: "docker-ce", epoch: "3", version: "19.03.14", release: "3.el7",
				requires: []string{"docker-ce-cli", "containerd.io >= 1.2.2-3"}, conflicts: []string{"docker", "docker-io"},
				files: map[string]string{
					"/usr/bin/dockerd":                       "-> " + engine,
					"/usr/lib/systemd/system/docker.service": fmt.Sprintf(dockerUnit, "/usr/bin/dockerd"),
				},
				post: reload, preun: stopDocker, postun: reload},
			{name: "docker-ce-cli", epoch: "1", version: "19.03.14", release: "3.el7", conflicts: []string{"docker", "docker-client"},
				files: map[string]string{"/usr/bin/docker": "-> " + client}},
			{name: "containerd.io", version: "1.3.9", release: "3.1.el7", files: map[string]string{"/etc/containerd/config.toml": "disabled_plugins = [\"cri\"]\n"}},
		},
		RepoKernel:  append(withoutKernel(updates), with(kernel("3.10.0-1160.99.1.el7"), func(p *pkg) { p.requires = append(p.requires, "linux-firmware >= 20991231") })),
		RepoBroken:  {with(agent("1.2"), func(p *pkg) { p.requires = append(p.requires, "libagent.so.7()(64bit)") })},
		RepoFailing: {with(agent("1.3"), func(p *pkg) { p.pre = "echo 'order-agent: no licence on this host' >&2\nexit 1" })},
		RepoLarge: {with(agent("1.4"), func(p *pkg) {
			p.install = "mkdir -p usr/share/lab-large\nhead -c 67108864 /dev/zero >usr/share/lab-large/data\n"
			p.files["/usr/share/lab-large/data"] = ""
		})},
	}
}

func withoutKernel(list []pkg) []pkg {
	return slices.DeleteFunc(slices.Clone(list), func(p pkg) bool { return p.name == "kernel" })
}

func with(p pkg, change func(*pkg)) pkg {
	change(&p)
	return p
}

// Where the real Docker programs of this machine are on a host. Only packages
// give them the names that an operator calls them by.
const (
	engine = "/usr/sbin/dockerd"
	client = "/usr/libexec/lab/docker"
)

// dockerUnit is like that of both packages, without the socket unit, which
// Debian's engine does not need either.
const dockerUnit = `[Unit]
Description=Docker Application Container Engine
After=network-online.target

[Service]
Type=notify
ExecStart=%s
ExecReload=/bin/kill -s HUP $MAINPID
LimitNOFILE=20000
Delegate=yes
KillMode=process
Restart=on-failure
StartLimitBurst=3

[Install]
WantedBy=multi-user.target
`

// What the scriptlets of a package with a unit do (systemd.macros of rpm).
const (
	reload     = "systemctl daemon-reload >/dev/null 2>&1 || :"
	stopDocker = "if [ $1 -eq 0 ]; then systemctl --no-reload disable docker.service >/dev/null 2>&1 || :; systemctl stop docker.service >/dev/null 2>&1 || :; fi"
)

// docker113 is one of the packages that CentOS had Docker in.
func docker113(name string, files map[string]string) pkg {
	p := pkg{name: name, epoch: "2", version: "1.13.1", release: "75.git8633870.el7.centos", files: files}
	switch name {
	case "docker":
		p.requires = []string{"docker-client = 2:1.13.1-75.git8633870.el7.centos", "docker-common = 2:1.13.1-75.git8633870.el7.centos"}
		p.post, p.preun, p.postun = reload, stopDocker, reload
	}
	return p
}

// HoldPost is the file that keeps the %post of order-agent waiting while it is
// there: a moment in the middle of a transaction, for as long as a test likes.
const HoldPost = "/root/hold-post"

// agent is an application's package. Every run of its %post is a line of a
// file: what happened twice is there twice.
func agent(version string) pkg {
	return pkg{name: "order-agent", version: version, release: "1",
		files: map[string]string{"/usr/bin/order-agent": "#!/bin/sh\necho order-agent " + version + "\n"},
		post:  "echo " + version + " $1 >>/var/log/order-agent.posts\nwhile [ -e " + HoldPost + " ]; do sleep 0.05; done"}
}

// release is the package that says which release a host has.
func release(version, rel, line, point string) pkg {
	return pkg{name: "centos-release", version: version, release: rel, provides: []string{"redhat-release", "system-release = " + version},
		files: map[string]string{
			"/etc/centos-release": line + "\n",
			"/etc/redhat-release": "-> centos-release",
			"/etc/system-release": "-> centos-release",
			"/etc/os-release":     "NAME=\"CentOS Linux\"\nVERSION=\"7 (Core)\"\nID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\nCPE_NAME=\"cpe:/o:centos:centos:7\"\nCENTOS_MANTISBT_PROJECT=\"CentOS-7\"\n# " + point + "\n",
		}}
}

// kernel is an installonly package: image, initramfs with the drivers of the
// cloud's disk and network, and scriptlets that make it the default of the
// boot loader as those of CentOS do: grubenv names it, and the lab's own boot
// loader reads /boot/next-kernel.
func kernel(vr string) pkg {
	version, rel, _ := strings.Cut(vr, "-")
	full := vr + ".x86_64"
	dir := "lib/modules/" + full + "/kernel/drivers/"
	return pkg{name: "kernel", version: version, release: rel, provides: []string{"installonlypkg(kernel)", "kernel-uname-r = " + full},
		files: map[string]string{
			"/boot/vmlinuz-" + full:                     "image of " + full + "\n",
			"/boot/config-" + full:                      "CONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_NET=m\n",
			"/boot/System.map-" + full:                  "",
			"/boot/initramfs-" + full + ".img":          "",
			"/lib/modules/" + full + "/modules.builtin": "",
		},
		install: strings.NewReplacer("@DIR@", dir, "@FULL@", full).Replace(`mkdir -p "$PWD.initrd"
(cd "$PWD.initrd"
mkdir -p @DIR@block @DIR@net @DIR@virtio @DIR@nvme/host
: >@DIR@block/virtio_blk.ko.xz; : >@DIR@net/virtio_net.ko.xz; : >@DIR@virtio/virtio_pci.ko.xz; : >@DIR@nvme/host/nvme.ko.xz
find . | cpio --quiet -o -H newc | gzip -n) >boot/initramfs-@FULL@.img
rm -r "$PWD.initrd"
`),
		post: strings.ReplaceAll(`mkdir -p /boot/grub2
{ cat /boot/grub2/grub.cfg 2>/dev/null || :; printf "menuentry 'CentOS Linux (@FULL@) 7 (Core)' {\n\tlinux16 /vmlinuz-@FULL@ root=UUID=11111111-2222-3333-4444-555555555555 ro\n\tinitrd16 /initramfs-@FULL@.img\n}\n"; } >/boot/grub2/grub.cfg.new
mv -f /boot/grub2/grub.cfg.new /boot/grub2/grub.cfg
echo 'saved_entry=CentOS Linux (@FULL@) 7 (Core)' >/boot/grub2/grubenv
echo @FULL@ >/boot/next-kernel.new
mv -f /boot/next-kernel.new /boot/next-kernel`, "@FULL@", full),
	}
}

// grubby answers what is asked of that program: it reads what the kernel
// packages wrote for the boot loader.
const grubby = `#!/bin/sh
# usage: grubby --default-kernel | --info=ALL | --set-default=/boot/vmlinuz-RELEASE
set -eu
default=$(sed -n 's/^saved_entry=.*(\(.*\)) 7.*/\1/p' /boot/grub2/grubenv)
case "${1-} ${2-}" in
"--default-kernel ") echo "/boot/vmlinuz-$default" ;;
"--info=ALL ") sed -n 's|.*linux16 /\(vmlinuz-[^ ]*\) .*|kernel=/boot/\1|p' /boot/grub2/grub.cfg ;;
--set-default=/boot/vmlinuz-*" ")
	r=${1#--set-default=/boot/vmlinuz-}
	[ -e "/boot/vmlinuz-$r" ] || { echo "grubby: no such kernel: $r" >&2; exit 1; }
	echo "saved_entry=CentOS Linux ($r) 7 (Core)" >/boot/grub2/grubenv
	echo "$r" >/boot/next-kernel ;;
"--set-default /boot/vmlinuz-"*) exec "$0" "--set-default=$2" ;;
*) echo "grubby: not known here: $*" >&2; exit 64 ;;
esac
`

// lsinitrd lists an initramfs, which is all that is asked of it.
const lsinitrd = `#!/bin/sh
set -eu
case "$*" in -* | "") echo "lsinitrd: not known here: $*" >&2; exit 64 ;; esac
gzip -dc "$1" | cpio --quiet -tv
`

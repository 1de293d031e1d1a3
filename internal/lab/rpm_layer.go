package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// A Mirror is a directory of package repositories, as a web server offers it,
// with docker-ce.repo, which names the one of docker-ce.
type Mirror struct{ Dir string }

// NewMirror builds every package of the lab with rpmbuild and indexes the
// repositories with createrepo_c: half a second each.
func NewMirror(ctx context.Context, dir string) (*Mirror, error) {
	m := &Mirror{Dir: dir}
	for name, list := range packages() {
		repo := filepath.Join(dir, name)
		if err := os.MkdirAll(repo, 0o755); err != nil {
			return nil, err
		}
		scratch, err := os.MkdirTemp("", "rpmbuild")
		if err != nil {
			return nil, err
		}
		if err := errors.Join(build(ctx, scratch, repo, list), os.RemoveAll(scratch)); err != nil {
			return nil, err
		}
	}
	info := filepath.Join(dir, "updateinfo.xml")
	if err := os.WriteFile(info, []byte(updateInfo), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "modifyrepo_c", info, filepath.Join(dir, RepoUpdates, "repodata"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("modifyrepo_c: %w: %s", err, out)
	}
	for tree, repo := range map[string]string{"os": RepoOS, "updates": RepoUpdates} {
		at := filepath.Join(dir, TreeVault, tree)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return nil, err
		}
		if err := os.Symlink(filepath.Join(dir, repo), filepath.Join(at, "x86_64")); err != nil {
			return nil, err
		}
	}
	return m, os.WriteFile(filepath.Join(dir, "docker-ce.repo"), []byte(RepoFile(MirrorURL, RepoDocker)), 0o644)
}

// RepoFile is the text of a .repo file for some repositories of a mirror that
// is served below url.
func RepoFile(url string, repos ...string) string {
	var b strings.Builder
	for _, r := range repos {
		fmt.Fprintf(&b, "[%s]\nname=%s\nbaseurl=%s/%s/\nenabled=1\ngpgcheck=0\n\n", repoID(r), r, url, r)
	}
	return b.String()
}

// repoID is the name that CentOS or Docker has for a repository.
func repoID(place string) string {
	switch place {
	case RepoOS:
		return "base"
	case RepoUpdates:
		return "updates"
	case RepoDocker:
		return "docker-ce-stable"
	}
	return strings.ReplaceAll(place, "/", "-")
}

// layerScript turns an overlay over this machine's own files into a CentOS
// host: what is Debian's and has another form there goes, the package
// manager gets its settings, and everything else comes from the packages.
const layerScript = `set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
rm -rf /usr/bin/dpkg* /usr/bin/apt* /var/lib/dpkg /var/lib/apt /var/lib/docker /var/lib/containerd /etc/debian_version /etc/os-release /usr/lib/os-release
mkdir -p /usr/libexec/lab
cp /usr/bin/docker /usr/libexec/lab/docker
rm -f /usr/bin/docker /etc/docker/daemon.json /etc/init.d/docker
for u in docker.service docker.socket containerd.service; do rm -f /lib/systemd/system/$u /etc/systemd/system/*.wants/$u; done
rm -rf /boot /var/lib/rpm /var/lib/dnf /var/cache/dnf /etc/yum.repos.d /etc/rpm
mkdir -p /boot/grub2 /var/lib/rpm /etc/yum.repos.d /etc/rpm /etc/dnf/vars
echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros
echo 7 >/etc/dnf/vars/releasever
cat >/etc/dnf/dnf.conf <<'END'
[main]
gpgcheck=0
installonly_limit=5
clean_requirements_on_remove=True
best=False
skip_if_unavailable=False
install_weak_deps=False
plugins=False
retries=1
timeout=5
END
ln -sf dnf/dnf.conf /etc/yum.conf
ln -sf dnf-3 /usr/bin/yum
dnf-3 -y -q --repofrompath=base,file:///mnt/` + RepoOS + ` --repo=base install bash glibc openssl-libs systemd yum-utils centos-release grubby dracut kernel docker order-agent
rm -rf /var/cache/dnf /var/log/dnf* /var/log/hawkey.log
: >/var/log/order-agent.posts
rpm -q kernel docker centos-release >/dev/null
`

// Layer makes dir what a host of that distribution has more, less, and other
// than this machine: the upper part of an overlay file system, to be a lower
// one of the hosts'. It needs root, mounts below dir.mnt, and takes about
// three seconds.
func (m *Mirror) Layer(ctx context.Context, dir string) (err error) {
	root, work := dir+".mnt", dir+".work"
	for _, d := range []string{dir, root, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	mounts := [][]string{
		{"-t", "overlay", "overlay", "-o", "lowerdir=/,upperdir=" + dir + ",workdir=" + work, root},
		{"-t", "proc", "proc", root + "/proc"},
		{"--bind", "/dev", root + "/dev"},
		{"-t", "tmpfs", "tmpfs", root + "/run"},
		{"-t", "tmpfs", "-o", "mode=1777", "tmpfs", root + "/tmp"},
		{"-t", "tmpfs", "tmpfs", root + "/usr/local"},
		{"--bind", m.Dir, root + "/mnt"},
	}
	defer func() {
		for i := len(mounts) - 1; i >= 0; i-- {
			at := mounts[i][len(mounts[i])-1]
			if e := command("umount", at); e != nil && err == nil {
				err = e
			}
		}
		err = errors.Join(err, os.RemoveAll(work), os.Remove(root))
	}()
	for i, args := range mounts {
		if e := command("mount", args...); e != nil {
			mounts = mounts[:i]
			return e
		}
	}
	cmd := exec.CommandContext(ctx, "chroot", root, "/bin/sh", "-s")
	cmd.Stdin = strings.NewReader(layerScript)
	cmd.Env = []string{"HOME=/root", "LANG=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = io.Writer(&out), io.Writer(&out)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot make the hosts' distribution: %w: %s", err, out.String())
	}
	return os.WriteFile(filepath.Join(dir, "etc/yum.repos.d/CentOS-Base.repo"), []byte(RepoFile(MirrorURL, RepoOS, RepoUpdates)), 0o644)
}

// NeedPackages skips a test where a program is missing that packages are built
// or installed with; see [Need].
func NeedPackages(t *testing.T) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the lab's packages are for x86_64")
	}
	for _, p := range []string{"rpmbuild", "rpm", "dnf-3", "createrepo_c", "modifyrepo_c", "cpio", "nginx", "docker"} {
		testenv.Need(t, p)
	}
}

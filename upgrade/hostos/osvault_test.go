package hostos

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	vaultURL = "https://mirrors.aliyun.com/centos-vault/7.9.2009"
	baseRepo = `# CentOS-Base.repo
[base]
name=CentOS-$releasever - Base
mirrorlist=http://mirrorlist.centos.org/?release=$releasever&arch=$basearch&repo=os
#baseurl=http://mirror.centos.org/centos/$releasever/os/$basearch/
gpgcheck=1

[updates]
name=CentOS-$releasever - Updates
baseurl=http://mirrors.cloud.aliyuncs.com/centos/$releasever/updates/$basearch/
        http://mirrors.aliyuncs.com/centos/$releasever/updates/$basearch/
gpgcheck=1
[docker-ce-stable]
baseurl=https://mirrors.aliyun.com/docker-ce/linux/centos/7/$basearch/stable
`
)

func TestVault(t *testing.T) {
	s := simulate(t, nil)
	c := s.dial()
	const name = "/etc/yum.repos.d/CentOS-Base.repo"
	require.NoError(t, c.WriteFile(t.Context(), name, []byte(baseRepo), 0o644))
	from, err := GetRepos(soon(t), c)
	require.NoError(t, err)
	require.Equal(t, Repos{name: baseRepo}, from)
	to, err := from.Vault(vaultURL)
	require.NoError(t, err)
	assert.Equal(t, `# CentOS-Base.repo
[base]
baseurl=https://mirrors.aliyun.com/centos-vault/7.9.2009/os/$basearch/
name=CentOS-$releasever - Base
#mirrorlist=http://mirrorlist.centos.org/?release=$releasever&arch=$basearch&repo=os
#baseurl=http://mirror.centos.org/centos/$releasever/os/$basearch/
gpgcheck=1

[updates]
baseurl=https://mirrors.aliyun.com/centos-vault/7.9.2009/updates/$basearch/
name=CentOS-$releasever - Updates
#baseurl=http://mirrors.cloud.aliyuncs.com/centos/$releasever/updates/$basearch/
#        http://mirrors.aliyuncs.com/centos/$releasever/updates/$basearch/
gpgcheck=1
[docker-ce-stable]
baseurl=https://mirrors.aliyun.com/docker-ce/linux/centos/7/$basearch/stable
`, to[name])
	for range 2 { // a crash may have it done again
		require.NoError(t, SetRepos(soon(t), c, from, to))
		now, err := GetRepos(soon(t), c)
		require.NoError(t, err)
		assert.Equal(t, to, now)
	}
	require.NoError(t, SetRepos(soon(t), c, to, from))
	now, err := GetRepos(soon(t), c)
	require.NoError(t, err)
	assert.Equal(t, from, now, "byte for byte")

	other := Repos{name: baseRepo + "# a colleague\n"}
	require.NoError(t, s.Host.WriteFile(name, []byte(other[name]), 0o644))
	require.ErrorIs(t, SetRepos(soon(t), c, from, to), ErrReposChanged)
	now, err = GetRepos(soon(t), c)
	require.NoError(t, err)
	assert.Equal(t, other, now)

	_, err = Repos{"/etc/yum.repos.d/epel.repo": "[epel]\nbaseurl=http://e\n"}.Vault(vaultURL)
	assert.ErrorContains(t, err, "no file")
}

// Every line but those that say where a repository is stays, in its order;
// doing it twice is doing it once.
func FuzzVault(f *testing.F) {
	f.Add(baseRepo)
	f.Add("[base]")
	f.Add("[base]\nmirrorlist=a\n b\n\tc\n[x]\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		to, err := Repos{"f": text}.Vault(vaultURL)
		if err != nil {
			return
		}
		again, err := to.Vault(vaultURL)
		if err != nil || again["f"] != to["f"] {
			t.Fatalf("once %q, twice %q, %v", to["f"], again["f"], err)
		}
		rest := strings.SplitAfter(to["f"], "\n")
		for line := range strings.Lines(text) {
			want := strings.TrimSuffix(line, "\n")
			for {
				if len(rest) == 0 {
					t.Fatalf("line %q is lost in %q", line, to["f"])
				}
				got := strings.TrimSuffix(rest[0], "\n")
				rest = rest[1:]
				if got == want || got == "#"+want {
					break
				}
				if !strings.HasPrefix(got, "baseurl="+vaultURL) {
					t.Fatalf("line %q came before %q", got, want)
				}
			}
		}
	})
}

package hostos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// Repos are the files below /etc/yum.repos.d: content by path. They can hold
// passwords of repositories; treat them as such.
type Repos map[string]string

// GetRepos reads the repositories of a host.
func GetRepos(ctx context.Context, h Host) (Repos, error) {
	out, err := output(ctx, h, `for f in /etc/yum.repos.d/*.repo; do if [ -f "$f" ]; then echo "$f"; fi; done`, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot list the package repositories: %w", err)
	}
	r := Repos{}
	for name := range strings.Lines(out) {
		name = strings.TrimSuffix(name, "\n")
		b, err := h.ReadFile(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("cannot read a package repository: %w", err)
		}
		r[name] = string(b)
	}
	return r, nil
}

// vaultTrees are the repositories of CentOS 7 that a vault has, and where.
var vaultTrees = map[string]string{
	"base": "os", "updates": "updates", "extras": "extras", "centosplus": "centosplus", "fasttrack": "fasttrack",
}

// Vault gives the repositories with those of CentOS 7 pointed to the vault at
// url, other lines byte for byte as they were; it is pure. Vault of its own
// result is the same again. No such repository is an error: then it would
// change nothing.
func (r Repos) Vault(url string) (Repos, error) {
	out := maps.Clone(r)
	url = strings.TrimRight(url, "/")
	found := false
	for name, text := range r {
		var b strings.Builder
		for _, section := range repoSections(text) {
			edited, ok := vaultSection(section, url)
			found = found || ok
			b.WriteString(edited)
		}
		out[name] = b.String()
	}
	if !found {
		return nil, errors.New("no file below /etc/yum.repos.d has a base or updates repository of CentOS")
	}
	return out, nil
}

// repoSections cuts a file before every line that begins with "[".
func repoSections(text string) []string {
	out := []string{""}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "[") {
			out = append(out, "")
		}
		out[len(out)-1] += line
	}
	return out
}

// vaultSection points one repository to the vault; false: it is another one.
func vaultSection(section, url string) (string, bool) {
	head, _, _ := strings.Cut(section, "\n")
	id := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(head), "["), "]")
	tree, ok := vaultTrees[id]
	if !ok || !strings.HasPrefix(section, "[") {
		return section, false
	}
	want := "baseurl=" + url + "/" + tree + "/$basearch/\n"
	var b strings.Builder
	going, said := false, false
	for line := range strings.Lines(section) {
		key, _, isSetting := strings.Cut(line, "=")
		switch key = strings.TrimSpace(key); {
		case line == want:
			going, said = false, true
			b.WriteString(line)
		case isSetting && (key == "baseurl" || key == "mirrorlist" || key == "metalink"), going && (line[0] == ' ' || line[0] == '\t'):
			going = true
			b.WriteString("#" + line)
		default:
			going = false
			b.WriteString(line)
		}
	}
	if said {
		return section, true
	}
	text := b.String()
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	first, rest, _ := strings.Cut(text, "\n")
	return first + "\n" + want + rest, true
}

// ErrReposChanged means that somebody else has changed the repositories of a
// host in the meantime; nothing was written.
var ErrReposChanged = errors.New("the package repositories were changed by somebody else")

// SetRepos writes those files of to that differ from from, whole or not at
// all, and lets the package manager forget what it knew of them. A file must
// have the content that it has in from, or in to, which makes a repeated call
// harmless: ErrReposChanged.
func SetRepos(ctx context.Context, h Host, from, to Repos) error {
	sum := func(s string) string {
		b := sha256.Sum256([]byte(s))
		return hex.EncodeToString(b[:])
	}
	var check, write strings.Builder
	for _, name := range slices.Sorted(maps.Keys(to)) {
		if from[name] == to[name] {
			continue
		}
		f := shellq.Quote(name)
		fmt.Fprintf(&check, "case $(sha256sum <%s) in %s*|%s*) ;; *) exit 9;; esac\n", f, sum(from[name]), sum(to[name]))
		// A copy first: the file keeps its owner and mode.
		fmt.Fprintf(&write, "cp -p %s %s.upgradectl-new\nprintf %%s %s >%s.upgradectl-new\nmv -f %s.upgradectl-new %s\n", f, f, shellq.Quote(to[name]), f, f, f)
	}
	if check.Len() == 0 {
		return nil
	}
	_, err := output(ctx, h, "set -eu\n"+check.String()+write.String()+"sync\nt=yum; command -v dnf >/dev/null && t=dnf\n$t clean expire-cache >/dev/null\n", nil)
	if status, ran := exitStatus(err); ran && status == 9 {
		return ErrReposChanged
	}
	if err != nil {
		return fmt.Errorf("cannot write the package repositories: %w", err)
	}
	return nil
}

// vaultResolve makes a directory $t with settings of the package manager under
// which the repositories are those of the vault, while the host's own stay as
// they are. It has a cache of its own: the host's is of other places.
func vaultResolve(ctx context.Context, h Host, o *OS, url string) (string, error) {
	r, err := GetRepos(ctx, h)
	if err != nil {
		return "", err
	}
	if r, err = r.Vault(url); err != nil {
		return "", err
	}
	conf := "/etc/yum.conf"
	if o.Manager == "dnf" {
		conf = "/etc/dnf/dnf.conf"
	}
	main, err := h.ReadFile(ctx, conf)
	if err != nil {
		return "", fmt.Errorf("cannot read the settings of %s: %w", o.Manager, err)
	}
	before, after, ok := strings.Cut(string(main), "[main]\n")
	if !ok {
		return "", fmt.Errorf("%s has no section [main]", conf)
	}
	var b strings.Builder
	b.WriteString("t=$(mktemp -d) || exit 1\ntrap 'rm -rf \"$t\"' EXIT\nmkdir \"$t/repos\"\n")
	fmt.Fprintf(&b, "{ printf %%s %s; printf 'reposdir=%%s/repos\\ncachedir=%%s/cache\\n' \"$t\" \"$t\"; printf %%s %s; } >\"$t/yum.conf\"\n",
		shellq.Quote(before+"[main]\n"), shellq.Quote(dropSettings(after, "reposdir", "cachedir")))
	for i, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&b, "printf %%s %s >\"$t/repos/%d.repo\"\n", shellq.Quote(r[name]), i)
	}
	return b.String(), nil
}

// dropSettings leaves out the lines that set one of keys.
func dropSettings(text string, keys ...string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		k, _, _ := strings.Cut(line, "=")
		if !slices.Contains(keys, strings.TrimSpace(k)) {
			b.WriteString(line)
		}
	}
	return b.String()
}

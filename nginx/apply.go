package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// ApplyOptions say how far Apply and Put go. The zero value goes all the way.
type ApplyOptions struct {
	// NoReload stops after the second nginx -t: the files are in place, the
	// running nginx does not know them. It need not run.
	NoReload bool
	// NoTest writes with the comparison of hashes alone: no nginx program is
	// run and none needed, neither before nor after, and nothing is reloaded.
	NoTest bool
	// BackupDir is an absolute directory on the host, made when it is not there,
	// in which the old files stay under dot names. "" = they lie beside their
	// files, under dot names that no include pattern reads, only while Apply
	// works, and stay there when it could not put everything back.
	BackupDir string
}

// Applied tells what Apply did.
type Applied struct {
	Files []FileChange // the files that are now at After
	Reloaded
	// Backups are the old files that are on the host now.
	Backups []string
}

// Apply makes a change live: it tests the configuration as it is, so that what
// was broken before is not blamed on the change; finds the running nginx; puts
// each file in place if it still has the bytes the change was made from; tests
// again; reloads and waits for the proof, as Reload does. Whatever fails, all
// files are put back and tested, and nginx is reloaded once more if it had been,
// also when ctx has ended meanwhile; the error is an *ApplyError then. Any other
// error means that nothing was written: a *TestError of the configuration as it
// was, a *DriftError, a *GuardError, ErrNotRunning, ErrNoNginx. Files that have
// their new bytes already are left, so that an Apply that was cut off can be
// repeated. An empty change does nothing. At most one ApplyOptions is used.
//
// A file is replaced by renaming, with one shell command: links to it are
// followed, owner, mode, access list and SELinux label are kept, and it has
// either all its old or all its new bytes. A file of several hard links is
// written in place, so that the links stay.
func (s *Server) Apply(ctx context.Context, c *Change, o ...ApplyOptions) (*Applied, error) {
	if c.Empty() {
		return &Applied{}, nil
	}
	return s.put(ctx, c.Files(), true, o)
}

// Put sets every file to its After bytes by the same guarded way as Apply, but
// without testing before: it is for taking back a change whose files are at hand
// from a journal (with Before and After turned around). A file that is at After
// already is left; one that is at neither gives a *DriftError before anything is
// written. nginx is tested and reloaded also when there was nothing to write,
// since an earlier Put may have been cut off in between.
func (s *Server) Put(ctx context.Context, files []FileChange, o ...ApplyOptions) error {
	_, err := s.put(ctx, files, false, o)
	return err
}

// onDisk is a file change with what the host says about the file.
type onDisk struct {
	FileChange
	real   string // the file behind all links
	id     string // the same for all names of one file
	hash   string // of its bytes now
	backup string // where these bytes are kept
}

func (s *Server) put(ctx context.Context, files []FileChange, testBefore bool, opts []ApplyOptions) (*Applied, error) {
	var o ApplyOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.BackupDir != "" && (!strings.HasPrefix(o.BackupDir, "/") || strings.ContainsAny(o.BackupDir, "\n\x00")) {
		return nil, fmt.Errorf("cannot keep backups in %q: it is not an absolute path", o.BackupDir)
	}
	if len(files) == 0 {
		return &Applied{}, nil
	}
	var p *instance
	if !o.NoTest {
		var err error
		if p, err = s.find(ctx); err != nil {
			return nil, err
		}
		if testBefore {
			if _, err := s.test(ctx, p); err != nil {
				if te, ok := errors.AsType[*TestError](err); ok {
					te.BeforeEdit = true
				}
				return nil, err
			}
		}
	}
	// The configuration as it is says where its pid file and error log are, also
	// when the change is about to take something broken back.
	var running *live
	signal := ""
	if !o.NoTest && !o.NoReload {
		t, err := Load(ctx, hostFS{s.Host}, p.conf)
		if err != nil {
			// Put may be here to mend it.
			if t, err = s.loadAfter(ctx, p.conf, files, err); err != nil {
				return nil, err
			}
		}
		if running, signal, err = s.live(ctx, p, t); err != nil {
			return nil, fmt.Errorf("nothing was changed: %w", err)
		}
	}
	all, todo, err := s.stat(ctx, files, o.BackupDir)
	if err != nil {
		return nil, err
	}
	var written []onDisk // also those of which only the attempt is known
	for _, f := range todo {
		if err = s.swap(ctx, f); err == nil {
			written = append(written, f)
			continue
		}
		if !untouched(err) {
			written = append(written, f)
		}
		break
	}
	out := &Applied{Files: slices.Clone(files)}
	var took time.Duration
	if err == nil && !o.NoTest {
		took, err = s.test(ctx, p)
	}
	reloaded := false
	if err == nil && running != nil {
		var r *Reloaded
		if r, err = s.reload(ctx, running, signal, took); err == nil {
			out.Reloaded = *r
		}
		// A guard that refused is the one failure of which it is sure that
		// nginx has not seen the files.
		reloaded = !untouched(err)
	}
	if err != nil {
		if len(written) == 0 {
			return nil, err
		}
		return nil, &ApplyError{Err: err, PutBack: s.putBack(ctx, written, p, running, signal, reloaded, o)}
	}
	for _, f := range written {
		out.Backups = append(out.Backups, f.backup)
	}
	if s.sweep(ctx, all) == nil && o.BackupDir == "" {
		out.Backups = nil
	}
	return out, nil
}

// loadAfter reads the configuration as the files will make it.
func (s *Server) loadAfter(ctx context.Context, conf string, files []FileChange, old error) (*Tree, error) {
	t, err := Load(ctx, patchedFS{s.Host, files}, conf)
	if err != nil {
		return nil, old
	}
	return t, nil
}

// patchedFS is a host whose files have their After bytes already.
type patchedFS struct {
	Host
	files []FileChange
}

func (p patchedFS) ReadFile(ctx context.Context, name string) ([]byte, error) {
	for _, f := range p.files {
		if f.Name == name {
			return f.After, nil
		}
	}
	return p.Host.ReadFile(ctx, name)
}

// untouched reports whether an error says that its command changed nothing.
func untouched(err error) bool {
	if _, ok := errors.AsType[*DriftError](err); ok {
		return true
	}
	_, ok := errors.AsType[*GuardError](err)
	return ok
}

// hidden is the name of a file of ours beside or instead of another: the leading
// dot keeps it out of every include pattern that does not begin with one, and
// the end says what is in it, so that what a cut-off attempt left is found again.
func hidden(base, what string, data []byte) string {
	return "." + base + ".upgradectl-" + what + "-" + sum(data)[:12]
}

// sweep takes away what lies beside the files: the backups and copies of this
// attempt, and of an earlier one of the same change, or of its way back, that
// was cut off. Their names have our pattern and the hashes of these very bytes.
func (s *Server) sweep(ctx context.Context, files []onDisk) error {
	cmd := []string{"rm", "-f"}
	for _, f := range files {
		dir, base := path.Split(f.real)
		for _, what := range []string{"old", "new"} {
			cmd = append(cmd, dir+hidden(base, what, f.Before), dir+hidden(base, what, f.After))
		}
	}
	_, _, err := s.run(ctx, shellq.Join(cmd...))
	return err
}

// stat finds the real file behind each name and says which are to be written.
func (s *Server) stat(ctx context.Context, files []FileChange, backups string) (all, todo []onDisk, err error) {
	var names []string
	for _, f := range files {
		if strings.ContainsAny(f.Name, "\n\x00") {
			return nil, nil, fmt.Errorf("cannot write %q: its name has a line end or a NUL", f.Name)
		}
		names = append(names, shellq.Quote(f.Name))
	}
	script := "for f in " + strings.Join(names, " ") + `; do
	r=$(readlink -f "$f") && h=$(sha256sum <"$r") && n=$(stat -c %h "$r") || { echo "$f" >&2; exit 74; }
	i=$r
	[ "$n" = 1 ] || i=$(stat -c %d:%i "$r") || exit 74
	printf '%s\n%s\n%s\n' "$r" "$i" "${h%% *}"
done`
	stdout, stderr, err := s.run(ctx, script)
	if status, ok := exitStatus(err); ok {
		return nil, nil, fmt.Errorf("cannot read the files to change: exit status %d: %s", status, stderr)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the files to change: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if len(lines) != 3*len(files) {
		return nil, nil, fmt.Errorf("internal error: %d lines about %d files", len(lines), len(files))
	}
	var drift []error
	for i, f := range files {
		d := onDisk{FileChange: f, real: lines[3*i], id: lines[3*i+1], hash: lines[3*i+2]}
		dir, base := path.Split(d.real)
		if d.backup = dir; backups != "" {
			d.backup = strings.TrimRight(backups, "/") + "/"
		}
		d.backup += hidden(base, "old", f.Before)
		all = append(all, d)
		switch d.hash {
		case sum(f.After):
			continue
		case sum(f.Before):
		default:
			drift = append(drift, &DriftError{Name: f.Name, Want: sum(f.Before), Have: d.hash})
			continue
		}
		// One file under two names, through a link, is written once.
		if j := slices.IndexFunc(todo, func(o onDisk) bool { return o.id == d.id }); j >= 0 {
			if !bytes.Equal(todo[j].After, f.After) {
				return nil, nil, fmt.Errorf("cannot write %s: it is the same file as %s, with another change", f.Name, todo[j].Name)
			}
			continue
		}
		todo = append(todo, d)
	}
	return all, todo, errors.Join(drift...)
}

const (
	statusChanged = 75
	statusRights  = 76
	statusRename  = 77
	statusGuard   = 78
	statusBackup  = 79
)

// Both parts of the command that puts the file upg_t in the place of upg_f if
// that still has the wanted hash; the guard stands between them. The label is
// copied only where SELinux is on: elsewhere chcon fails. sync of one file is
// more than old coreutils know, which then write all files out.
const (
	dressScript = `upg_made=
upg_no() { rm -f "$upg_t" ${upg_made:+"$upg_made"}; exit "$1"; }
upg_same() { upg_h=$(sha256sum <"$upg_f") && [ "${upg_h%% *}" = "$upg_want" ]; }
upg_same || upg_no 75
upg_n=$(stat -c %h "$upg_f") || upg_no 75
chown --reference="$upg_f" "$upg_t" 2>/dev/null || chown "$(stat -c %u:%g "$upg_f")" "$upg_t" || upg_no 76
chmod --reference="$upg_f" "$upg_t" 2>/dev/null || chmod "$(stat -c %a "$upg_f")" "$upg_t" || upg_no 76
if command -v getfacl >/dev/null 2>&1 && command -v setfacl >/dev/null 2>&1; then
	getfacl -cp "$upg_f" 2>/dev/null | setfacl --set-file=- "$upg_t" 2>/dev/null || :
fi
if [ -e /sys/fs/selinux/enforce ] && command -v chcon >/dev/null 2>&1; then
	chcon --reference="$upg_f" "$upg_t" || upg_no 76
fi
sync "$upg_t" || upg_no 77
[ -d "${upg_b%/*}" ] || mkdir -p "${upg_b%/*}" || upg_no 79
upg_made=$upg_b
cp -p "$upg_f" "$upg_b" || upg_no 79
`
	swapScript = `upg_same || upg_no 75
if [ "$upg_n" = 1 ]; then
	mv -f -T "$upg_t" "$upg_f" || upg_no 77
else
	cat "$upg_t" >"$upg_f" || { cat "$upg_b" >"$upg_f"; rm -f "$upg_t"; exit 77; }
	rm -f "$upg_t"
	sync "$upg_f"
fi
sync "${upg_f%/*}/" || :`
)

// swap puts After in the place of Before.
func (s *Server) swap(ctx context.Context, f onDisk) error {
	dir, base := path.Split(f.real)
	temp := dir + hidden(base, "new", f.After)
	err := s.Host.WriteFile(ctx, temp, f.After, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if _, _, err = s.run(ctx, "rm -f "+shellq.Quote(temp)); err == nil {
			err = s.Host.WriteFile(ctx, temp, f.After, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write beside %s: %w", f.Name, err)
	}
	vars := "upg_f=" + shellq.Quote(f.real) + " upg_t=" + shellq.Quote(temp) + " upg_b=" + shellq.Quote(f.backup) + " upg_want=" + f.hash + "\n"
	_, stderr, err := s.run(ctx, vars+dressScript+s.guard(`rm -f "$upg_t" "$upg_b";`)+swapScript)
	status, ok := exitStatus(err)
	switch {
	case !ok && err != nil:
		return fmt.Errorf("cannot put %s in place: %w", f.Name, err)
	case !ok:
		return nil
	case status == statusChanged:
		return &DriftError{Name: f.Name, Want: f.hash}
	case status == statusGuard:
		return &GuardError{What: "put " + f.Name + " in place", Output: stderr}
	case status == statusRights:
		return fmt.Errorf("cannot put %s in place: its owner, mode or label cannot be kept: %s", f.Name, stderr)
	case status == statusBackup:
		return fmt.Errorf("cannot put %s in place: its old bytes cannot be kept in %s: %s", f.Name, f.backup, stderr)
	case status == statusRename:
		return fmt.Errorf("cannot put %s in place: %s", f.Name, stderr)
	}
	return fmt.Errorf("cannot put %s in place: exit status %d: %s", f.Name, status, stderr)
}

// putBack gives files their bytes from before, tests, and reloads if the failed
// change had been reloaded. It runs on when the caller's context has ended.
func (s *Server) putBack(ctx context.Context, files []onDisk, p *instance, running *live, signal string, reload bool, o ApplyOptions) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancel()
	back := make([]FileChange, len(files))
	var backups []string
	for i, f := range files {
		back[i] = FileChange{Name: f.Name, Before: f.After, After: f.Before}
		backups = append(backups, f.backup)
	}
	all, todo, err := s.stat(ctx, back, o.BackupDir)
	var failed []error
	if err != nil {
		failed = append(failed, err)
	}
	for _, f := range todo {
		if err := s.swap(ctx, f); err != nil {
			failed = append(failed, err)
		}
	}
	var took time.Duration
	if !o.NoTest {
		var err error
		if took, err = s.test(ctx, p); err != nil {
			failed = append(failed, err)
		} else if reload {
			_, err := s.reload(ctx, running, signal, took)
			if e, ok := errors.AsType[*ReloadError](err); ok && e.Output != "" {
				// Who gave up while nginx was still trying to use the change reads
				// the end of that here. It has ended now.
				_, err = s.reload(ctx, running, signal, took)
			}
			if err != nil {
				failed = append(failed, err)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%w (the old files are kept as %s)", errors.Join(failed...), strings.Join(backups, ", "))
	}
	return s.sweep(ctx, all)
}

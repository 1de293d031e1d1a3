package firstbox

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// cmdNodeTar is tar -C / -chf - [--exclude=PATTERN] -- NAME… and
// tar -C / --no-same-owner -xf - -- NAME…, as trees of files travel from node to node.
func (s *Site) cmdNodeTar(_ context.Context, p *host.Proc) int {
	args := p.Args[1:]
	if len(args) < 4 || args[0] != "-C" || args[1] != "/" {
		return p.Refusef("only tar -C /")
	}
	args = args[2:]
	if strings.HasPrefix(strings.Join(args, " ")+" ", "--no-same-owner -xf - -- ") {
		return unpack(p, args[4:])
	}
	if args[0] != "-chf" || args[1] != "-" {
		return p.Refusef("only -chf - and --no-same-owner -xf - -- NAME…")
	}
	exclude := ""
	for args = args[2:]; len(args) > 0 && args[0] != "--"; args = args[1:] {
		v, ok := strings.CutPrefix(args[0], "--exclude=")
		if !ok || exclude != "" {
			return p.Refusef("option %s", args[0])
		}
		exclude = v
	}
	if len(args) < 2 {
		return p.Failf(2, "Cowardly refusing to create an empty archive")
	}
	w := tar.NewWriter(p.Stdout)
	for _, name := range args[1:] {
		if err := pack(p, w, strings.Trim(name, "/"), exclude); err != nil {
			return p.Failf(2, "%s: Cannot stat: %v", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return 2
	}
	return 0
}

// pack puts a file, or a directory with all that is in it, into an archive.
func pack(p *host.Proc, w *tar.Writer, name, exclude string) error {
	info, err := p.Host.Stat("/" + name)
	if err != nil {
		return err
	}
	if exclude != "" && globMatch(exclude, path.Base(name)) {
		return nil
	}
	if info.IsDir() {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}); err != nil {
			return err
		}
		entries, err := p.Host.ReadDir("/" + name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := pack(p, w, name+"/"+e.Name(), exclude); err != nil {
				return err
			}
		}
		return nil
	}
	data, err := p.Host.ReadFile("/" + name)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: int64(len(data)), ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// unpack writes those files of an archive that are named, or below a name.
func unpack(p *host.Proc, names []string) int {
	r := tar.NewReader(p.Stdin)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return 0
		}
		if err != nil {
			return p.Failf(2, "This does not look like a tar archive")
		}
		if h.Typeflag == tar.TypeDir {
			continue // made with its first file
		}
		if !slices.ContainsFunc(names, func(n string) bool { return h.Name == n || strings.HasPrefix(h.Name, n+"/") }) {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return p.Failf(2, "Unexpected EOF in archive")
		}
		name := "/" + strings.Trim(h.Name, "/")
		_ = p.Host.Remove(name) // it may not be there
		if err := p.Host.WriteFile(name, data, fs.FileMode(h.Mode).Perm()); err != nil {
			return p.Failf(2, "%s: Cannot open: %v", name, err)
		}
	}
}

package host

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/pkg/sftp"
)

// serveSFTP serves the sftp subsystem on a channel until it closes.
func (h *Host) serveSFTP(ch io.ReadWriteCloser, a account) {
	f := &sftpFiles{h: h, c: a.cred}
	s := sftp.NewRequestServer(ch, sftp.Handlers{FileGet: f, FilePut: f, FileCmd: f, FileList: f}, sftp.WithStartDirectory(a.home))
	_ = s.Serve() // ends with the channel
}

// sftpFiles answers SFTP requests from the tree.
type sftpFiles struct {
	h *Host
	c cred
}

// Fileread opens a file for reading.
func (s *sftpFiles) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	data, err := s.h.tree.readFile(s.c, r.Filepath)
	if err != nil {
		return nil, plain(err)
	}
	return readerAt(data), nil
}

type readerAt []byte

func (d readerAt) ReadAt(b []byte, at int64) (int, error) {
	if at >= int64(len(d)) {
		return 0, io.EOF
	}
	n := copy(b, d[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Filewrite opens a file for writing; with the exclusive flag it must be new.
func (s *sftpFiles) Filewrite(r *sftp.Request) (io.WriterAt, error) { return s.openWrite(r) }

// OpenFile opens a file for reading and writing.
func (s *sftpFiles) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) { return s.openWrite(r) }

func (s *sftpFiles) openWrite(r *sftp.Request) (*handle, error) {
	flags := 0
	want := r.Pflags()
	if want.Creat {
		flags |= oCreate
	}
	if want.Excl {
		flags |= oExcl
	}
	if want.Trunc {
		flags |= oTrunc
	}
	perm := fs.FileMode(0o644)
	if r.AttrFlags().Permissions {
		perm = r.Attributes().FileMode().Perm() &^ 0o022
	}
	f, err := s.h.tree.openWrite(s.c, r.Filepath, flags, perm)
	return f, plain(err)
}

// Filecmd does what changes the tree.
func (s *sftpFiles) Filecmd(r *sftp.Request) error {
	t := s.h.tree
	switch r.Method {
	case "Setstat":
		return plain(s.setstat(r))
	case "Rename": // protocol version 3: never onto an existing file
		return plain(t.rename(s.c, r.Filepath, r.Target, false))
	case "Rmdir":
		return plain(t.remove(s.c, r.Filepath, true))
	case "Remove":
		return plain(t.remove(s.c, r.Filepath, false))
	case "Mkdir":
		return plain(t.mkdir(s.c, r.Filepath, 0o755))
	case "Symlink":
		return plain(t.symlink(s.c, r.Filepath, r.Target))
	}
	return sftp.ErrSSHFxOpUnsupported
}

// PosixRename replaces an existing target.
func (s *sftpFiles) PosixRename(r *sftp.Request) error {
	return plain(s.h.tree.rename(s.c, r.Filepath, r.Target, true))
}

func (s *sftpFiles) setstat(r *sftp.Request) error {
	flags, attrs := r.AttrFlags(), r.Attributes()
	if flags.Permissions {
		if err := s.h.tree.chmod(s.c, r.Filepath, attrs.FileMode()); err != nil {
			return err
		}
	}
	if flags.UidGid {
		if err := s.h.tree.chown(s.c, r.Filepath, int(attrs.UID), int(attrs.GID)); err != nil {
			return err
		}
	}
	if flags.Size {
		f, err := s.h.tree.openWrite(s.c, r.Filepath, 0, 0)
		if err != nil {
			return err
		}
		f.truncate(int64(attrs.Size))
	}
	return nil
}

// Filelist lists a directory, or describes a file.
func (s *sftpFiles) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	switch r.Method {
	case "List":
		entries, err := s.h.tree.readDir(s.c, r.Filepath)
		if err != nil {
			return nil, plain(err)
		}
		var out listing
		for _, e := range entries {
			if i, err := s.h.tree.stat(s.c, path.Join(r.Filepath, e.Name()), false); err == nil {
				out = append(out, i)
			}
		}
		return out, nil
	case "Stat":
		return s.one(r.Filepath, true)
	}
	return nil, sftp.ErrSSHFxOpUnsupported
}

// Lstat describes a file without following a link.
func (s *sftpFiles) Lstat(r *sftp.Request) (sftp.ListerAt, error) { return s.one(r.Filepath, false) }

func (s *sftpFiles) one(name string, follow bool) (sftp.ListerAt, error) {
	i, err := s.h.tree.stat(s.c, name, follow)
	if err != nil {
		return nil, plain(err)
	}
	return listing{i}, nil
}

// Readlink reads a symbolic link.
func (s *sftpFiles) Readlink(name string) (string, error) {
	target, err := s.h.tree.readlink(s.c, name)
	return target, plain(err)
}

// RealPath resolves symbolic links.
func (s *sftpFiles) RealPath(name string) (string, error) {
	if name == "." || name == "" {
		for _, a := range s.h.accounts() {
			if a.cred.uid == s.c.uid {
				return a.home, nil
			}
		}
	}
	full, err := s.h.tree.realpath(s.c, name)
	return full, plain(err)
}

type listing []os.FileInfo

// ListAt copies entries from an offset.
func (l listing) ListAt(out []os.FileInfo, at int64) (int, error) {
	if at >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(out, l[at:])
	if n < len(out) {
		return n, io.EOF
	}
	return n, nil
}

// plain is an error that the sftp package turns into the right status.
func plain(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return sftp.ErrSSHFxPermissionDenied
	}
	return err
}

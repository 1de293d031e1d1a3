package host

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"path"
)

// cmdTar is tar -cf FILE -C DIR NAME.
func cmdTar(_ context.Context, p *Proc) int {
	if len(p.Args) != 6 || p.Args[1] != "-cf" || p.Args[3] != "-C" {
		return p.refusef("only tar -cf FILE -C DIR NAME")
	}
	dir, name := p.abs(p.Args[4]), p.Args[5]
	data, err := p.tree().readFile(p.p.cred, path.Join(dir, name))
	if err != nil {
		return p.failf(2, "%s: Cannot open: %s", name, errText(err))
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}))
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = p.tree().writeFile(p.p.cred, p.abs(p.Args[2]), b.Bytes(), oCreate|oTrunc, 0o666&^p.umask)
	}
	if err != nil {
		return p.failf(2, "%s: Cannot write: %s", p.Args[2], errText(err))
	}
	return 0
}

package host

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a file system call answers besides fs.ErrNotExist, ErrExist and
// ErrPermission.
var (
	errNotDir   = errors.New("not a directory")
	errIsDir    = errors.New("is a directory")
	errNotEmpty = errors.New("directory not empty")
	errLoop     = errors.New("too many levels of symbolic links")
	errReadOnly = errors.New("read-only file system")
	errInvalid  = errors.New("invalid argument")
)

// errText says an error as the C library does.
func errText(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "No such file or directory"
	case errors.Is(err, fs.ErrExist):
		return "File exists"
	case errors.Is(err, fs.ErrPermission):
		return "Permission denied"
	case errors.Is(err, errNotDir):
		return "Not a directory"
	case errors.Is(err, errIsDir):
		return "Is a directory"
	case errors.Is(err, errNotEmpty):
		return "Directory not empty"
	case errors.Is(err, errLoop):
		return "Too many levels of symbolic links"
	case errors.Is(err, errReadOnly):
		return "Read-only file system"
	case errors.Is(err, errInvalid):
		return "Invalid argument"
	case errors.Is(err, errNoSpace):
		return "No space left on device"
	}
	return err.Error()
}

// node is an inode.
type node struct {
	mode  fs.FileMode
	uid   int
	gid   int
	mtime time.Time
	data  []byte
	link  string
	kids  map[string]*node
	more  int // names beyond the first: hard links

	gen     func() []byte             // content made at every read
	look    func(name string) *node   // directory made at every look
	list    func() []string           // its names
	private bool                      // only the owner may read this link: /proc/PID/{exe,cwd,fd/*}
	put     func(data []byte, at int) // where writes go instead of data (devices)
}

func (n *node) isDir() bool  { return n.mode.IsDir() }
func (n *node) isLink() bool { return n.mode&fs.ModeSymlink != 0 }

func (n *node) content() []byte {
	if n.gen != nil {
		return n.gen()
	}
	return n.data
}

func (n *node) child(name string) *node {
	if n.look != nil {
		return n.look(name)
	}
	return n.kids[name]
}

func (n *node) names() []string {
	if n.list != nil {
		return n.list()
	}
	return slices.Sorted(maps.Keys(n.kids))
}

// clone copies a subtree.
func (n *node) clone() *node {
	c := *n
	c.data = bytes.Clone(n.data)
	if n.kids != nil {
		c.kids = make(map[string]*node, len(n.kids))
		for name, kid := range n.kids {
			c.kids[name] = kid.clone()
		}
	}
	return &c
}

// cred is who asks.
type cred struct{ uid, gid int }

func (c cred) may(n *node, bits fs.FileMode) bool {
	if c.uid == 0 {
		return true
	}
	perm := n.mode.Perm()
	switch {
	case n.uid == c.uid:
		perm >>= 6
	case n.gid == c.gid:
		perm >>= 3
	}
	return perm&bits == bits
}

// tree is a file system in memory. Its lock may be held while the host's lock
// is taken (for /proc), never the other way round.
type tree struct {
	mu   sync.RWMutex
	root *node
	full atomic.Bool // no room for data
}

func newDir(perm fs.FileMode) *node {
	return &node{mode: fs.ModeDir | perm, mtime: time.Now(), kids: map[string]*node{}}
}

func newTree() *tree { return &tree{root: newDir(0o755)} }

// clean makes an absolute slash path; on Windows the shell interpreter hands
// us backslashes.
func clean(name string) string {
	if isClean(name) {
		return name
	}
	name = strings.TrimPrefix(filepath.ToSlash(name), filepath.VolumeName(name))
	return path.Clean("/" + name)
}

// isClean tells the absolute paths that clean leaves as they are, most of them.
func isClean(name string) bool {
	if len(name) < 2 || name[0] != '/' || name[len(name)-1] == '/' {
		return false
	}
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			return false
		case '/':
			if next := name[i+1]; next == '/' || next == '.' {
				return false
			}
		}
	}
	return true
}

// place is where a path leads.
type place struct {
	parent *node // nil for /
	base   string
	n      *node // nil when the last part does not exist
	real   string
}

// walk follows a path. A missing last part is not an error.
func (t *tree) walk(c cred, name string, follow bool) (place, error) {
	type level struct {
		n    *node
		name string
	}
	stack := append(make([]level, 0, 8), level{t.root, ""})
	todo := strings.Split(strings.TrimPrefix(clean(name), "/"), "/")
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		cur := stack[len(stack)-1].n
		if cur == nil {
			return place{}, fs.ErrNotExist
		}
		if !cur.isDir() {
			return place{}, errNotDir
		}
		if !c.may(cur, 1) {
			return place{}, fs.ErrPermission
		}
		next := cur.child(part)
		if next == nil && len(todo) > 0 {
			return place{}, fs.ErrNotExist
		}
		if next != nil && next.isLink() && (follow || len(todo) > 0) {
			if links++; links > 40 {
				return place{}, errLoop
			}
			if strings.HasPrefix(next.link, "/") {
				stack = stack[:1]
			}
			todo = append(strings.Split(next.link, "/"), todo...)
			continue
		}
		stack = append(stack, level{next, part})
	}
	var b strings.Builder
	b.Grow(len(name))
	for _, l := range stack[1:] {
		b.WriteByte('/')
		b.WriteString(l.name)
	}
	last := stack[len(stack)-1]
	p := place{base: last.name, n: last.n, real: b.String()}
	if p.real == "" {
		p.real = "/"
	}
	if len(stack) > 1 {
		p.parent = stack[len(stack)-2].n
	}
	return p, nil
}

// get is walk for what must exist.
func (t *tree) get(c cred, name string, follow bool) (place, error) {
	p, err := t.walk(c, name, follow)
	if err == nil && p.n == nil {
		err = fs.ErrNotExist
	}
	return p, err
}

func perr(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (t *tree) readFile(c cred, name string) ([]byte, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, err := t.get(c, name, true)
	if err == nil && p.n.isDir() {
		err = errIsDir
	}
	if err == nil && !c.may(p.n, 4) {
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, perr("open", name, err)
	}
	return bytes.Clone(p.n.content()), nil
}

// handle is an open file.
type handle struct {
	t      *tree
	n      *node
	append bool
	mu     sync.Mutex
	off    int64
}

func (h *handle) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	at := h.off
	if h.append {
		at = int64(len(h.n.data))
	}
	if err := h.writeAt(b, at); err != nil {
		return 0, err
	}
	h.off = at + int64(len(b))
	return len(b), nil
}

func (h *handle) WriteAt(b []byte, at int64) (int, error) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	if err := h.writeAt(b, at); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (h *handle) writeAt(b []byte, at int64) error {
	if h.n.put != nil {
		h.n.put(b, int(at))
		return nil
	}
	if h.t.full.Load() && len(b) > 0 {
		return errNoSpace
	}
	if end := at + int64(len(b)); end > int64(len(h.n.data)) {
		h.n.data = append(h.n.data, make([]byte, end-int64(len(h.n.data)))...)
	}
	copy(h.n.data[at:], b)
	h.n.mtime = time.Now()
	return nil
}

func (h *handle) truncate(size int64) {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	if size < int64(len(h.n.data)) {
		h.n.data = h.n.data[:size:size]
	} else {
		h.n.data = append(h.n.data, make([]byte, size-int64(len(h.n.data)))...)
	}
	h.n.mtime = time.Now()
}

func (h *handle) ReadAt(b []byte, at int64) (int, error) {
	h.t.mu.RLock()
	defer h.t.mu.RUnlock()
	data := h.n.content()
	if at >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(b, data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) Read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.ReadAt(b, h.off)
	h.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *handle) Close() error { return nil }

// How to open for writing.
const (
	oCreate = 1 << iota
	oExcl
	oTrunc
	oAppend
)

// openWrite opens a file for writing. perm is used for a new file.
func (t *tree) openWrite(c cred, name string, flags int, perm fs.FileMode) (*handle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.walk(c, name, flags&oExcl == 0)
	switch {
	case err != nil:
	case p.n == nil && flags&oCreate == 0:
		err = fs.ErrNotExist
	case p.n == nil:
		if err = t.mayChange(c, p); err != nil {
			break
		}
		p.n = &node{mode: perm.Perm(), uid: c.uid, gid: c.gid, mtime: time.Now()}
		p.parent.kids[p.base] = p.n
		p.parent.mtime = time.Now()
	case flags&oExcl != 0:
		err = fs.ErrExist
	case p.n.isDir():
		err = errIsDir
	case p.n.gen != nil && p.n.put == nil:
		err = fs.ErrPermission
	case !c.may(p.n, 2):
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, perr("open", name, err)
	}
	if flags&oTrunc != 0 && p.n.put == nil {
		p.n.data = nil
		p.n.mtime = time.Now()
	}
	return &handle{t: t, n: p.n, append: flags&oAppend != 0}, nil
}

// mayChange says whether entries of a place's directory may change.
func (t *tree) mayChange(c cred, p place) error {
	switch {
	case p.parent == nil:
		return errInvalid
	case !p.parent.isDir():
		return errNotDir
	case p.parent.look != nil || p.parent.kids == nil:
		return errReadOnly
	case !c.may(p.parent, 2):
		return fs.ErrPermission
	}
	// The sticky bit of /tmp: only the owner takes away.
	if p.parent.mode&fs.ModeSticky != 0 && p.n != nil && c.uid != 0 && p.n.uid != c.uid {
		return fs.ErrPermission
	}
	return nil
}

func (t *tree) writeFile(c cred, name string, data []byte, flags int, perm fs.FileMode) error {
	h, err := t.openWrite(c, name, flags, perm)
	if err != nil {
		return err
	}
	_, err = h.Write(data)
	return err
}

func (t *tree) mkdir(c cred, name string, perm fs.FileMode) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.walk(c, name, false)
	if err == nil && p.n != nil {
		err = fs.ErrExist
	}
	if err == nil {
		err = t.mayChange(c, p)
	}
	if err != nil {
		return perr("mkdir", name, err)
	}
	d := newDir(perm & (fs.ModePerm | fs.ModeSticky))
	d.uid, d.gid = c.uid, c.gid
	p.parent.kids[p.base] = d
	return nil
}

// mkdirAll makes a directory and its missing parents, as root.
func (t *tree) mkdirAll(name string, perm fs.FileMode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	cur := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(clean(name), "/"), "/") {
		cur += "/" + part
		if p, err := t.walk(cred{}, cur, true); err == nil && p.n == nil && p.parent != nil && p.parent.kids != nil {
			p.parent.kids[p.base] = newDir(perm)
		}
	}
}

func (t *tree) remove(c cred, name string, dir bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.get(c, name, false)
	switch {
	case err != nil:
	case p.n.isDir() && !dir:
		err = errIsDir
	case !p.n.isDir() && dir:
		err = errNotDir
	case dir && len(p.n.names()) > 0:
		err = errNotEmpty
	default:
		err = t.mayChange(c, p)
	}
	if err != nil {
		return perr("remove", name, err)
	}
	delete(p.parent.kids, p.base)
	p.n.more--
	p.parent.mtime = time.Now()
	return nil
}

func (t *tree) removeAll(c cred, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.get(c, name, false)
	if err == nil {
		err = t.mayChange(c, p)
	}
	if err == nil {
		delete(p.parent.kids, p.base)
	}
	return perr("remove", name, err)
}

// rename moves a file; replace = an existing target is replaced atomically.
func (t *tree) rename(c cred, from, to string, replace bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, err := t.get(c, from, false)
	if err != nil {
		return perr("rename", from, err)
	}
	b, err := t.walk(c, to, false)
	switch {
	case err != nil:
	case b.n != nil && !replace:
		err = fs.ErrExist
	case b.n == a.n:
		return nil
	case b.n != nil && b.n.isDir() && !a.n.isDir():
		err = errIsDir
	case b.n != nil && !b.n.isDir() && a.n.isDir():
		err = errNotDir
	case b.n != nil && b.n.isDir() && len(b.n.names()) > 0:
		err = errNotEmpty
	case a.n.isDir() && strings.HasPrefix(b.real+"/", a.real+"/"):
		err = errInvalid
	}
	if err == nil {
		err = t.mayChange(c, a)
	}
	if err == nil {
		err = t.mayChange(c, b)
	}
	if err != nil {
		return perr("rename", to, err)
	}
	if b.n != nil {
		b.n.more--
	}
	delete(a.parent.kids, a.base)
	b.parent.kids[b.base] = a.n
	return nil
}

// hardlink gives a file a second name. A clone of the tree has two files.
func (t *tree) hardlink(c cred, from, to string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, err := t.get(c, from, false)
	if err == nil && a.n.isDir() {
		err = fs.ErrPermission
	}
	if err != nil {
		return perr("link", from, err)
	}
	b, err := t.walk(c, to, false)
	if err == nil && b.n != nil {
		err = fs.ErrExist
	}
	if err == nil {
		err = t.mayChange(c, b)
	}
	if err != nil {
		return perr("link", to, err)
	}
	b.parent.kids[b.base] = a.n
	a.n.more++
	return nil
}

func (t *tree) symlink(c cred, target, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.walk(c, name, false)
	if err == nil && p.n != nil {
		err = fs.ErrExist
	}
	if err == nil {
		err = t.mayChange(c, p)
	}
	if err != nil {
		return perr("symlink", name, err)
	}
	p.parent.kids[p.base] = &node{mode: fs.ModeSymlink | 0o777, uid: c.uid, gid: c.gid, link: target, mtime: time.Now()}
	return nil
}

func (t *tree) chmod(c cred, name string, perm fs.FileMode) error {
	return t.change("chmod", c, name, func(n *node) error {
		if c.uid != 0 && c.uid != n.uid {
			return fs.ErrPermission
		}
		const bits = fs.ModePerm | fs.ModeSticky | fs.ModeSetuid | fs.ModeSetgid
		n.mode = n.mode&^bits | perm&bits
		return nil
	})
}

func (t *tree) chown(c cred, name string, uid, gid int) error {
	return t.change("chown", c, name, func(n *node) error {
		if c.uid != 0 {
			return fs.ErrPermission
		}
		if uid >= 0 {
			n.uid = uid
		}
		if gid >= 0 {
			n.gid = gid
		}
		return nil
	})
}

func (t *tree) change(op string, c cred, name string, f func(*node) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.get(c, name, true)
	if err == nil && (p.n.gen != nil || p.n.look != nil) {
		err = fs.ErrPermission
	}
	if err == nil {
		err = f(p.n)
	}
	return perr(op, name, err)
}

func (t *tree) readlink(c cred, name string) (string, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, err := t.get(c, name, false)
	if err == nil && !p.n.isLink() {
		err = errInvalid
	}
	if err == nil && p.n.private && c.uid != 0 && c.uid != p.n.uid {
		err = fs.ErrPermission
	}
	if err != nil {
		return "", perr("readlink", name, err)
	}
	return p.n.link, nil
}

// realpath resolves every symbolic link; the last part may be missing.
func (t *tree) realpath(c cred, name string) (string, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, err := t.walk(c, name, true)
	return p.real, perr("realpath", name, err)
}

func (t *tree) stat(c cred, name string, follow bool) (*info, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, err := t.get(c, name, follow)
	if err != nil {
		return nil, perr("stat", name, err)
	}
	return newInfo(path.Base(clean(name)), p.n), nil
}

// age sets the time of everything that there is back to when.
func (t *tree) age(when time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var walk func(n *node)
	walk = func(n *node) {
		n.mtime = when
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(t.root)
}

// setTime sets the time of the last change, as its owner and root may.
func (t *tree) setTime(c cred, name string, when time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.get(c, name, true)
	if err == nil && c.uid != 0 && c.uid != p.n.uid {
		err = fs.ErrPermission
	}
	if err == nil {
		p.n.mtime = when
	}
	return perr("touch", name, err)
}

func (t *tree) access(c cred, name string, bits fs.FileMode) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, err := t.get(c, name, true)
	if err == nil && !c.may(p.n, bits) {
		err = fs.ErrPermission
	}
	if err == nil && bits&1 != 0 && c.uid == 0 && !p.n.isDir() && p.n.mode&0o111 == 0 {
		err = fs.ErrPermission // even root cannot run what nobody may run
	}
	return perr("access", name, err)
}

func (t *tree) readDir(c cred, name string) ([]fs.DirEntry, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, err := t.get(c, name, true)
	switch {
	case err != nil:
	case !p.n.isDir():
		err = errNotDir
	case !c.may(p.n, 4):
		err = fs.ErrPermission
	}
	if err != nil {
		return nil, perr("open", name, err)
	}
	names := p.n.names()
	out := make([]fs.DirEntry, 0, len(names))
	for _, name := range names {
		if kid := p.n.child(name); kid != nil {
			out = append(out, dirEntry{name, kid})
		}
	}
	return out, nil
}

// dirEntry is a name of a directory. A pattern of the shell looks at many.
type dirEntry struct {
	name string
	n    *node
}

func (e dirEntry) Name() string               { return e.name }
func (e dirEntry) IsDir() bool                { return e.n.isDir() }
func (e dirEntry) Type() fs.FileMode          { return e.n.mode.Type() }
func (e dirEntry) Info() (fs.FileInfo, error) { return newInfo(e.name, e.n), nil }

// info is what stat tells.
type info struct {
	name     string
	size     int64
	mode     fs.FileMode
	mtime    time.Time
	uid, gid int
	link     string
	nlink    int
}

func newInfo(name string, n *node) *info {
	i := &info{name: name, mode: n.mode, mtime: n.mtime, uid: n.uid, gid: n.gid, link: n.link, nlink: 1 + n.more}
	switch {
	case n.isLink():
		i.size = int64(len(n.link))
	case n.isDir():
		i.size, i.nlink = 4096, 2
		for _, kid := range n.kids {
			if kid.isDir() {
				i.nlink++
			}
		}
	case n.gen == nil: // like /proc, generated files have size 0
		i.size = int64(len(n.data))
	}
	return i
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.size }
func (i *info) Mode() fs.FileMode  { return i.mode }
func (i *info) ModTime() time.Time { return i.mtime }
func (i *info) IsDir() bool        { return i.mode.IsDir() }
func (i *info) Sys() any           { return nil }
func (i *info) Uid() uint32        { return uint32(i.uid) } // for sftp's FileInfoUidGid
func (i *info) Gid() uint32        { return uint32(i.gid) }

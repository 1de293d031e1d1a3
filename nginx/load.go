package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// FS is what Load needs of the file system that holds a configuration. Names
// are those nginx uses: slashes, usually absolute. Links are followed by
// ReadFile and by ReadDir; the entries of ReadDir may be links. Both return
// errors that satisfy errors.Is(err, fs.ErrNotExist) where nothing is there.
type FS interface {
	ReadFile(ctx context.Context, name string) ([]byte, error)
	ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error)
}

// An IdentityFS also knows which names mean one file. Load asks it about files
// of the same bytes, so that a file with two names is one File.
type IdentityFS interface {
	FS
	// Identity returns a text that two names have in common exactly when they
	// are one file: by a symbolic or hard link, or by a detour (./a.conf). ""
	// says that it is not known.
	Identity(ctx context.Context, name string) (string, error)
}

// DirFS returns the local file system as FS: names are looked up inside the
// directory root, absolute ones as well. DirFS("/") is this machine as it is;
// DirFS("copy") finds /etc/nginx/nginx.conf in copy/etc/nginx/nginx.conf.
// Symbolic links are followed by the operating system, also out of root. It is
// an IdentityFS.
func DirFS(root string) FS { return dirFS(root) }

type dirFS string

// path leaves .. to the operating system: before it may stand a link.
func (d dirFS) path(name string) string { return filepath.FromSlash(join(string(d), name)) }

func (d dirFS) ReadFile(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := d.path(name)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeNamedPipe != 0:
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it is a named pipe")}
	case info.Mode()&fs.ModeDevice != 0:
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	b.Grow(int(min(info.Size(), MaxFileSize)) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(f, MaxFileSize+1))
	return b.Bytes(), err
}

func (d dirFS) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return os.ReadDir(d.path(name))
}

// Identity returns the device and inode numbers, or on systems without them the
// path behind all links.
func (d dirFS) Identity(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return identity(d.path(name))
}

// MapFS holds whole files by name, as tests and simulators want it. It must not
// change while it is read. It is an IdentityFS.
type MapFS map[string][]byte

// ReadFile returns the file of this name, or of this name without detours (./a,
// b/../a).
func (m MapFS) ReadFile(_ context.Context, name string) ([]byte, error) {
	if data, ok := m[name]; ok {
		return data, nil
	}
	if data, ok := m[path.Clean(name)]; ok {
		return data, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Identity returns the name without detours.
func (m MapFS) Identity(_ context.Context, name string) (string, error) { return path.Clean(name), nil }

// ReadDir lists the files and directories directly below name.
func (m MapFS) ReadDir(_ context.Context, name string) ([]fs.DirEntry, error) {
	prefix := strings.TrimSuffix(name, "/") + "/"
	if name == "." || name == "" {
		prefix = ""
	}
	found := map[string]bool{} // base name: is a directory
	for file := range m {
		if rest, ok := strings.CutPrefix(file, prefix); ok && rest != "" {
			base, _, dir := strings.Cut(rest, "/")
			found[base] = found[base] || dir
		}
	}
	if len(found) == 0 {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var out []fs.DirEntry
	for base, dir := range found {
		out = append(out, mapEntry{base, dir})
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

type mapEntry struct {
	name string
	dir  bool
}

func (e mapEntry) Name() string { return e.name }
func (e mapEntry) IsDir() bool  { return e.dir }
func (e mapEntry) Type() fs.FileMode {
	if e.dir {
		return fs.ModeDir
	}
	return 0
}
func (e mapEntry) Info() (fs.FileInfo, error) { return e, nil }
func (e mapEntry) Size() int64                { return 0 }
func (e mapEntry) Mode() fs.FileMode          { return e.Type() | 0o644 }
func (e mapEntry) ModTime() time.Time         { return time.Time{} }
func (e mapEntry) Sys() any                   { return nil }

// What Load reads at most. nginx has no such bounds: it goes on until memory or
// stack end.
const (
	// maxFiles bounds the files of a configuration, and what a pattern matches.
	maxFiles = 1 << 16
	// maxTotal bounds their bytes together.
	maxTotal = 256 << 20
	// maxExpanded bounds the directives of all files in all their contexts: a
	// file that includes another one twice doubles it.
	maxExpanded = 1 << 22
	// maxIncludes bounds how deep files include each other. nginx holds each of
	// them open.
	maxIncludes = 1000
)

// A Tree is a whole configuration: the main file and everything it includes.
// It never changes and is safe for concurrent use.
type Tree struct {
	main     *File
	files    []*File // in the order nginx first reads them
	includes map[Directive][]*File
	version  Version           // of the nginx that is to read it; zero when not known
	aliases  map[string]string // further names of files
}

// Load reads the configuration whose main file is called main, with every
// include, as nginx does: a name that is not absolute is looked up next to the
// main file, also when it stands in another one; a name with *, ? or [ is a
// glob(3) pattern, for which nothing may match; any other must exist.
//
// Errors are *SyntaxError, *IncludeError and *CycleError. A file included at
// several places is one File, also under several names where fsys is an
// IdentityFS: it has the name by which nginx reads it first then.
func Load(ctx context.Context, fsys FS, main string) (*Tree, error) {
	l := loader{
		ctx: ctx, fsys: fsys, prefix: main[:strings.LastIndexByte(main, '/')+1],
		known: map[string]*File{}, expanded: map[*File]int{},
		byText: map[uint64][]*File{}, seed: maphash.MakeSeed(), ids: map[string]string{},
		tree: &Tree{includes: map[Directive][]*File{}, aliases: map[string]string{}},
	}
	file, err := l.file(main)
	if err != nil {
		if _, ok := errors.AsType[*SyntaxError](err); !ok {
			if _, ok := errors.AsType[*IncludeError](err); !ok {
				if _, ok := errors.AsType[*CycleError](err); !ok {
					err = &IncludeError{Name: main, Err: err}
				}
			}
		}
		return nil, err
	}
	l.tree.main = file
	return l.tree, nil
}

type loader struct {
	ctx      context.Context
	fsys     FS
	prefix   string
	known    map[string]*File
	chain    []string      // the files that are being read
	expanded map[*File]int // the directives of a file and of all it includes
	total    int           // bytes
	seed     maphash.Seed
	byText   map[uint64][]*File // by the hash of their bytes
	ids      map[string]string  // what fsys called the identity of a name
	tree     *Tree
}

// file returns the file called name, reading it and what it includes when it is
// new.
func (l *loader) file(name string) (*File, error) {
	if i := slices.Index(l.chain, name); i >= 0 {
		return nil, &CycleError{Chain: append(slices.Clone(l.chain[i:]), name)}
	}
	if f := l.known[name]; f != nil {
		return f, nil
	}
	switch {
	case len(l.tree.files) >= maxFiles:
		return nil, fmt.Errorf("the configuration has more than %d files", maxFiles)
	case len(l.chain) >= maxIncludes:
		return nil, fmt.Errorf("files include each other more than %d deep", maxIncludes)
	}
	data, err := l.fsys.ReadFile(l.ctx, name)
	if err != nil {
		return nil, err
	}
	hash := maphash.Bytes(l.seed, data)
	same, err := l.same(name, data, l.byText[hash])
	switch {
	case err != nil:
		return nil, err
	case same == nil:
	case slices.Contains(l.chain, same.name):
		return nil, &CycleError{Chain: append(slices.Clone(l.chain[slices.Index(l.chain, same.name):]), name)}
	default:
		l.known[name] = same
		l.tree.aliases[name] = same.name
		return same, nil
	}
	if l.total += len(data); l.total > maxTotal {
		return nil, fmt.Errorf("the files of the configuration have more than %d bytes", maxTotal)
	}
	f, syntax := Parse(name, data)
	l.known[name] = f
	l.byText[hash] = append(l.byText[hash], f)
	l.tree.files = append(l.tree.files, f)
	l.expanded[f] = 1 + len(f.nodes)
	l.chain = append(l.chain, name)
	defer func() { l.chain = l.chain[:len(l.chain)-1] }()
	// nginx reads an include before it comes to an error behind it.
	for d := range f.All() {
		if d.IsBlock() || !d.is("include") || d.f.src[d.node().term] != ';' {
			continue
		}
		if err := l.include(d); err != nil {
			return nil, err
		}
	}
	return f, syntax
}

// same returns the file that name is another name of, or nil.
func (l *loader) same(name string, data []byte, like []*File) (*File, error) {
	fsys, ok := l.fsys.(IdentityFS)
	if !ok || len(data) == 0 {
		return nil, nil
	}
	id := func(name string) (string, error) {
		if id, ok := l.ids[name]; ok {
			return id, nil
		}
		id, err := fsys.Identity(l.ctx, name)
		if err == nil {
			l.ids[name] = id
		}
		return id, err
	}
	for _, f := range like {
		if !bytes.Equal(f.src, data) {
			continue
		}
		mine, err := id(name)
		if err != nil || mine == "" {
			return nil, err
		}
		other, err := id(f.name)
		if err != nil {
			return nil, err
		}
		if other == mine {
			return f, nil
		}
	}
	return nil, nil
}

func (l *loader) include(d Directive) error {
	pos := d.Position()
	if d.Line() != pos.Line {
		pos = d.f.Position(int(d.node().term)) // the line that nginx names
	}
	if d.Len() != 2 {
		return &SyntaxError{File: d.f.name, Line: pos.Line, Col: pos.Col, Offset: pos.Offset,
			Msg: `invalid number of arguments in "include" directive`}
	}
	name := d.Arg(1)
	failed := func(name string, err error) error {
		return &IncludeError{File: d.f.name, Line: pos.Line, Col: pos.Col, Name: name, Err: err}
	}
	if !strings.HasPrefix(name, "/") {
		name = l.prefix + name
	}
	names := []string{name}
	// The geo module opens its includes itself and knows no patterns.
	if p, ok := d.Parent(); hasMeta(name) && !(ok && p.is("geo")) {
		var err error
		if names, err = glob(l.ctx, l.fsys, name); err != nil {
			return failed(name, err)
		}
	}
	for _, name := range names {
		f, err := l.file(name)
		if err != nil {
			_, syntax := errors.AsType[*SyntaxError](err)
			_, cycle := errors.AsType[*CycleError](err)
			_, deeper := errors.AsType[*IncludeError](err)
			if syntax || cycle || deeper {
				return err
			}
			return failed(name, err)
		}
		l.tree.includes[d] = append(l.tree.includes[d], f)
		if l.expanded[d.f] += l.expanded[f]; l.expanded[d.f] > maxExpanded {
			return failed(name, fmt.Errorf("with all its includes the configuration has more than %d directives", maxExpanded))
		}
	}
	return nil
}

// Main returns the main file.
func (t *Tree) Main() *File { return t.main }

// Files returns every file once, in the order nginx first reads them.
func (t *Tree) Files() []*File { return slices.Clone(t.files) }

// File returns the file of this name as nginx calls it, or nil. A file that
// nginx reads by several names is found by each of them.
func (t *Tree) File(name string) *File {
	if first, ok := t.aliases[name]; ok {
		name = first
	}
	for _, f := range t.files {
		if f.name == name {
			return f
		}
	}
	return nil
}

// Included returns the files that an include directive of the tree brings, in
// the order nginx reads them.
func (t *Tree) Included(d Directive) []*File { return slices.Clone(t.includes[d]) }

// A Cursor is a place in a walk. It is valid during the call only.
type Cursor struct {
	Directive
	// Context holds the blocks around the directive, the outermost first,
	// through all includes.
	Context []Directive
	// Via holds the include directives that led to this file, the first one first.
	Via []Directive
}

// In reports whether the directive stands directly inside a block of this name.
func (c *Cursor) In(name string) bool {
	return len(c.Context) > 0 && c.Context[len(c.Context)-1].is(name)
}

// Protocol returns "http", "stream" or "mail" when the directive stands inside
// such a block, else "".
func (c *Cursor) Protocol() string {
	if len(c.Context) > 0 {
		for _, name := range []string{"http", "stream", "mail"} {
			if c.Context[0].is(name) {
				return name
			}
		}
	}
	return ""
}

// Path names the blocks around the directive: "http/upstream app".
func (c *Cursor) Path() string {
	parts := make([]string, len(c.Context))
	for i, d := range c.Context {
		parts[i] = strings.Join(append([]string{d.Name()}, d.Args()...), " ")
	}
	return strings.Join(parts, "/")
}

// Walk calls visit for every directive in the order nginx reads them. The
// content of an included file follows its include directive, once for each
// place it is included at. When visit returns false, what the directive holds
// or includes is passed over.
func (t *Tree) Walk(visit func(c *Cursor) bool) {
	var c Cursor
	var walk func(f *File, from, to int32)
	walk = func(f *File, from, to int32) {
		for i := from; i < to; i = f.nodes[i].next {
			d := Directive{f, i}
			c.Directive = d
			if !visit(&c) {
				continue
			}
			if d.IsBlock() {
				c.Context = append(c.Context, d)
				walk(f, i+1, f.nodes[i].next)
				c.Context = c.Context[:len(c.Context)-1]
				continue
			}
			if d.Len() != 2 || !d.is("include") {
				continue
			}
			c.Via = append(c.Via, d)
			for _, inc := range t.includes[d] {
				walk(inc, 0, int32(len(inc.nodes)))
			}
			c.Via = c.Via[:len(c.Via)-1]
		}
	}
	walk(t.main, 0, int32(len(t.main.nodes)))
}

func includesOf(f *File) []Directive {
	var out []Directive
	for d := range f.All() {
		if !d.IsBlock() && d.is("include") {
			out = append(out, d)
		}
	}
	return out
}

// join adds an element to a directory name without cleaning it, because path
// elements before .. may be links.
func join(dir, base string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir + base
	}
	return dir + "/" + base
}

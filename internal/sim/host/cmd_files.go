package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (p *Proc) tree() *tree { return p.Host.tree }

// say prints "PROGRAM: what NAME: why".
func (p *Proc) say(what, name string, err error) int {
	return p.failf(1, "%s%s: %s", what, name, errText(err))
}

// input is standard input that ends when the process does.
func (p *Proc) input(ctx context.Context) (io.Reader, func()) {
	f, ok := p.Stdin.(*os.File)
	if !ok {
		return p.Stdin, func() {}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) }) // pipes can do this
	return f, func() {
		if !stop() {
			_ = f.SetReadDeadline(time.Time{})
		}
	}
}

// inputs calls do for each named file, or for standard input.
func (p *Proc) inputs(ctx context.Context, names []string, do func(name string, data []byte)) int {
	if len(names) == 0 {
		names = []string{"-"}
	}
	status := 0
	for _, name := range names {
		var data []byte
		var err error
		if name == "-" {
			in, done := p.input(ctx)
			data, err = io.ReadAll(in)
			done()
		} else {
			data, err = p.tree().readFile(p.p.cred, p.abs(name))
		}
		if err != nil {
			status = p.say("", name, err)
			continue
		}
		do(name, data)
	}
	return status
}

func cmdCat(ctx context.Context, p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) == 0 { // as it comes, so that a pipe flows
		in, done := p.input(ctx)
		defer done()
		if _, err := io.Copy(p.Stdout, in); err != nil {
			return 1
		}
		return 0
	}
	return p.inputs(ctx, f.rest, func(_ string, data []byte) { _, _ = p.Stdout.Write(data) })
}

func cmdLs(_ context.Context, p *Proc) int {
	f, ok := p.flags("-l", "-d", "-1", "-A", "-b")
	if !ok {
		return statusUnknownFlag
	}
	names := f.rest
	if len(names) == 0 {
		names = []string{"."}
	}
	slices.Sort(names)
	status := 0
	var plain []*info
	var dirs []string
	for _, name := range names {
		i, err := p.tree().stat(p.p.cred, p.abs(name), false)
		if err == nil && !f.is["-l"] && i.mode&fs.ModeSymlink != 0 && !f.is["-d"] {
			if t, terr := p.tree().stat(p.p.cred, p.abs(name), true); terr == nil && t.IsDir() {
				i = t
			}
		}
		if err != nil {
			p.failf(2, "cannot access %s: %s", name, errText(err))
			status = 2
			continue
		}
		if i.IsDir() && !f.is["-d"] {
			dirs = append(dirs, name)
			continue
		}
		i.name = name
		if !p.linkTarget(i, p.abs(name), name) {
			status = max(status, 1)
		}
		plain = append(plain, i)
	}
	p.list(plain, f.is["-l"], f.is["-b"])
	for n, dir := range dirs {
		entries, err := p.tree().readDir(p.p.cred, p.abs(dir))
		if err != nil {
			p.failf(2, "cannot open directory %s: %s", dir, errText(err))
			status = 2
			continue
		}
		if len(plain) > 0 || n > 0 {
			fmt.Fprintln(p.Stdout)
		}
		if len(names) > 1 {
			fmt.Fprintf(p.Stdout, "%s:\n", dir)
		}
		var kids []*info
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && !f.is["-A"] {
				continue
			}
			i, err := p.tree().stat(p.p.cred, p.abs(path.Join(dir, e.Name())), false)
			if err != nil {
				continue // gone meanwhile
			}
			if !p.linkTarget(i, p.abs(path.Join(dir, e.Name())), path.Join(dir, e.Name())) {
				status = max(status, 1)
			}
			kids = append(kids, i)
		}
		if f.is["-l"] {
			fmt.Fprintln(p.Stdout, "total 0")
		}
		p.list(kids, f.is["-l"], f.is["-b"])
	}
	return status
}

// linkTarget drops the target of a link that may not be read.
func (p *Proc) linkTarget(i *info, full, name string) bool {
	if i.mode&fs.ModeSymlink == 0 {
		return true
	}
	if _, err := p.tree().readlink(p.p.cred, full); err != nil {
		p.failf(1, "cannot read symbolic link %s: %s", name, errText(err))
		i.link = ""
		return false
	}
	return true
}

func (p *Proc) list(files []*info, long, escape bool) {
	name := func(s string) string {
		if escape {
			return escapeName(s)
		}
		return s
	}
	var out bytes.Buffer
	defer func() { _, _ = p.Stdout.Write(out.Bytes()) }()
	if !long {
		for _, i := range files {
			fmt.Fprintln(&out, name(i.name))
		}
		return
	}
	var wn, wu, wg, ws int
	type row struct{ n, u, g, s string }
	rows := make([]row, len(files))
	users, groups := p.Host.userNames(), map[int]string{}
	for k, i := range files {
		u := users[i.uid]
		if u == "" {
			u = strconv.Itoa(i.uid)
		}
		if groups[i.gid] == "" {
			groups[i.gid] = p.Host.groupName(i.gid)
		}
		rows[k] = row{strconv.Itoa(i.nlink), u, groups[i.gid], strconv.FormatInt(i.size, 10)}
		wn, wu, wg, ws = max(wn, len(rows[k].n)), max(wu, len(rows[k].u)), max(wg, len(rows[k].g)), max(ws, len(rows[k].s))
	}
	for k, i := range files {
		target := ""
		if i.link != "" {
			target = " -> " + name(i.link)
		}
		fmt.Fprintf(&out, "%s %*s %-*s %-*s %*s %s %s%s\n", modeString(i.mode), wn, rows[k].n, wu, rows[k].u, wg, rows[k].g, ws, rows[k].s,
			i.mtime.Format("Jan _2 15:04"), name(i.name), target)
	}
}

// escapeName writes a name as ls -b does in the C locale.
func escapeName(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// modeString is the mode as ls shows it.
func modeString(m fs.FileMode) string {
	kind := byte('-')
	switch {
	case m.IsDir():
		kind = 'd'
	case m&fs.ModeSymlink != 0:
		kind = 'l'
	case m&fs.ModeCharDevice != 0:
		kind = 'c'
	case m&fs.ModeSocket != 0:
		kind = 's'
	}
	b := []byte(m.Perm().String())
	b[0] = kind
	if m&fs.ModeSticky != 0 {
		b[9] = 't'
	}
	return string(b)
}

func cmdReadlink(_ context.Context, p *Proc) int {
	f, ok := p.flags("-f")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 1 {
		return p.refusef("needs one file")
	}
	full := p.abs(f.rest[0])
	get := p.tree().readlink
	if f.is["-f"] {
		get = p.tree().realpath
	}
	target, err := get(p.p.cred, full)
	if err != nil {
		return 1
	}
	fmt.Fprintln(p.Stdout, target)
	return 0
}

func cmdStat(_ context.Context, p *Proc) int {
	f, ok := p.flags("-c=", "-f")
	if !ok {
		return statusUnknownFlag
	}
	format, has := f.val["-c"]
	if f.is["-f"] {
		return p.statFilesystem(format, f.rest)
	}
	if !has || len(f.rest) == 0 {
		return p.refusef("stat without -c FORMAT or without a file")
	}
	status := 0
	for _, name := range f.rest {
		i, err := p.tree().stat(p.p.cred, p.abs(name), false)
		if err != nil {
			status = p.failf(1, "cannot stat '%s': %s", name, errText(err))
			continue
		}
		line, err := p.statLine(format, i)
		if err != nil {
			return p.refusef("%s", err)
		}
		fmt.Fprintln(p.Stdout, line)
	}
	return status
}

// statFilesystem is stat -f on the host's one file system.
func (p *Proc) statFilesystem(format string, names []string) int {
	if format != "%S %b %a %c %n" || len(names) == 0 {
		return p.refusef("stat -f with this format or without a file")
	}
	status := 0
	for _, name := range names {
		if _, err := p.tree().stat(p.p.cred, p.abs(name), true); err != nil {
			status = p.failf(1, "cannot read file system information for '%s': %s", name, errText(err))
			continue
		}
		fmt.Fprintf(p.Stdout, "4096 %d %d %d %s\n", diskBlocks/4, diskBlocks/8, diskBlocks/16, name)
	}
	return status
}

func (p *Proc) statLine(format string, i *info) (string, error) {
	var b strings.Builder
	for k := 0; k < len(format); k++ {
		if format[k] != '%' || k+1 == len(format) {
			b.WriteByte(format[k])
			continue
		}
		k++
		switch format[k] {
		case 'a':
			fmt.Fprintf(&b, "%o", unixMode(i.mode))
		case 'u':
			fmt.Fprint(&b, i.uid)
		case 'g':
			fmt.Fprint(&b, i.gid)
		case 'U':
			b.WriteString(p.Host.userName(i.uid))
		case 'G':
			b.WriteString(p.Host.groupName(i.gid))
		case 's':
			fmt.Fprint(&b, i.size)
		case 'Y':
			fmt.Fprint(&b, i.mtime.Unix())
		case 'h':
			fmt.Fprint(&b, i.nlink)
		case 'F':
			b.WriteString(fileKind(i))
		default:
			return "", fmt.Errorf("format %%%c", format[k])
		}
	}
	return b.String(), nil
}

func unixMode(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	if m&fs.ModeSticky != 0 {
		n |= 0o1000
	}
	if m&fs.ModeSetgid != 0 {
		n |= 0o2000
	}
	if m&fs.ModeSetuid != 0 {
		n |= 0o4000
	}
	return n
}

func fromUnixMode(n uint32) fs.FileMode {
	m := fs.FileMode(n & 0o777)
	if n&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	if n&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if n&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	return m
}

func fileKind(i *info) string {
	switch m := i.mode; {
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeCharDevice != 0:
		return "character special file"
	case m&fs.ModeSocket != 0:
		return "socket"
	case i.size == 0:
		return "regular empty file"
	}
	return "regular file"
}

func cmdMv(_ context.Context, p *Proc) int {
	f, ok := p.flags("-f", "-T", "-n")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 2 {
		return p.refusef("needs two operands")
	}
	to := p.abs(f.rest[1])
	if i, err := p.tree().stat(p.p.cred, to, true); err == nil && i.IsDir() && !f.is["-T"] {
		to = path.Join(to, path.Base(f.rest[0]))
	}
	if _, err := p.tree().stat(p.p.cred, to, false); err == nil && f.is["-n"] {
		return 0
	}
	if err := p.tree().rename(p.p.cred, p.abs(f.rest[0]), to, true); err != nil {
		return p.failf(1, "cannot move '%s' to '%s': %s", f.rest[0], f.rest[1], errText(err))
	}
	return 0
}

// cmdLn makes hard links only.
func cmdLn(_ context.Context, p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 2 {
		return p.refusef("needs two operands")
	}
	if err := p.tree().hardlink(p.p.cred, p.abs(f.rest[0]), p.abs(f.rest[1])); err != nil {
		return p.failf(1, "failed to create hard link '%s': %s", f.rest[1], errText(err))
	}
	return 0
}

func cmdRm(_ context.Context, p *Proc) int {
	f, ok := p.flags("-f", "-r")
	if !ok {
		return statusUnknownFlag
	}
	status := 0
	for _, name := range f.rest {
		remove := func(c cred, name string) error { return p.tree().remove(c, name, false) }
		if f.is["-r"] {
			remove = p.tree().removeAll
		}
		err := remove(p.p.cred, p.abs(name))
		if err != nil && !(f.is["-f"] && errors.Is(err, fs.ErrNotExist)) {
			status = p.failf(1, "cannot remove '%s': %s", name, errText(err))
		}
	}
	return status
}

func cmdMkdir(_ context.Context, p *Proc) int {
	f, ok := p.flags("-p", "-m=")
	if !ok {
		return statusUnknownFlag
	}
	perm := 0o777 &^ p.umask
	if m, has := f.val["-m"]; has {
		n, err := strconv.ParseUint(m, 8, 12)
		if err != nil {
			return p.refusef("mode %s is not octal", m)
		}
		perm = fromUnixMode(uint32(n))
	}
	status := 0
	for _, name := range f.rest {
		full := p.abs(name)
		if f.is["-p"] {
			var err error
			parts := strings.Split(strings.Trim(full, "/"), "/")
			for k := range parts {
				d, mode := "/"+strings.Join(parts[:k+1], "/"), 0o777&^p.umask
				if k == len(parts)-1 {
					mode = perm
				}
				if err = p.tree().mkdir(p.p.cred, d, mode); errors.Is(err, fs.ErrExist) {
					err = nil
					if i, serr := p.tree().stat(p.p.cred, d, true); serr == nil && !i.IsDir() {
						err = fs.ErrExist
					}
				}
				if err != nil {
					break
				}
			}
			if err != nil {
				status = p.failf(1, "cannot create directory '%s': %s", name, errText(err))
			}
			continue
		}
		if err := p.tree().mkdir(p.p.cred, full, perm); err != nil {
			status = p.failf(1, "cannot create directory '%s': %s", name, errText(err))
		}
	}
	return status
}

func cmdRmdir(_ context.Context, p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	status := 0
	for _, name := range f.rest {
		if err := p.tree().remove(p.p.cred, p.abs(name), true); err != nil {
			status = p.failf(1, "failed to remove '%s': %s", name, errText(err))
		}
	}
	return status
}

// parseMode understands octal modes and simple symbolic ones ("u+x,go-w").
func parseMode(s string, old fs.FileMode) (fs.FileMode, bool) {
	if n, err := strconv.ParseUint(s, 8, 12); err == nil {
		return fromUnixMode(uint32(n)), true
	}
	m := old
	for part := range strings.SplitSeq(s, ",") {
		at := strings.IndexAny(part, "+-=")
		if at < 0 {
			return 0, false
		}
		var bits, mask fs.FileMode
		for _, c := range part[at+1:] {
			n := strings.IndexRune("xwr", c)
			if n < 0 {
				return 0, false
			}
			bits |= 1 << n
		}
		who := part[:at]
		if who == "" || who == "a" {
			who = "ugo"
		}
		var all fs.FileMode
		for _, c := range who {
			n := strings.IndexRune("ogu", c)
			if n < 0 {
				return 0, false
			}
			all |= bits << (3 * n)
			mask |= 7 << (3 * n)
		}
		switch part[at] {
		case '+':
			m |= all
		case '-':
			m &^= all
		case '=':
			m = m&^mask | all
		}
	}
	return m, true
}

func cmdChmod(_ context.Context, p *Proc) int {
	f, ok := p.flags("--reference=")
	if !ok {
		return statusUnknownFlag
	}
	ref, byRef := f.val["--reference"]
	if !byRef && len(f.rest) < 2 || len(f.rest) < 1 {
		return p.failf(1, "missing operand")
	}
	mode, files := "", f.rest
	if !byRef {
		mode, files = f.rest[0], f.rest[1:]
	}
	status := 0
	for _, name := range files {
		from := name
		if byRef {
			from = ref
		}
		i, err := p.tree().stat(p.p.cred, p.abs(from), true)
		if err == nil {
			perm := i.mode
			if !byRef {
				if perm, ok = parseMode(mode, i.mode); !ok {
					return p.refusef("mode %s", mode)
				}
			}
			err = p.tree().chmod(p.p.cred, p.abs(name), perm)
		}
		if err != nil {
			status = p.failf(1, "cannot access '%s': %s", name, errText(err))
		}
	}
	return status
}

func cmdChown(_ context.Context, p *Proc) int {
	f, ok := p.flags("--reference=", "-R")
	if !ok {
		return statusUnknownFlag
	}
	uid, gid, files := -1, -1, f.rest
	if ref, byRef := f.val["--reference"]; byRef {
		i, err := p.tree().stat(p.p.cred, p.abs(ref), true)
		if err != nil {
			return p.failf(1, "failed to get attributes of '%s': %s", ref, errText(err))
		}
		uid, gid = i.uid, i.gid
	} else {
		if len(f.rest) < 2 {
			return p.failf(1, "missing operand")
		}
		files = f.rest[1:]
		if uid, gid, ok = p.owner(f.rest[0]); !ok {
			return p.failf(1, "invalid user: '%s'", f.rest[0])
		}
	}
	status := 0
	var change func(name string)
	change = func(name string) {
		if err := p.tree().chown(p.p.cred, name, uid, gid); err != nil {
			status = p.failf(1, "changing ownership of '%s': %s", name, errText(err))
			return
		}
		if i, err := p.tree().stat(p.p.cred, name, false); !f.is["-R"] || err != nil || !i.IsDir() {
			return
		}
		entries, err := p.tree().readDir(p.p.cred, name)
		if err != nil {
			status = p.failf(1, "cannot read directory '%s': %s", name, errText(err))
		}
		for _, e := range entries {
			change(path.Join(name, e.Name()))
		}
	}
	for _, name := range files {
		change(p.abs(name))
	}
	return status
}

// owner resolves USER[:GROUP], names or numbers.
func (p *Proc) owner(s string) (uid, gid int, ok bool) {
	user, group, has := strings.Cut(s, ":")
	uid, gid = -1, -1
	if user != "" {
		if n, isNumber := number(user); isNumber {
			uid = n
		} else if c, known := p.Host.credOf(user); known {
			uid = c.uid
		} else {
			return 0, 0, false
		}
	}
	if has && group != "" {
		if n, isNumber := number(group); isNumber {
			gid = n
		} else if n, known := p.Host.groups()[group]; known {
			gid = n
		} else {
			return 0, 0, false
		}
	}
	return uid, gid, true
}

func cmdCp(_ context.Context, p *Proc) int {
	f, ok := p.flags("-p", "-a", "-r", "-R", "-f")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) != 2 {
		return p.refusef("needs two operands")
	}
	from, to := p.abs(f.rest[0]), p.abs(f.rest[1])
	if i, err := p.tree().stat(p.p.cred, to, true); err == nil && i.IsDir() && !strings.HasSuffix(f.rest[0], "/.") {
		to = path.Join(to, path.Base(from))
	}
	i, err := p.tree().stat(p.p.cred, from, !f.is["-a"])
	if err != nil {
		return p.failf(1, "cannot stat '%s': %s", f.rest[0], errText(err))
	}
	switch {
	case i.IsDir() && !f.is["-r"] && !f.is["-R"] && !f.is["-a"]:
		return p.failf(1, "-r not specified; omitting directory '%s'", f.rest[0])
	case i.IsDir():
		err = p.copyTree(from, to, f.is["-p"] || f.is["-a"])
	case i.mode&fs.ModeSymlink != 0:
		err = p.tree().symlink(p.p.cred, i.link, to)
	default:
		var data []byte
		if data, err = p.tree().readFile(p.p.cred, from); err == nil {
			err = p.tree().writeFile(p.p.cred, to, data, oCreate|oTrunc, i.mode.Perm()&^p.umask)
		}
		if err == nil && (f.is["-p"] || f.is["-a"]) {
			_ = p.tree().chown(p.p.cred, to, i.uid, i.gid) // only root may; cp says nothing either
			err = p.tree().chmod(p.p.cred, to, i.mode)
		}
	}
	if err != nil {
		return p.failf(1, "cannot create '%s': %s", f.rest[1], errText(err))
	}
	return 0
}

func cmdTouch(_ context.Context, p *Proc) int {
	f, ok := p.flags("-d=")
	if !ok {
		return statusUnknownFlag
	}
	when := time.Now()
	date, has := f.val["-d"]
	if has {
		seconds, err := strconv.ParseInt(strings.TrimPrefix(date, "@"), 10, 64)
		if err != nil || !strings.HasPrefix(date, "@") {
			return p.refusef("touch -d %s: only @SECONDS", date)
		}
		when = time.Unix(seconds, 0)
	}
	status := 0
	for _, name := range f.rest {
		if i, err := p.tree().stat(p.p.cred, p.abs(name), true); err == nil && i.IsDir() {
			if err := p.tree().setTime(p.p.cred, p.abs(name), when); err != nil {
				status = p.failf(1, "setting times of '%s': %s", name, errText(err))
			}
			continue
		}
		h, err := p.tree().openWrite(p.p.cred, p.abs(name), oCreate, 0o666&^p.umask)
		if err != nil {
			status = p.failf(1, "cannot touch '%s': %s", name, errText(err))
			continue
		}
		_, _ = h.WriteAt(nil, 0) // sets the time
		if !has {
			continue
		}
		if err := p.tree().setTime(p.p.cred, p.abs(name), when); err != nil {
			status = p.failf(1, "setting times of '%s': %s", name, errText(err))
		}
	}
	return status
}

func cmdSync(_ context.Context, p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	for _, name := range f.rest {
		if _, err := p.tree().stat(p.p.cred, p.abs(name), true); err != nil {
			return p.failf(1, "error opening '%s': %s", name, errText(err))
		}
	}
	return 0
}

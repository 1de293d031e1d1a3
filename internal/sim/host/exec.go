package host

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// elf begins the file of a simulated program; the program's name follows. A
// program exists where its file does: removing a package removes the command.
const elf = "\x7fELF simulated "

// programs are the commands of every host, and those of the Spec.
func programs(more map[string]Command) map[string]Command {
	all := map[string]Command{
		"cat": cmdCat, "ls": cmdLs, "readlink": cmdReadlink, "stat": cmdStat, "mv": cmdMv, "ln": cmdLn, "rm": cmdRm,
		"mkdir": cmdMkdir, "rmdir": cmdRmdir, "chmod": cmdChmod, "chown": cmdChown, "cp": cmdCp,
		"touch": cmdTouch, "sync": cmdSync,
		"grubby": cmdGrubby, "timeout": cmdTimeout, "sed": cmdSed, "ip": cmdIP, "iptables-save": cmdIptablesSave, "ip6tables-save": cmdIptablesSave,
		"sha256sum": cmdSha256sum, "tr": cmdTr, "cut": cmdCut, "head": cmdHead, "wc": cmdWc, "grep": cmdGrep,
		"sort": cmdSort, "uniq": cmdUniq, "echo": cmdEcho,
		"sleep": cmdSleep, "date": cmdDate, "id": cmdID, "hostname": cmdHostname, "uname": cmdUname,
		"env": cmdEnv, "true": cmdTrue, "false": cmdFalse, "sh": cmdSh, "bash": cmdSh, "kill": cmdKill,
		"xargs": cmdXargs, "chroot": cmdChroot,
		"setsid": cmdSetsid, "nohup": cmdNohup, "su": cmdSu, "runuser": cmdRunuser,
		"systemd-run": cmdSystemdRun, "systemctl": cmdSystemctl, "shutdown": cmdShutdown,
		"java": cmdJava, "curl": cmdCurl, "rpm": cmdRpm, "rpmdb": cmdRpmdb, "yum": cmdYum,
		"find": cmdFind, "basename": cmdBasename, "dirname": cmdDirname,
		"docker": cmdDocker, "docker-compose": cmdCompose, "dockerd": cmdDockerd, "docker-init": cmdDockerInit,
		"supervisord": cmdSupervisord, "supervisorctl": cmdSupervisorctl,
		"tar": cmdTar, "tail": cmdTail, "cmp": cmdCmp,
	}
	maps.Copy(all, more)
	return all
}

// install writes what every host has on its disk.
func (h *Host) install() {
	for name := range h.commands {
		dir := "/usr/bin"
		switch {
		case hasPath(name):
			h.tree.mkdirAll(path.Dir(name), 0o755)
			_ = h.tree.writeFile(cred{}, name, []byte(elf+name+"\n"), oCreate|oTrunc, 0o755) // as root on our tree
			continue
		case h.spec.Commands[name] != nil, name == "shutdown":
			dir = "/usr/sbin"
		case slices.Contains([]string{"docker", "dockerd", "docker-init"}, name):
			continue // come with their package
		case name == "supervisord" || name == "supervisorctl":
			if _, has := h.spec.Files[supervisorConf]; !has {
				continue
			}
		case name == "docker-compose":
			dir = "/usr/local/bin"
		}
		h.putProgram(dir + "/" + name)
	}
	// What nobody runs by name here, but /proc/PID/exe leads to.
	for _, file := range []string{"/usr/lib/systemd/systemd", "/usr/sbin/sshd", "/usr/sbin/crond"} {
		h.putProgram(file)
	}
	root := cred{}
	for link, target := range map[string]string{"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/var/run": "/run"} {
		h.tree.mkdirAll(path.Dir(link), 0o755)
		_ = h.tree.symlink(root, target, link) // the tree is new
	}
	passwd, group := "root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\ndocker:x:990:\n"
	h.tree.mkdirAll("/root", 0o550)
	users := h.spec.Users
	for _, u := range users {
		home := "/home/" + u.Name
		if u.Name == "root" {
			home = "/root"
		} else {
			passwd += fmt.Sprintf("%s:x:%d:%d::%s:/bin/bash\n", u.Name, u.UID, u.UID, home)
			group += fmt.Sprintf("%s:x:%d:\n", u.Name, u.UID)
		}
		if len(u.AuthorizedKeys) > 0 {
			keys := strings.Join(u.AuthorizedKeys, "\n") + "\n"
			_ = h.WriteFile(home+"/.ssh/authorized_keys", []byte(keys), 0o600)
		}
		h.tree.mkdirAll(home, 0o700)
		for _, f := range []string{home, home + "/.ssh", home + "/.ssh/authorized_keys"} {
			_ = h.tree.chown(root, f, u.UID, u.UID) // some may be missing
		}
	}
	for name, text := range map[string]string{
		"/etc/passwd":         passwd,
		"/etc/group":          group,
		"/etc/hostname":       h.spec.Hostname + "\n",
		"/etc/machine-id":     strings.ReplaceAll(newUUID(), "-", "") + "\n",
		"/etc/redhat-release": strings.TrimSuffix(h.spec.Release, "\n") + "\n",
		"/etc/os-release":     osRelease(h.spec.Release),
		"/etc/fstab":          "/dev/vda1 / ext4 defaults 1 1\n",
	} {
		_ = h.WriteFile(name, []byte(text), 0o644) // the tree is new
	}
	for name, text := range settings {
		_ = h.WriteFile(name, []byte(text), 0o644) // the tree is new
	}
	_ = h.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost localhost.localdomain\n"+h.spec.Addr+" "+h.spec.Hostname+"\n"), 0o644)
	_ = h.tree.chmod(root, "/etc/sudoers", 0o440)
	_ = h.tree.symlink(root, "../usr/share/zoneinfo/Asia/Shanghai", "/etc/localtime")
	_ = h.tree.symlink(root, "redhat-release", "/etc/centos-release")
	h.putKernel(h.spec.Kernel)
	for _, dir := range []string{"/var/log", "/var/lib/rpm", "/var/lib/yum", "/srv", "/opt", "/etc/yum.repos.d", "/tmp", unitDir, unitEtc + "/multi-user.target.wants"} {
		h.tree.mkdirAll(dir, 0o755)
	}
	for _, u := range []Unit{
		{Name: "sshd", Description: "OpenSSH server daemon", Enabled: true, Start: "/usr/sbin/sshd -D"},
		{Name: "crond", Description: "Command Scheduler", Enabled: true, Start: "/usr/sbin/crond -n"},
	} {
		h.placeUnit(u)
	}
}

// osRelease is /etc/os-release for a line of redhat-release.
func osRelease(release string) string {
	version := "7"
	for f := range strings.FieldsSeq(release) {
		if f[0] >= '0' && f[0] <= '9' {
			version, _, _ = strings.Cut(f, ".")
		}
	}
	return fmt.Sprintf("NAME=\"CentOS Linux\"\nVERSION=\"%[1]s (Core)\"\nID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"%[1]s\"\nPRETTY_NAME=\"CentOS Linux %[1]s (Core)\"\n", version)
}

func (h *Host) putProgram(file string) {
	h.tree.mkdirAll(path.Dir(file), 0o755)
	_ = h.tree.writeFile(cred{}, file, []byte(elf+path.Base(file)+"\n"), oCreate|oTrunc, 0o755) // as root on our tree
}

func (h *Host) putKernel(release string) {
	for _, name := range []string{"/boot/vmlinuz-" + release, "/boot/initramfs-" + release + ".img"} {
		_ = h.WriteFile(name, []byte("simulated "+release+"\n"), 0o600)
	}
}

// lookPath finds a program as the shell does.
func (h *Host) lookPath(c cred, search, dir, name string) (string, error) {
	if strings.Contains(name, "/") {
		full := absPath(dir, name)
		i, err := h.tree.stat(c, full, true)
		if err != nil {
			return "", err
		}
		if i.IsDir() {
			return "", errIsDir
		}
		return full, h.tree.access(c, full, 1)
	}
	for d := range strings.SplitSeq(search, ":") {
		full := absPath(dir, path.Join(d, name))
		if i, err := h.tree.stat(c, full, true); err == nil && !i.IsDir() && h.tree.access(c, full, 1) == nil {
			return full, nil
		}
	}
	return "", fs.ErrNotExist
}

func (p *Proc) path() string {
	if v := p.Env["PATH"]; v != "" {
		return v
	}
	return defaultPath
}

// execute runs a program in the process of p.
func (h *Host) execute(ctx context.Context, p *Proc, args []string) int {
	name := args[0]
	file, err := h.lookPath(p.p.cred, p.path(), p.Dir, name)
	if err != nil {
		why, status := errText(err), 126
		if !strings.Contains(name, "/") {
			why = "command not found"
			if h.commands[name] == nil {
				h.refuse(strings.Join(args, " "), "no such program in the simulator")
			}
		}
		if strings.HasPrefix(why, "No such") || why == "command not found" {
			status = statusUnknownCommand
		}
		fmt.Fprintf(p.Stderr, "sh: %s: %s\n", name, why)
		return status
	}
	data, err := h.tree.readFile(cred{}, file)
	if err != nil {
		fmt.Fprintf(p.Stderr, "sh: %s: %s\n", name, errText(err))
		return 126
	}
	q := *p
	q.Args = args
	if program, ok := strings.CutPrefix(string(data), elf); ok {
		program = strings.TrimSpace(program)
		cmd := h.command(program)
		if cmd == nil {
			h.refuse(strings.Join(args, " "), "no such program in the simulator")
			fmt.Fprintf(p.Stderr, "sh: %s: not simulated\n", name)
			return statusUnknownCommand
		}
		p.p.become(args, file, p.Env)
		return cmd(ctx, &q)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	if strings.HasPrefix(first, "#!") {
		interpreter := strings.Fields(strings.TrimPrefix(first, "#!"))
		if len(interpreter) == 0 || !slices.Contains([]string{"/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"}, interpreter[0]) {
			h.refuse(strings.Join(args, " "), "interpreter "+first+" is not simulated")
			fmt.Fprintf(p.Stderr, "sh: %s: %s: not simulated\n", name, first)
			return statusUnknownCommand
		}
		if len(interpreter) > 1 {
			q.Args = append(slices.Clone(interpreter[:2]), append([]string{file}, args[1:]...)...)
		} else {
			q.Args = append([]string{interpreter[0], file}, args[1:]...)
		}
	} else {
		q.Args = append([]string{"sh", file}, args[1:]...)
	}
	p.p.become(q.Args, "/usr/bin/bash", p.Env)
	return cmdSh(ctx, &q)
}

// failf prints a message as the program and returns status.
func (p *Proc) failf(status int, format string, a ...any) int {
	fmt.Fprintf(p.Stderr, path.Base(p.Args[0])+": "+format+"\n", a...)
	return status
}

// refusef is failf for what real programs know and this simulator does not.
func (p *Proc) refusef(format string, a ...any) int {
	why := fmt.Sprintf(format, a...)
	p.Host.refuse(strings.Join(p.Args, " "), why)
	return p.failf(statusUnknownFlag, "%s (not simulated)", why)
}

// abs makes an argument an absolute path.
func (p *Proc) abs(name string) string { return absPath(p.Dir, name) }

// flags are the parsed options of a command line.
type flags struct {
	is   map[string]bool
	val  map[string]string
	rest []string
}

// has tells whether the option that takes a value was given.
func (f flags) has(name string) bool { _, ok := f.val[name]; return ok }

// flags parses the arguments. known lists options as "-l", "--all", with a
// trailing "=" when a value follows; "+" first: options end at the first
// operand. A false result has been reported and recorded.
func (p *Proc) flags(known ...string) (flags, bool) {
	f := flags{is: map[string]bool{}, val: map[string]string{}}
	stopAtOperand := len(known) > 0 && known[0] == "+"
	args := p.Args[1:]
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			f.rest = append(f.rest, args...)
			return f, true
		case !strings.HasPrefix(a, "-") || a == "-":
			f.rest = append(f.rest, a)
			if stopAtOperand {
				f.rest = append(f.rest, args...)
				return f, true
			}
		case strings.HasPrefix(a, "--"):
			name, value, has := strings.Cut(a, "=")
			switch {
			case slices.Contains(known, name) && !has:
				f.is[name] = true
			case slices.Contains(known, name+"="):
				if !has {
					if len(args) == 0 {
						p.failf(1, "option '%s' requires an argument", name)
						return f, false
					}
					value, args = args[0], args[1:]
				}
				f.val[name] = value
			default:
				p.refusef("unrecognized option '%s'", a)
				return f, false
			}
		default:
			letters := a[1:]
			for len(letters) > 0 {
				name := "-" + letters[:1]
				letters = letters[1:]
				switch {
				case slices.Contains(known, name):
					f.is[name] = true
				case slices.Contains(known, name+"="):
					if letters == "" {
						if len(args) == 0 {
							p.failf(1, "option requires an argument -- '%s'", name[1:])
							return f, false
						}
						letters, args = args[0], args[1:]
					}
					f.val[name] = letters
					letters = ""
				default:
					p.refusef("invalid option -- '%s'", name[1:])
					return f, false
				}
			}
		}
	}
	return f, true
}

// number parses a non-negative option value.
func number(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0
}

// account is a line of /etc/passwd.
type account struct {
	name, home string
	cred       cred
}

func (h *Host) accounts() []account {
	data, err := h.tree.readFile(cred{}, "/etc/passwd")
	if err != nil {
		return nil
	}
	var out []account
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 6 {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil {
			out = append(out, account{f[0], f[5], cred{uid, gid}})
		}
	}
	return out
}

func (h *Host) account(name string) (account, bool) {
	for _, a := range h.accounts() {
		if a.name == name {
			return a, true
		}
	}
	return account{}, false
}

func (h *Host) credOf(name string) (cred, bool) {
	a, ok := h.account(name)
	return a.cred, ok
}

func (h *Host) userName(uid int) string {
	if name := h.userNames()[uid]; name != "" {
		return name
	}
	return strconv.Itoa(uid)
}

// userNames are the names by user ID; of several, the first.
func (h *Host) userNames() map[int]string {
	names := map[int]string{}
	for _, a := range slices.Backward(h.accounts()) {
		names[a.cred.uid] = a.name
	}
	return names
}

// groups maps the names of /etc/group to their ids.
func (h *Host) groups() map[string]int {
	out := map[string]int{}
	data, err := h.tree.readFile(cred{}, "/etc/group")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(line, ":"); len(f) >= 3 {
			if gid, err := strconv.Atoi(f[2]); err == nil {
				out[f[0]] = gid
			}
		}
	}
	return out
}

func (h *Host) groupName(gid int) string {
	for name, id := range h.groups() {
		if id == gid {
			return name
		}
	}
	return strconv.Itoa(gid)
}

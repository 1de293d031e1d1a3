package host

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// programSettings are what a file of supervisord's says of one process.
type programSettings struct {
	group, name string
	args        []string
	dir, user   string
	cred        cred
	env         map[string]string
	autostart   bool
	restart     string // "true", "false" or "unexpected"
	exits       []int  // expected ones
	startsecs   time.Duration
	retries     int
}

// iniSection is a section of a file, with its settings in order.
type iniSection struct {
	kind, name string // of [program:x]: program and x
	keys       map[string]string
	source     string
}

// readSupervisorConf reads what supervisord reads: its file and those that the
// section include names. url is the socket's address.
func (h *Host) readSupervisorConf() (url string, all []programSettings, err error) {
	sections, err := h.readINI(supervisorConf)
	if err != nil {
		return "", nil, err
	}
	for _, s := range slices.Clone(sections) {
		if s.kind != "include" {
			continue
		}
		for pattern := range strings.FieldsSeq(s.keys["files"]) {
			pattern = absPath(path.Dir(supervisorConf), pattern)
			entries, err := h.tree.readDir(cred{}, path.Dir(pattern))
			if err != nil {
				continue // there are no such files
			}
			for _, e := range entries {
				if ok, err := path.Match(path.Base(pattern), e.Name()); err != nil {
					return "", nil, fmt.Errorf("include %s: %w", pattern, err)
				} else if !ok {
					continue
				}
				more, err := h.readINI(path.Join(path.Dir(pattern), e.Name()))
				if err != nil {
					return "", nil, err
				}
				sections = append(sections, more...)
			}
		}
	}
	group := map[string]string{}
	for _, s := range sections {
		switch s.kind {
		case "supervisorctl":
			url = s.keys["serverurl"]
		case "group":
			for p := range strings.SplitSeq(s.keys["programs"], ",") {
				group[strings.TrimSpace(p)] = s.name
			}
		}
	}
	if url == "" {
		return "", nil, fmt.Errorf("no serverurl in section supervisorctl of %s (the simulated one needs it)", supervisorConf)
	}
	for _, s := range sections {
		if s.kind == "program" {
			list, err := h.supervised(s, group[s.name])
			if err != nil {
				return "", nil, err
			}
			all = append(all, list...)
		}
	}
	// The order of status. That of starts follows priority, which is only taken
	// where everything is started at once anyway.
	slices.SortStableFunc(all, func(a, b programSettings) int {
		return cmp.Or(strings.Compare(a.group, b.group), strings.Compare(a.name, b.name))
	})
	return url, all, nil
}

// iniKinds are the sections that are known, with the settings that are; nil =
// all, and they mean nothing here.
var iniKinds = map[string][]string{
	"supervisord": nil, "unix_http_server": nil, "rpcinterface": nil, "supervisorctl": nil, "include": {"files"}, "group": {"programs", "priority"},
	"program": {
		"command", "directory", "user", "environment", "autostart", "autorestart", "exitcodes", "startsecs", "startretries", "stopsignal", "stopwaitsecs",
		"priority", "numprocs", "process_name", "redirect_stderr", "stdout_logfile", "stderr_logfile", "stopasgroup", "killasgroup",
	},
}

// readINI reads one file; a setting that this simulator does not know is an
// error, and noted.
func (h *Host) readINI(name string) ([]iniSection, error) {
	data, err := h.tree.readFile(cred{}, name)
	if err != nil {
		return nil, fmt.Errorf("could not find config file %s", name)
	}
	var out []iniSection
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " ;")
		if line = strings.TrimSpace(line); line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if head, ok := strings.CutPrefix(line, "["); ok {
			kind, sub, _ := strings.Cut(strings.TrimSuffix(head, "]"), ":")
			if _, known := iniKinds[kind]; !known {
				h.refuse(name, "section "+line)
				return nil, fmt.Errorf("section %s of %s is not simulated", line, name)
			}
			out = append(out, iniSection{kind: kind, name: sub, keys: map[string]string{}, source: name})
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if k = strings.TrimSpace(k); !ok || len(out) == 0 {
			return nil, fmt.Errorf("file %s contains parsing errors: %s", name, line)
		}
		s := &out[len(out)-1]
		if known := iniKinds[s.kind]; known != nil && !slices.Contains(known, k) {
			h.refuse(name, "setting "+line)
			return nil, fmt.Errorf("setting %s of %s is not simulated", k, name)
		}
		s.keys[k] = strings.TrimSpace(v)
	}
	return out, nil
}

// supervised makes the processes of one section program.
func (h *Host) supervised(s iniSection, group string) ([]programSettings, error) {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("[program:%s] of %s: %s", s.name, s.source, fmt.Sprintf(format, a...))
	}
	var errs []error
	count := func(key string, usual int) int {
		v := s.keys[key]
		if v == "" {
			return usual
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			errs = append(errs, bad("%s = %q is no number", key, v))
		}
		return n
	}
	p := programSettings{
		group: cmp.Or(group, s.name), name: s.name, dir: cmp.Or(s.keys["directory"], "/"), user: cmp.Or(s.keys["user"], "root"), env: map[string]string{},
		autostart: s.keys["autostart"] != "false", restart: cmp.Or(s.keys["autorestart"], "unexpected"),
		startsecs: time.Duration(count("startsecs", 1)) * time.Second, retries: count("startretries", 3),
	}
	for code := range strings.SplitSeq(cmp.Or(s.keys["exitcodes"], "0"), ",") {
		n, err := strconv.Atoi(strings.TrimSpace(code))
		if err != nil {
			errs = append(errs, bad("exitcodes = %q is no list of numbers", s.keys["exitcodes"]))
		}
		p.exits = append(p.exits, n)
	}
	for pair := range strings.SplitSeq(s.keys["environment"], ",") {
		if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok {
			p.env[k] = strings.Trim(v, `"`)
		}
	}
	c, known := h.credOf(p.user)
	p.cred = c
	switch p.args = strings.Fields(s.keys["command"]); {
	case len(p.args) == 0:
		errs = append(errs, bad("no command"))
	case strings.ContainsAny(s.keys["command"], `'"\%`):
		h.refuse(s.source, "quotes and expansions in command")
		errs = append(errs, bad("quotes and expansions in command are not simulated"))
	case !known:
		errs = append(errs, bad("invalid user name %s", p.user))
	case !slices.Contains([]string{"true", "false", "unexpected"}, p.restart):
		errs = append(errs, bad("invalid 'autorestart' value '%s'", p.restart))
	case !slices.Contains([]string{"", "TERM"}, s.keys["stopsignal"]):
		h.refuse(s.source, "stopsignal "+s.keys["stopsignal"])
		errs = append(errs, bad("stopsignal %s is not simulated", s.keys["stopsignal"]))
	}
	n, pattern := count("numprocs", 1), s.keys["process_name"]
	if n != 1 && !strings.Contains(pattern, "%(process_num)") {
		errs = append(errs, bad("%%(process_num) must be present within process_name when numprocs > 1"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if pattern == "" {
		return []programSettings{p}, nil
	}
	var all []programSettings
	for i := range n {
		q := p
		q.name = strings.NewReplacer("%(program_name)s", s.name, "%(process_num)d", strconv.Itoa(i), "%(process_num)02d", fmt.Sprintf("%02d", i)).Replace(pattern)
		if strings.Contains(q.name, "%") {
			h.refuse(s.source, "process_name "+pattern)
			return nil, bad("process_name %s is not simulated", pattern)
		}
		all = append(all, q)
	}
	return all, nil
}

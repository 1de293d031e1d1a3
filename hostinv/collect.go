package hostinv

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed script.sh
var scriptText string

// What docker is asked for, by the names of the fields in docker's own program:
// one that is only in its JSON makes it fall back to that, where a container
// without a health check has no State.Health, which is an error. Each gives one JSON array a line. Of environment
// variables only the names leave the host; commands and labels of other
// programs, which can hold secrets, are not asked for.
const (
	inspectFormat = `[{{json .ID}},{{json .Name}},{{json .Config.Image}},{{json .Image}},` +
		`{{json .State.Status}},{{json .State.ExitCode}},{{if .State.Health}}{{json .State.Health.Status}}{{else}}""{{end}},` +
		`{{json .HostConfig.RestartPolicy.Name}},` +
		`{{with .Config.Labels}}[{{json (index . "com.docker.compose.project")}},{{json (index . "com.docker.compose.service")}},` +
		`{{json (index . "com.docker.compose.container-number")}},{{json (index . "com.docker.compose.project.working_dir")}},` +
		`{{json (index . "com.docker.compose.project.config_files")}}]{{else}}[]{{end}},` +
		`{{json .HostConfig.PortBindings}},{{json .NetworkSettings.Ports}},{{json .State.Pid}},` +
		`[{{range .Mounts}}[{{json .Type}},{{json .Source}},{{json .Name}},{{json .Destination}},{{json .RW}}],{{end}}null],` +
		`[{{range $name, $_ := .NetworkSettings.Networks}}{{json $name}},{{end}}null],` +
		`[{{range .Config.Env}}{{json (index (split . "=") 0)}},{{end}}null]]`
	infoFormat  = `[{{json .ServerVersion}},{{json .Driver}},{{json .LoggingDriver}},{{json .CgroupDriver}},{{json .DockerRootDir}},{{json .LiveRestoreEnabled}}]`
	imageFormat = `[{{json .ID}},{{json .Repository}},{{json .Digest}}]`
)

// bounded are the sections whose output has bounds of its own: the kernel's,
// or those of a few small files. Never written to.
var bounded = []string{
	SectionOS, SectionKernel, SectionBoot, SectionUptime, SectionHost, SectionHardware, SectionRules, SectionListeners, SectionConnections,
	SectionModules, SectionDocker, SectionSecurity, SectionNginx,
}

// onlyFiles are the sections that send a few text files of the host: small ones,
// so that one limit for all of them will do. Never written to.
var onlyFiles = []string{SectionFstab, SectionDNS, SectionCron, SectionLimits, SectionUsers, SectionSSH, SectionTime}

// script returns the text sent to a host, with its mark, that reads sections,
// or all. Its first line is what a collector knows others by in the list of
// processes.
func script(mark string, sections ...string) string {
	body := scriptBody()
	if len(sections) > 0 {
		body = scriptOf(sections)
	}
	return strings.Replace(body, "@MARK@", mark, 1)
}

// scriptBody is the script for all sections.
var scriptBody = sync.OnceValue(func() string { return scriptOf(asked) })

// scriptOf is the script without its mark, comments and indents: as a command
// it is encoded, and sent for each host.
func scriptOf(sections []string) string {
	var calls []string
	files := "capped"
	for _, s := range asked {
		if !slices.Contains(sections, s) {
			continue
		}
		switch {
		case slices.Contains(bounded, s):
			calls = append(calls, "section "+s)
		case slices.Contains(onlyFiles, s):
			files += " " + s
		default:
			calls = append(calls, "capped "+s)
		}
	}
	if files != "capped" {
		calls = append(calls, files)
	}
	var b strings.Builder
	for line := range strings.Lines(scriptText) {
		if line = strings.TrimLeft(line, "\t"); b.Len() == 0 || line != "\n" && !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return strings.NewReplacer("@FORMAT@", inspectFormat, "@INFO@", infoFormat, "@IMAGE@", imageFormat,
		"@SECTIONS@", strings.Join(calls, "\n")).Replace(b.String())
}

const (
	shellCommand   = "/bin/sh -s"
	defaultMaxSize = 64 << 20
	maxSection     = 8388608 // as in the script
	maxTable       = 262144  // as in the script
	tableLine      = 256     // more than a line of /proc/net/tcp6 has
	maxNoise       = 4 << 10
	usualSize      = 256 << 10 // of what a host sends
)

// errTooMuch ends a collection that brings more than asked for.
var errTooMuch = errors.New("the host sent more than the limit")

// limitWriter keeps up to left bytes.
type limitWriter struct {
	buf   bytes.Buffer
	left  int64
	first int // what to make room for at first
}

func (w *limitWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		w.buf.Write(p[:w.left])
		w.left = 0
		return 0, errTooMuch
	}
	w.left -= int64(len(p))
	if w.buf.Cap() == 0 {
		w.buf.Grow(int(min(w.left, int64(max(len(p), w.first)))))
	}
	return w.buf.Write(p)
}

func collect(ctx context.Context, h Host, o Options) (*Inventory, error) {
	var raw [16]byte
	rand.Read(raw[:]) // never fails
	mark := hex.EncodeToString(raw[:])
	if o.MaxOutput <= 0 {
		o.MaxOutput = defaultMaxSize
	}
	out, stderr := &limitWriter{left: o.MaxOutput, first: usualSize}, &limitWriter{left: 8 << 10}
	for _, s := range o.Sections {
		if !slices.Contains(asked, s) {
			return nil, fmt.Errorf("cannot collect the inventory: section %q is not one that a host is asked for", s)
		}
	}
	begin := time.Now()
	text := script(mark, o.Sections...)
	cmd, stdin := shellCommand, io.Reader(strings.NewReader(text))
	if _, ours := h.(*Conn); ours {
		// An OpenSSH server takes input only when the shell runs: a script that is
		// the command saves a round trip.
		cmd, stdin = text, nil
	}
	err := h.Run(ctx, cmd, stdin, out, lenient{stderr})
	if err != nil && !ran(err) {
		return nil, fmt.Errorf("cannot collect the inventory: %w", err)
	}
	inv, framed := parseStream(out.buf.Bytes(), mark, o.Sections...)
	if !framed {
		said := strings.TrimSpace(inv.Noise + "\n" + stderr.buf.String())
		said = strings.ReplaceAll(said, mark, "…")
		if err == nil {
			err = errors.New("exit status 0")
		}
		return nil, fmt.Errorf("cannot collect the inventory: the login shell did not run %s (%w); it printed %q; "+
			"check the login shell and its start files on the host", shellCommand, err, clip(said, 300))
	}
	inv.CollectedAt = begin.UTC().Truncate(time.Millisecond)
	if inv.clock != 0 {
		// The script's clock was read somewhere between begin and now.
		mid := begin.Add(time.Since(begin) / 2)
		inv.ClockSkew = time.Unix(inv.clock, 0).Sub(mid.Truncate(time.Second))
	}
	return inv, nil
}

// ran reports whether err says that the command ran and failed.
func ran(err error) bool {
	var s interface{ ExitStatus() int }
	return errors.As(err, &s)
}

// lenient drops what does not fit: standard error only serves messages.
type lenient struct{ w io.Writer }

func (l lenient) Write(p []byte) (int, error) {
	l.w.Write(p)
	return len(p), nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// bootCommand and the next one use what the collector uses, nothing else.
const bootCommand = "cat /proc/sys/kernel/random/boot_id"

func readBootID(ctx context.Context, h Host) (string, error) {
	out := &limitWriter{left: 4 << 10}
	if err := h.Run(ctx, bootCommand, nil, out, nil); err != nil {
		return "", fmt.Errorf("cannot read the boot ID: %w", err)
	}
	id, ok := bootID(out.buf.String())
	if !ok {
		return "", fmt.Errorf("cannot read the boot ID: the host answered %q", clip(out.buf.String(), 100))
	}
	return id, nil
}

// bootID takes the last line, as a login shell may print before it, and
// checks its form.
func bootID(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) != 36 {
		return "", false
	}
	for i := 0; i < len(s); i++ {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if s[i] != '-' {
				return "", false
			}
		case !strings.ContainsRune("0123456789abcdef", rune(s[i])):
			return "", false
		}
	}
	return s, true
}

// connectionsCommand prints the tables of the host's own namespace and of those
// of some processes. The last line proves that the tables are whole.
func connectionsCommand(pids []int) string {
	cmd := tablesCommand("/proc/net")
	for _, pid := range pids {
		cmd += fmt.Sprintf(" && echo upgradectl-pid %d && ", pid) + tablesCommand(fmt.Sprintf("/proc/%d/net", pid))
	}
	return cmd + " && echo upgradectl-end"
}

func tablesCommand(dir string) string {
	return "cat " + dir + "/tcp && if [ -r " + dir + "/tcp6 ]; then cat " + dir + "/tcp6; fi"
}

func listConnections(ctx context.Context, h Host, pids []int) ([]Connection, error) {
	out := &limitWriter{left: defaultMaxSize}
	if err := h.Run(ctx, connectionsCommand(pids), nil, out, nil); err != nil {
		return nil, fmt.Errorf("cannot list the connections: %w", err)
	}
	text, ok := strings.CutSuffix(strings.TrimRight(out.buf.String(), "\n"), "upgradectl-end")
	if !ok {
		return nil, errors.New("cannot list the connections: the host's answer is cut off")
	}
	list := []Connection{}
	header, pid := false, 0
	for _, line := range strings.Split(text, "\n") {
		if n, ok := strings.CutPrefix(line, "upgradectl-pid "); ok {
			var err error
			if pid, err = strconv.Atoi(n); err != nil {
				return nil, fmt.Errorf("cannot list the connections: line %q cannot be read", clip(line, 120))
			}
			continue
		}
		if strings.Contains(line, "local_address") {
			header = true
			continue
		}
		s, ok := parseSocket(line)
		if !header || strings.TrimSpace(line) == "" {
			continue // printed by the login shell, or between the tables
		}
		if !ok {
			return nil, fmt.Errorf("cannot list the connections: line %q cannot be read", clip(line, 120))
		}
		if s.state == stateListen {
			continue
		}
		name := stateNames[s.state]
		if name == "" {
			name = fmt.Sprintf("%02X", s.state)
		}
		list = append(list, Connection{
			LocalIP: s.local.Addr().Unmap().String(), LocalPort: int(s.local.Port()),
			RemoteIP: s.remote.Addr().Unmap().String(), RemotePort: int(s.remote.Port()), State: name, PID: pid,
		})
	}
	if !header {
		return nil, errors.New("cannot list the connections: the host's answer holds no table")
	}
	return list, nil
}

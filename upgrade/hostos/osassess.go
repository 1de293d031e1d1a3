package hostos

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Severity says what a finding means for the upgrade.
type Severity string

// The severities.
const (
	Block    Severity = "block"    // the upgrade would fail or do harm: it is refused
	Warn     Severity = "warn"     // a person should know it
	Accepted Severity = "accepted" // would block, but a person has judged it harmless
)

// A Finding is something about a host that an upgrade should know.
type Finding struct {
	ID       string   `json:"id"`               // stable word, as "exclude"
	Object   string   `json:"object,omitempty"` // what it was found on, as "kernel*"
	Severity Severity `json:"severity"`
	Evidence string   `json:"evidence"` // what was seen, where
	Remedy   string   `json:"remedy"`   // what to do
}

// String gives the finding on one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s (%s): %s; %s", entry(f.ID, f.Object), f.Severity, f.Evidence, f.Remedy)
}

// entry names one finding or check: ID, or ID:OBJECT.
func entry(id, object string) string {
	if object == "" {
		return id
	}
	return id + ":" + object
}

// accepts tells whether a person has judged a finding or check harmless: all of
// its ID, or this one.
func (c StrategyConfig) accepts(id, object string) bool {
	return slices.Contains(c.Accept, id) || slices.Contains(c.Accept, entry(id, object))
}

// An Assessment is what is known of an upgrade before it begins.
type Assessment struct {
	OS          *OS         `json:"os"`
	Refused     []string    `json:"refused,omitempty"` // why the strategy does not apply; nothing else was asked then
	Transaction Transaction `json:"transaction"`       // empty of Script and External, which cannot be resolved
	Findings    []Finding   `json:"findings"`
	Kernel      string      `json:"kernel"` // that must run afterwards; "": not known beforehand
}

// Blocking lists why the upgrade must not begin; empty: it may.
func (a *Assessment) Blocking() []string {
	out := slices.Clone(a.Refused)
	for _, f := range a.Findings {
		if f.Severity == Block {
			out = append(out, f.String())
		}
	}
	return out
}

// Assess looks at a host before an upgrade: whether the strategy applies, what
// the transaction would be, and what stands in its way. It changes nothing on
// the host but the package manager's cache of what its repositories offer. An
// error means that the host could not be asked; what speaks against the
// upgrade is in the Assessment.
func Assess(ctx context.Context, h Host, c StrategyConfig) (*Assessment, error) {
	return assess(ctx, h, c, nil)
}

// AssessReplay is Assess for a host that is to get exactly the packages of
// replay, which were recorded on another.
func AssessReplay(ctx context.Context, h Host, c StrategyConfig, replay []Package) (*Assessment, error) {
	if replay == nil {
		replay = []Package{}
	}
	return assess(ctx, h, c, replay)
}

func assess(ctx context.Context, h Host, c StrategyConfig, replay []Package) (*Assessment, error) {
	o, err := GetOS(ctx, h)
	if err != nil {
		return nil, err
	}
	a := &Assessment{OS: o, Refused: c.Applies(o), Kernel: c.Kernel}
	if len(a.Refused) > 0 {
		return a, nil
	}
	// A transaction on top of half of another one cannot be resolved either.
	if c.Strategy.resolves() && len(o.Unfinished) == 0 && (replay == nil || len(replay) > 0) {
		t, out, err := resolve(ctx, h, c, o, replay)
		var re *ResolveError
		switch {
		case errors.As(err, &re):
			a.Findings = append(a.Findings, c.resolveFinding(re))
		case err != nil:
			return nil, err
		default:
			a.Transaction = *t
			a.Findings = append(a.Findings, c.judgeTransaction(o, t, out, replay)...)
			if a.Kernel == "" {
				a.Kernel = t.Kernel()
			}
		}
	}
	a.Findings = append(a.Findings, c.judgeOS(o, &a.Transaction)...)
	for i, f := range a.Findings {
		if f.Severity == Block && c.accepts(f.ID, f.Object) {
			a.Findings[i].Severity = Accepted
		}
	}
	return a, nil
}

// resolve asks the package manager what it would do.
func resolve(ctx context.Context, h Host, c StrategyConfig, o *OS, replay []Package) (*Transaction, string, error) {
	vault := ""
	if c.Vault != "" {
		var err error
		if vault, err = vaultResolve(ctx, h, o, c.Vault); err != nil {
			return nil, "", fmt.Errorf("cannot resolve the package transaction: %w", err)
		}
	}
	out, err := output(ctx, h, resolveScript(c, o, vault, replay), nil)
	if err != nil {
		return nil, "", fmt.Errorf("cannot resolve the package transaction: %w", err)
	}
	m := parts(out)
	status, err := strconv.Atoi(strings.TrimSpace(m["status"]))
	if err != nil {
		return nil, "", fmt.Errorf("cannot resolve the package transaction: unexpected answer %q", lastBytes(out, 200))
	}
	text := m["table"]
	var t *Transaction
	if o.Manager == "apt" {
		t, err = parseApt(text, status, o.Packages)
	} else {
		t, err = parseTable(text, status)
	}
	return t, text, err
}

func resolveScript(c StrategyConfig, o *OS, vault string, replay []Package) string {
	head := "LC_ALL=C\nexport LC_ALL\n"
	tail := "printf '\\n" + osMark + "status\\n%s\\n' \"$r\"\n"
	table := "printf '" + osMark + "table\\n'\n"
	verb := c.verb(o, replay)
	if o.Manager == "apt" {
		// Lists of our own: what the host's lists say may be weeks old, and reading
		// them anew would change them.
		return head + table + `t=$(mktemp -d) || exit 1
trap 'rm -rf "$t"' EXIT
mkdir "$t/partial"
set -- -o Dir::State::lists="$t" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o APT::Get::List-Cleanup=0
apt-get "$@" -q -o APT::Update::Error-Mode=any update >"$t/log" 2>&1
r=$?
if [ "$r" -ne 0 ]; then cat "$t/log"
else
	apt-get "$@" -s ` + verb + ` 2>&1
	r=$?
	apt-get "$@" --assume-no ` + verb + ` 2>/dev/null | grep 'Need to get'
fi
` + tail
	}
	tool := o.Manager
	if vault != "" {
		tool += ` -c "$t/yum.conf"`
	}
	return head + vault + table + tool + " --assumeno " + verb + " 2>&1 </dev/null\nr=$?\n" + tail
}

func (c StrategyConfig) resolveFinding(e *ResolveError) Finding {
	if !e.Dead {
		return Finding{"broken-dependency", "", Block, e.Error(), "put the package or the repository right, or exclude the package and say so in os.exclude_ok"}
	}
	remedy := "put the repository right or switch it off"
	if c.Vault == "" {
		remedy += "; of CentOS 7, whose mirrors are gone, os.vault names one that is left"
	}
	return Finding{"dead-mirror", "", Block, e.Error(), remedy}
}

// judgeTransaction says what speaks against a transaction that was resolved.
func (c StrategyConfig) judgeTransaction(o *OS, t *Transaction, out string, replay []Package) []Finding {
	var fs []Finding
	for _, m := range ignoredRepo.FindAllStringSubmatch(out, -1) {
		fs = append(fs, Finding{"ignored-repository", strings.TrimSpace(m[1]), Block, "the package manager leaves out a repository that does not answer: " + m[1], "put the repository right or switch it off: what it offers would be missed silently"})
	}
	var kernels, others []string
	for _, p := range t.Skipped {
		if p.KernelRelease() != "" {
			kernels = append(kernels, p.String())
		} else {
			others = append(others, p.String())
		}
	}
	if len(kernels) > 0 {
		fs = append(fs, Finding{"skipped-kernel", "", Block, "the new kernel cannot be installed and would be left out: " + strings.Join(kernels, ", "), "see why with " + o.Manager + " update --best, and put that right"})
	}
	if len(others) > 0 {
		fs = append(fs, Finding{"skipped-packages", "", Warn, "cannot be upgraded and would be left out: " + strings.Join(others, ", "), "see why with " + o.Manager + " update --best"})
	}
	if replay != nil {
		if m := unavailable.FindAllStringSubmatch(out, -1); len(m) > 0 {
			var names []string
			for _, n := range m {
				names = append(names, n[1]+n[2])
			}
			fs = append(fs, Finding{"unavailable", "", Block, "the repositories of this host do not have " + strings.Join(names, ", "), "give this host the repositories of the other one"})
		}
		for _, e := range o.Excludes {
			// yum and dnf do not find what is excluded; apt-get resolves what is held,
			// and refuses it when it is to be done.
			if e.Where == aptHold && slices.ContainsFunc(replay, func(p Package) bool { return p.Name == e.Pattern }) {
				fs = append(fs, Finding{"unavailable", e.Pattern, Block, e.Where + " keeps " + e.Pattern + " back, which the other host got", "run apt-mark unhold " + e.Pattern})
			}
		}
		return fs
	}
	switch {
	case c.Strategy == Security && t.Empty():
		fs = append(fs, Finding{"no-security-updates", "", c.emptySecurity(o), "no update is called a security update; repositories of CentOS never call one so", "use strategy yum-update where the repositories carry no updateinfo"})
	case t.Empty():
		fs = append(fs, Finding{"nothing-to-do", "", Warn, "everything is up to date already, as far as the repositories know", "look whether they are the ones that are maintained"})
	case t.Kernel() == "" && c.Strategy == KernelOnly:
		fs = append(fs, Finding{"no-kernel", "", Block, "the transaction brings no kernel", "look for an exclude or a lock, and whether a newer one is offered at all"})
	case t.Kernel() == "":
		fs = append(fs, Finding{"no-kernel", "", Warn, "the transaction brings no kernel: " + o.Boot.Kernel + " stays", "look for an exclude or a lock if a newer one is expected"})
	}
	return fs
}

func (c StrategyConfig) emptySecurity(o *OS) Severity {
	if o.ID == "centos" {
		return Block
	}
	return Warn
}

// The room that a transaction needs besides its download: what is unpacked is
// up to 4 times as large as what is downloaded (xz), the old files stay until
// the new ones are there, and a log and a database grow.
const (
	unpackFactor = 4
	spareBytes   = 64 << 20
	// kernelBytes is the room for one more kernel below /boot when none is there
	// to go by: vmlinuz, initramfs and System.map of CentOS 7 take about 35 MB, a
	// generic initramfs up to 80 MB.
	kernelBytes = 90 << 20
)

// judgeOS says what speaks against an upgrade in the state of the host.
func (c StrategyConfig) judgeOS(o *OS, t *Transaction) []Finding {
	var fs []Finding
	say := func(id, object string, s Severity, evidence, remedy string) {
		fs = append(fs, Finding{id, object, s, evidence, remedy})
	}
	if len(o.Unfinished) > 0 {
		say("unfinished-transaction", "", Block, "an earlier transaction is unfinished or under way: "+strings.Join(o.Unfinished, ", "), (&TransactionError{o.Unfinished}).how())
	}
	for _, e := range o.Excludes {
		switch {
		case slices.Contains(c.ExcludeOK, e.Pattern):
		case affectsKernel(e.Pattern) && c.Strategy.resolves():
			say("exclude", e.Pattern, Block, e.Where+" keeps the kernel back: "+e.Pattern, "take it out, or list it in os.exclude_ok if the kernel is to stay")
		default:
			say("exclude", e.Pattern, Warn, e.Where+" keeps packages back: "+e.Pattern, "list it in os.exclude_ok if that is meant")
		}
	}
	if c.Strategy == External {
		return fs
	}
	kernelComes := t.Kernel() != ""
	need := func(dir string, bytes int64, what string) {
		if free, known := o.Free[dir]; known && free < bytes {
			say("space", dir, Block, fmt.Sprintf("%s has %d MB free; %s needs about %d MB", dir, free>>20, what, bytes>>20), "make room")
		}
	}
	if !t.Empty() {
		need("/", unpackFactor*t.Bytes+spareBytes, "the transaction")
		need("/var/cache", t.Bytes+spareBytes, "the download")
	}
	if kernelComes {
		need("/boot", o.kernelRoom(), "another kernel")
		if o.noDefault {
			say("grub-default", "", Block, "/etc/sysconfig/kernel says UPDATEDEFAULT=no: the new kernel would not be booted", "set it to yes")
		}
		for _, m := range o.Modules {
			say("module", m, Warn, "kernel module "+m+" did not come with the kernel (DKMS or a vendor's)", "see that its vendor supports kernel "+t.Kernel()+"; the upgrade does not build it")
		}
	}
	for _, e := range o.ByName {
		fs = append(fs, e.finding())
	}
	return fs
}

// finding judges an entry of fstab. The order of virtio disks is that of their
// slots and stays; that of the others is up to the kernel's probing.
func (e FstabEntry) finding() Finding {
	f := Finding{"fstab", e.Device, Block, fmt.Sprintf("/etc/fstab mounts %s on %s by its name, which another kernel may give to another disk", e.Device, e.Mount), "name it by UUID= (blkid " + e.Device + ")"}
	if e.NoFail || strings.HasPrefix(e.Device, "/dev/vd") {
		f.Severity = Warn
	}
	return f
}

// kernelRoom gives the bytes that one more kernel takes below /boot: what the
// largest of those that are there takes, and a half more.
func (o *OS) kernelRoom() int64 {
	var most int64
	for _, k := range o.Kernels {
		most = max(most, k.Image+k.Initramfs)
	}
	if most < 1<<20 {
		return kernelBytes
	}
	return most + most/2
}

// affectsKernel tells whether a pattern of an exclude, a lock or a hold keeps
// a kernel back.
func affectsKernel(pattern string) bool {
	p := strings.TrimPrefix(pattern, "!")
	if _, rest, ok := strings.Cut(p, ":"); ok && !strings.Contains(p[:len(p)-len(rest)], "-") {
		p = rest // the epoch that yum's versionlock begins with
	}
	for _, name := range []string{"kernel", "kernel-core", "linux-image-generic", "linux-image-amd64", "linux-generic"} {
		if ok, err := path.Match(p, name); ok || err != nil {
			return true
		}
	}
	for _, prefix := range []string{"kernel-", "linux-image-"} {
		if rest, ok := strings.CutPrefix(p, prefix); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return true
		}
	}
	return p == "kernel*" || strings.HasPrefix(p, "linux-image")
}

package upgrade

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// What bind makes of its files, by its own programs: named-checkconf -p prints
// the configuration in one spelling, with its includes resolved, and
// named-compilezone a zone, one record a line.

// A bindBlock is a statement of named.conf in the spelling of named-checkconf.
type bindBlock struct {
	head   string // words, one blank between them
	open   bool   // has a block
	blocks []bindBlock
}

// bindBlocks reads the configuration of a machine.
func bindBlocks(ctx context.Context, l *link) ([]bindBlock, error) {
	out, err := run(ctx, l, "named-checkconf -p </dev/null")
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of the name server: %w", err)
	}
	blocks, err := parseBind(out)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of the name server: %w", err)
	}
	return blocks, nil
}

// bindSecret is the word behind which a key stands, which nobody is shown.
var bindSecret = regexp.MustCompile(`^secret "(.*)"$`)

// parseBind reads the output of named-checkconf -p: a statement a line, blocks
// from { to };.
func parseBind(out string) ([]bindBlock, error) {
	stack := []*bindBlock{{open: true}}
	for i, line := range strings.Split(out, "\n") {
		line = strings.Join(strings.Fields(line), " ")
		at := stack[len(stack)-1]
		switch {
		case line == "":
		case line == "};":
			if len(stack) == 1 {
				return nil, fmt.Errorf("named-checkconf -p, line %d: a block ends that did not begin", i+1)
			}
			stack = stack[:len(stack)-1]
		case strings.HasSuffix(line, "{"):
			at.blocks = append(at.blocks, bindBlock{head: strings.TrimSpace(strings.TrimSuffix(line, "{")), open: true})
			stack = append(stack, &at.blocks[len(at.blocks)-1])
		case strings.HasSuffix(line, ";"):
			head := strings.TrimSuffix(line, ";")
			if g := bindSecret.FindStringSubmatch(head); g != nil {
				head = "secret SHA-256 " + sum([]byte(g[1]))[:16]
			}
			at.blocks = append(at.blocks, bindBlock{head: head})
		default:
			return nil, fmt.Errorf("named-checkconf -p, line %d: %q is neither a statement nor a block", i+1, clip(line))
		}
	}
	if len(stack) > 1 {
		return nil, fmt.Errorf("named-checkconf -p: the block %q does not end", clip(stack[len(stack)-1].head))
	}
	return stack[0].blocks, nil
}

// A bindZone is a zone of named.conf.
type bindZone struct {
	name string // without the last dot, lower case
	kind string // master, primary, slave, …
	file string // absolute; "" = none
}

// serves: clients get its answers.
func (z bindZone) serves() bool {
	return z.owns() || z.kind == "slave" || z.kind == "secondary"
}

// owns: its file is where its records come from.
func (z bindZone) owns() bool { return z.kind == "master" || z.kind == "primary" }

// localZones are those that every name server has for itself.
var localZones = []string{"", ".", "localhost", "127.in-addr.arpa", "0.in-addr.arpa", "255.in-addr.arpa"}

// bindZones lists the zones, those of views too. File names are relative to the
// directory of the options.
func bindZones(blocks []bindBlock) []bindZone {
	directory := "/var/cache/bind"
	for _, b := range blocks {
		if b.head == "options" {
			if v := b.value("directory"); v != "" {
				directory = v
			}
		}
	}
	var out []bindZone
	var walk func([]bindBlock)
	walk = func(blocks []bindBlock) {
		for _, b := range blocks {
			words := strings.Fields(b.head)
			switch {
			case !b.open || len(words) < 2:
			case words[0] == "view":
				walk(b.blocks)
			case words[0] == "zone":
				z := bindZone{name: strings.ToLower(strings.TrimSuffix(strings.Trim(words[1], `"`), ".")), kind: b.value("type"), file: b.value("file")}
				if z.file != "" && !path.IsAbs(z.file) {
					z.file = path.Join(directory, z.file)
				}
				if !slices.Contains(localZones, z.name) {
					out = append(out, z)
				}
			}
		}
	}
	walk(blocks)
	return out
}

// value gives the value of a statement of the block, without quotes.
func (b bindBlock) value(name string) string {
	for _, s := range b.blocks {
		if v, ok := strings.CutPrefix(s.head, name+" "); ok && !s.open {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// zoneLine begins the lines of readBind that are records.
const zoneLine = "records of zone "

// readBind gives the statements of named.conf and the records of the zones that
// are the server's own. Serial numbers are no difference.
func readBind(ctx context.Context, l *link) ([]string, error) {
	blocks, err := bindBlocks(ctx, l)
	if err != nil {
		return nil, err
	}
	var out []string
	var walk func(place string, blocks []bindBlock)
	walk = func(place string, blocks []bindBlock) {
		for _, b := range blocks {
			out = append(out, place+b.head)
			walk(place+b.head+" > ", b.blocks)
		}
	}
	walk("", blocks)
	cmd := ""
	for _, z := range bindZones(blocks) {
		if z.owns() && z.file != "" {
			cmd += fmt.Sprintf("echo %s\nnamed-compilezone -q -i none -k ignore -n ignore -o - %s %s </dev/null || exit 1\n", shellq.Quote(zoneLine+z.name), shellq.Quote(z.name), shellq.Quote(z.file))
		}
	}
	if cmd == "" {
		return out, nil
	}
	text, err := run(ctx, l, cmd)
	if err != nil {
		return nil, fmt.Errorf("cannot read the zones: %w", err)
	}
	zone := ""
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(line), " ")
		switch {
		case strings.HasPrefix(line, zoneLine):
			zone = line + ": "
		case line != "" && !strings.HasPrefix(line, ";") && !strings.Contains(line, " IN SOA "):
			out = append(out, zone+line)
		}
	}
	return out, nil
}

// bindBesides are the zone files outside of /etc/bind.
func bindBesides(ctx context.Context, old *link) ([]string, error) {
	blocks, err := bindBlocks(ctx, old)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, z := range bindZones(blocks) {
		if z.owns() && z.file != "" {
			out = append(out, z.file)
		}
	}
	return out, nil
}

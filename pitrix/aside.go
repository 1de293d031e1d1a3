package pitrix

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/internal/textedit"
)

// AsideName is the name that the domain of a VM has after SetAside. It begins
// like those of the parked files.
func AsideName(vm string) string { return "old-" + vm }

// SetAside makes a backup of a VM that is shut off, domain and all, so that
// another one of its name can be made on the same host: libvirt takes no second
// definition of a name. The files are parked; the domain keeps its UUID and all
// it is, but is called AsideName and has the parked image, so that it can never
// be started on the disk of its successor. old-NAME.domain keeps its definition
// as it was.
//
// What was cut short is gone on with, all done already is fine. libvirt of
// every age can only forget a definition and take another: in between the
// definition is in the file alone. A VM that is not shut off gives a
// *RunningError, and a domain with snapshots or a saved state is refused by
// libvirt; nothing was changed then but, at most, the names of the files.
func (h *Hypervisor) SetAside(ctx context.Context, vm, uuid string) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot set %s on %s aside: %w", vm, h.Name, err)
	}
	aside := AsideName(vm)
	live, away, err := h.asideState(ctx, vm, uuid)
	if err != nil {
		return fail(err)
	}
	if away == nil && live != nil {
		if live.State != DomainShutOff {
			return &RunningError{Host: h.Name, Domain: vm, State: live.State}
		}
		// That the definition can be edited is better known before the files move.
		if _, err := h.asideXML(live.XML, vm, aside); err != nil {
			return fail(err)
		}
	}
	if _, err := h.Park(ctx, vm); err != nil {
		return err
	}
	if away != nil {
		return nil
	}
	src, err := h.definition(ctx, vm, uuid, live != nil)
	if err != nil {
		return fail(err)
	}
	next, err := h.asideXML(src, vm, aside)
	if err != nil {
		return fail(err)
	}
	file := kernels(h.Root) + "/" + aside + ".define"
	if _, err := output(ctx, h.Host, "rm -f "+shellq.Quote(file)); err != nil {
		return fail(err)
	}
	if err := h.Host.WriteFile(ctx, file, next, 0o600); err != nil {
		return fail(err)
	}
	if err := h.redefine(ctx, vm, aside, uuid, file); err != nil {
		return fail(err)
	}
	if _, err := output(ctx, h.Host, "rm -f "+shellq.Quote(file)); err != nil {
		return fail(err)
	}
	return nil
}

// TakeBack undoes SetAside, from any point where that was cut off: the domain
// and the files have their names again. There must be no other VM of the name:
// discard it first.
func (h *Hypervisor) TakeBack(ctx context.Context, vm, uuid string) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot take %s on %s back: %w", vm, h.Name, err)
	}
	live, _, err := h.asideState(ctx, vm, uuid)
	if err != nil {
		return fail(err)
	}
	n := kernels(h.Root) + "/" + AsideName(vm)
	if live == nil {
		if _, err := h.definition(ctx, vm, uuid, false); err != nil {
			return fail(err)
		}
		if err := h.redefine(ctx, AsideName(vm), vm, uuid, n+".domain"); err != nil {
			return fail(err)
		}
	}
	if _, err := h.Unpark(ctx, vm); err != nil {
		return err
	}
	if _, err := output(ctx, h.Host, "rm -f "+shellq.Join(n+".domain", n+".define")); err != nil {
		return fail(err)
	}
	return nil
}

// asideState gives the domain uuid under the one or the other name. A third one
// that has either name is an error.
func (h *Hypervisor) asideState(ctx context.Context, vm, uuid string) (live, away *Domain, err error) {
	if uuid == "" {
		return nil, nil, errors.New("internal error: no UUID is given, and the name alone does not say which VM is meant")
	}
	if live, err = h.GetDomain(ctx, vm); err != nil {
		return nil, nil, err
	}
	if away, err = h.GetDomain(ctx, AsideName(vm)); err != nil {
		return nil, nil, err
	}
	for _, d := range []*Domain{live, away} {
		if d != nil && d.UUID != uuid {
			return nil, nil, fmt.Errorf("there is another domain %s, with the UUID %s and not %s; look whose it is", d.Name, d.UUID, uuid)
		}
	}
	return live, away, nil
}

// definition reads old-NAME.domain, which it writes first if the domain is
// there to be asked. It holds what dumpxml shows to root alone, such as the
// password of the VM's display.
func (h *Hypervisor) definition(ctx context.Context, vm, uuid string, defined bool) ([]byte, error) {
	file := kernels(h.Root) + "/" + AsideName(vm) + ".domain"
	if defined {
		_, err := output(ctx, h.Host, fmt.Sprintf("umask 077\n%s >%s && mv -f -T %[2]s %[3]s && sync", h.virsh("dumpxml", "--inactive", "--security-info", vm), shellq.Quote(file+".part"), shellq.Quote(file)))
		if err != nil {
			return nil, err
		}
	}
	src, err := readFile(ctx, h.Host, file)
	if err != nil {
		return nil, err
	}
	if src == nil {
		return nil, fmt.Errorf("%w %s or %s, and no %s that it could be defined from", ErrNoDomain, vm, AsideName(vm), file)
	}
	d, err := ParseDomainXML(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if d.UUID != uuid || d.Name != vm {
		return nil, fmt.Errorf("%s defines %s with the UUID %s, not %s with %s", file, d.Name, d.UUID, vm, uuid)
	}
	return src, nil
}

// redefine takes the domain uuid from one name to another: the definition under
// the first is forgotten, if it is still there and shut off, and the file's is
// taken.
func (h *Hypervisor) redefine(ctx context.Context, from, to, uuid, file string) error {
	out, err := output(ctx, h.Host, fmt.Sprintf(`if %s >/dev/null 2>&1; then
	u=$(%s) || exit 1
	[ "$u" = %s ] || { echo "$u"; exit %d; }
	s=$(%s) || exit 1
	[ "$s" = %s ] || { echo "$s"; exit %d; }
	%s >&2 || exit 1
fi
%s >&2`, h.virsh("domuuid", from), h.virsh("domuuid", from), shellq.Quote(uuid), statusOther,
		h.virsh("domstate", from), shellq.Quote(DomainShutOff), statusDrift, h.virsh("undefine", from), h.virsh("define", file)))
	if err != nil {
		switch status, _ := exitStatus(err); status {
		case statusOther:
			return fmt.Errorf("the domain %s is another one now: its UUID is %s, not %s", from, strings.TrimSpace(out), uuid)
		case statusDrift:
			return &RunningError{Host: h.Name, Domain: from, State: strings.TrimSpace(out)}
		}
		return err
	}
	d, err := h.GetDomain(ctx, to)
	if err == nil && (d == nil || d.UUID != uuid) {
		err = fmt.Errorf("there is no domain %s with the UUID %s after it was defined", to, uuid)
	}
	return err
}

// asideXML is a definition with the name and the image of the backup, and
// otherwise the same bytes.
func (h *Hypervisor) asideXML(src []byte, vm, aside string) ([]byte, error) {
	dir := kernels(h.Root)
	image, parked := dir+"/"+vm+".img", dir+"/"+aside+".img"
	was, err := ParseDomainXML(src)
	if err != nil {
		return nil, err
	}
	if was.Name != vm || !slices.ContainsFunc(was.Disks, func(d DomainDisk) bool { return d.File == image }) {
		return nil, fmt.Errorf("the definition of %s has no disk %s, so that it is none of launch_vms.sh; set it aside by hand", was.Name, image)
	}
	b := textedit.New(src)
	dec := xml.NewDecoder(bytes.NewReader(src))
	var path []string
	for {
		start := int(dec.InputOffset())
		token, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		end := int(dec.InputOffset())
		switch token := token.(type) {
		case xml.StartElement:
			path = append(path, token.Name.Local)
			if slices.Equal(path, []string{"domain", "devices", "disk", "source"}) {
				for _, q := range []string{"'", `"`} {
					if i := bytes.Index(src[start:end], []byte("="+q+image+q)); i >= 0 {
						b.Replace(start+i+2, start+i+2+len(image), parked)
					}
				}
			}
		case xml.EndElement:
			path = path[:max(len(path)-1, 0)]
		case xml.CharData:
			if slices.Equal(path, []string{"domain", "name"}) && strings.TrimSpace(string(token)) != "" {
				b.Replace(start, end, aside)
			}
		}
	}
	next, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	// Nothing else may differ.
	is, err := ParseDomainXML(next)
	if err != nil {
		return nil, err
	}
	want := *was
	want.Name = aside
	want.Disks = slices.Clone(was.Disks)
	for i := range want.Disks {
		if want.Disks[i].File == image {
			want.Disks[i].File = parked
		}
	}
	if is.Name != want.Name || is.UUID != want.UUID || !slices.Equal(is.Disks, want.Disks) || !slices.Equal(is.Interfaces, want.Interfaces) {
		return nil, fmt.Errorf("the definition of %s cannot be edited: its name or its disk %s is written in a way that is not known; set it aside by hand", vm, image)
	}
	return next, nil
}

package pitrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A FilePlace says where a file of a VM is.
type FilePlace string

// The places. A name before the VM's, and not behind it, because a launch with
// -f removes everything whose name begins with the VM's.
const (
	PlaceNone   FilePlace = "none"
	PlaceLive   FilePlace = "live"   // /pitrix/kernels/NAME.EXT
	PlaceParked FilePlace = "parked" // /pitrix/kernels/old-NAME.EXT
	PlaceBoth   FilePlace = "both"   // one of them is foreign
)

// A ParkState is what the places of a VM's files amount to.
type ParkState string

// The states.
const (
	ParkNone     ParkState = "none"     // there is no file of the VM
	ParkLive     ParkState = "live"     // all files have the VM's name
	Parked       ParkState = "parked"   // all files have the backup's name
	ParkHalf     ParkState = "half"     // a rename was cut short: Park and Unpark both go on
	ParkConflict ParkState = "conflict" // a file has both names
)

// VMFiles are the files of a VM on its host.
type VMFiles struct {
	Image FilePlace `json:"image"` // .img
	XML   FilePlace `json:"xml"`   // .xml
	Done  FilePlace `json:"done"`  // .Done, the marker of launch_vms.sh
	// Base is the image below the parked or live one; "" when it is whole in
	// itself. A backup is worth nothing without it.
	Base string `json:"base,omitempty"`
	// BaseChanged says what is wrong with the base image of a parked VM: gone,
	// or not of the size and time that it had when the VM was parked.
	BaseChanged string `json:"base_changed,omitempty"`
}

// State judges them.
func (v VMFiles) State() ParkState {
	count := map[FilePlace]int{}
	for _, p := range []FilePlace{v.Image, v.XML, v.Done} {
		count[p]++
	}
	switch {
	case count[PlaceBoth] > 0:
		return ParkConflict
	case count[PlaceLive] > 0 && count[PlaceParked] > 0:
		return ParkHalf
	case count[PlaceParked] > 0:
		return Parked
	case count[PlaceLive] > 0:
		return ParkLive
	}
	return ParkNone
}

// MoveBackup is the command line, for the host, that moves what an earlier Park
// or SetAside of a VM has left into a directory of its own, named after the
// time, so that there can be another backup. Nothing is overwritten. The image
// still needs its base where that is.
func (h *Hypervisor) MoveBackup(vm string) string {
	return fmt.Sprintf(`cd %s && d=old-%[2]s-$(date +%%Y%%m%%d-%%H%%M%%S) && mkdir "$d" && for f in old-%[2]s.*; do mv "$f" "$d/$f" || break; done && echo "$d"`, shellq.Quote(kernels(h.Root)), vm)
}

// vmFiles are lines of shell that set d, n and o, and that look at the files.
func (h *Hypervisor) vmFiles(vm string) string {
	return fmt.Sprintf("d=%s\nn=\"$d\"/%s\no=\"$d\"/old-%s\n", shellq.Quote(kernels(h.Root)), vm, vm)
}

const lookAtFiles = `for e in img xml Done; do
	p=none
	if [ -e "$n.$e" ]; then p=live; fi
	if [ -e "$o.$e" ]; then if [ $p = live ]; then p=both; else p=parked; fi; fi
	echo "$e $p"
done
`

// base sets i to the backing file of the image $1, as qemu-img finds it.
const base = `base() {
	q=$(qemu-img info "$1" 2>/dev/null </dev/null) || q=$(qemu-img info -U "$1" </dev/null) || return 1
	i=$(printf '%s\n' "$q" | grep '^backing file: ')
	i=${i#backing file: }
	case "$i" in *" (actual path: "*) i=${i##* (actual path: }; i=${i%)};; esac
	case "$i" in ""|/*) ;; *) i="$d/$i";; esac
}
`

// GetFiles looks at the files of a VM.
func (h *Hypervisor) GetFiles(ctx context.Context, vm string) (VMFiles, error) {
	if err := checkNode(vm); err != nil {
		return VMFiles{}, err
	}
	out, err := output(ctx, h.Host, h.vmFiles(vm)+base+lookAtFiles+`if [ -e "$o.base" ]; then
	b=$(head -n 1 "$o.base")
	echo "base $b"
	if [ -n "$b" ]; then
		w=$(grep '^stat ' "$o.base")
		if [ ! -e "$b" ]; then echo "changed it is gone"
		elif [ "$w" != "stat $(stat -c '%s %Y' "$b")" ]; then echo "changed its size or time is another one: $(stat -c '%s %Y' "$b"), before $w"; fi
	fi
else
	for f in "$n.img" "$o.img"; do
		if [ -e "$f" ] && base "$f"; then echo "base $i"; break; fi
	done
fi`)
	if err != nil {
		return VMFiles{}, fmt.Errorf("cannot look at the files of %s on %s: %w", vm, h.Name, err)
	}
	v := VMFiles{}
	for line := range strings.SplitSeq(out, "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "img":
			v.Image = FilePlace(value)
		case "xml":
			v.XML = FilePlace(value)
		case "Done":
			v.Done = FilePlace(value)
		case "base":
			v.Base = value
		case "changed":
			v.BaseChanged = value
		}
	}
	if v.Image == "" || v.XML == "" || v.Done == "" {
		return v, fmt.Errorf("cannot look at the files of %s on %s: unexpected answer %q", vm, h.Name, firstBytes(out, 100))
	}
	return v, nil
}

// Park puts the files of a VM that is shut off away as a backup: its image,
// its definition and its launch marker become old-NAME.img, .xml and .Done. The
// image first, for from there on nothing can start the VM. Which image it lies
// over is noted in old-NAME.base, with that one's size and time.
//
// A renaming that was cut short is gone on with; all parked already is fine. A
// file that would be overwritten, no image, or a missing base image are errors
// before anything is renamed; a VM that is not shut off gives a *RunningError.
func (h *Hypervisor) Park(ctx context.Context, vm string) (VMFiles, error) {
	return h.rename(ctx, vm, "park", Parked, h.vmFiles(vm)+base+`if [ -e "$n.img" ]; then m="$n.img"; else m="$o.img"; fi
base "$m" || exit 74
if [ -n "$i" ] && [ ! -e "$i" ]; then echo "the image below it, $i, is gone" >&2; exit 74; fi
if [ ! -e "$o.base" ]; then
	{ echo "$i"; if [ -n "$i" ]; then echo "stat $(stat -c '%s %Y' "$i")"; fi; } >"$o.base.part" && mv -f -T "$o.base.part" "$o.base" || exit 74
fi
for e in img xml Done; do
	if [ -e "$n.$e" ]; then mv -T "$n.$e" "$o.$e" || exit 74; fi
done
sync`)
}

// Unpark is the way back. The image comes last, so that nothing starts the VM
// before all is there. The domain need not be defined.
func (h *Hypervisor) Unpark(ctx context.Context, vm string) (VMFiles, error) {
	return h.rename(ctx, vm, "unpark", ParkLive, h.vmFiles(vm)+`for e in Done xml img; do
	if [ -e "$o.$e" ]; then mv -T "$o.$e" "$n.$e" || exit 74; fi
done
rm -f "$o.base"
sync`)
}

func (h *Hypervisor) rename(ctx context.Context, vm, verb string, end ParkState, cmd string) (VMFiles, error) {
	v, err := h.GetFiles(ctx, vm)
	if err != nil {
		return v, err
	}
	fail := func(err error) (VMFiles, error) {
		return v, fmt.Errorf("cannot %s %s on %s: %w", verb, vm, h.Name, err)
	}
	switch v.State() {
	case ParkConflict:
		return fail(fmt.Errorf("a file of it has both names (image %s, xml %s, Done %s), and one would be overwritten; if the old-%s.* are an earlier backup, move it away on the host: %s", v.Image, v.XML, v.Done, vm, h.MoveBackup(vm)))
	case ParkNone:
		return fail(fmt.Errorf("there is no file of it in %s", kernels(h.Root)))
	case end:
		return v, nil
	}
	if v.Image == PlaceNone {
		return fail(fmt.Errorf("there is no image of it in %s", kernels(h.Root)))
	}
	d, err := h.GetDomain(ctx, vm)
	if err != nil {
		return fail(err)
	}
	if d != nil && d.State != DomainShutOff {
		return v, &RunningError{Host: h.Name, Domain: vm, State: d.State}
	}
	if _, err := output(ctx, h.Host, cmd); err != nil {
		return fail(err)
	}
	if v, err = h.GetFiles(ctx, vm); err == nil && v.State() != end {
		err = fmt.Errorf("after %s the files of %s on %s are %s", verb, vm, h.Name, v.State())
	}
	return v, err
}

// Discard removes a new VM for good: the domain, and its image, definition and
// marker. mac is what its settings say; a domain or definition without it is
// another VM and gives an error. fresh says that the caller has seen, before
// the VM was launched, that the host had no file of that name: only then are
// files removed that no domain and no definition belong to.
func (h *Hypervisor) Discard(ctx context.Context, vm string, mac MAC, fresh bool) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot discard %s on %s: %w", vm, h.Name, err)
	}
	if mac == (MAC{}) {
		return fail(errors.New("internal error: no MAC address is given"))
	}
	d, err := h.GetDomain(ctx, vm)
	if err != nil {
		return fail(err)
	}
	file := kernels(h.Root) + "/" + vm + ".xml"
	src, err := readFile(ctx, h.Host, file)
	if err != nil {
		return fail(err)
	}
	known := d != nil
	if src != nil {
		if x, perr := ParseDomainXML(src); perr == nil {
			known = true
			if !slices.Contains(x.MACs(), mac) {
				return fail(fmt.Errorf("%s defines a VM with the MACs %s, not %s", file, macList(x.MACs()), mac))
			}
		}
	}
	if d != nil {
		if !slices.Contains(d.Definition.MACs(), mac) {
			return fail(fmt.Errorf("the domain has the MACs %s, not %s", macList(d.Definition.MACs()), mac))
		}
		if err := h.PowerOff(ctx, vm, d.UUID); err != nil {
			return err
		}
		if d.Persistent {
			if err := h.Undefine(ctx, vm, d.UUID); err != nil {
				return err
			}
		}
	}
	if !known && !fresh {
		v, err := h.GetFiles(ctx, vm)
		if err != nil || v.Image == PlaceNone && v.XML == PlaceNone && v.Done == PlaceNone {
			return err
		}
		if v.Image != PlaceParked || v.XML == PlaceLive {
			return fail(errors.New("its files are there, but neither a domain nor a definition says whose they are; look at them and remove them by hand"))
		}
		return nil
	}
	if _, err := output(ctx, h.Host, h.vmFiles(vm)+`rm -f "$n.Done" "$n.img" "$n.xml" && sync`); err != nil {
		return fail(err)
	}
	return nil
}

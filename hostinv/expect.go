package hostinv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// expectFormat names the form of an expectation file.
const expectFormat = "upgradectl-expect/1"

// Expect names the differences that the work on the host was meant to make.
// They stay in the comparison, as expected.
type Expect struct {
	KernelChanged  bool `json:"kernel_changed,omitempty"`  // another kernel, with what comes with it; an unchanged one is then a loss
	ReleaseChanged bool `json:"release_changed,omitempty"` // another OS release: newer packages, idle units and the like
	DockerChanged  bool `json:"docker_changed,omitempty"`  // another Docker version, its packages and daemon.json
	HostChanged    bool `json:"host_changed,omitempty"`    // another machine, such as a clone: name, addresses, keys, disks
	Rebooted       bool `json:"rebooted,omitempty"`        // another boot ID; implied by the kernel and the machine
	Peers          bool `json:"peers,omitempty"`           // compare whom the host has connections to as well, which come and go by themselves

	Kernel   string       `json:"kernel,omitempty"`   // the release that must run afterwards; "" = any
	Release  string       `json:"release,omitempty"`  // what the OS release must contain afterwards; "" = any
	Packages []string     `json:"packages,omitempty"` // names, in which * and ? stand for others, whose packages may come, go and change
	Rules    []ExpectRule `json:"rules,omitempty"`    // more
}

// An ExpectRule makes findings expected. Empty fields match everything; in Key
// and After, * stands for any text and ? for one byte.
type ExpectRule struct {
	Area  string `json:"area"` // required: a section
	Key   string `json:"key,omitempty"`
	Kind  Kind   `json:"kind,omitempty"`
	Field string `json:"field,omitempty"`
	After string `json:"after,omitempty"`
	Why   string `json:"why,omitempty"` // for the reader of the comparison
}

// check says what is wrong with an expectation.
func (e Expect) check() error {
	var errs []error
	for _, p := range e.Packages {
		if p == "" {
			errs = append(errs, errors.New("packages: a name is empty"))
		}
	}
	for i, r := range e.Rules {
		if !slices.Contains(SectionNames(), r.Area) {
			errs = append(errs, fmt.Errorf("rules[%d].area: %q is no section; the sections are %s", i, r.Area, strings.Join(SectionNames(), ", ")))
		}
		if r.Kind != "" && !slices.Contains([]Kind{Added, Removed, Altered}, r.Kind) {
			errs = append(errs, fmt.Errorf("rules[%d].kind: %q is none of added, removed, changed", i, r.Kind))
		}
	}
	return errors.Join(errs...)
}

// ParseExpect reads an expectation from JSON: an object with the format
// "upgradectl-expect/1" and the fields of Expect, or a plan of upgradectl, of
// which it takes what the plan does to the host. Fields it does not know are
// an error, except in a plan.
func ParseExpect(data []byte) (Expect, error) {
	var e Expect
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return e, fmt.Errorf("cannot read the expectation: %w", err)
	}
	switch {
	case head.Format == expectFormat:
		var file struct {
			Format string `json:"format"`
			Expect
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&file); err != nil {
			return e, fmt.Errorf("cannot read the expectation: %w", err)
		}
		e = file.Expect
	case strings.HasPrefix(head.Format, "upgradectl-plan/"):
		var plan struct {
			Config struct {
				OS struct {
					Strategy string `json:"strategy"`
					Docker   string `json:"docker"`
				} `json:"os"`
			} `json:"config"`
			Facts struct {
				HasDocker bool `json:"has_docker"`
			} `json:"facts"`
		}
		if err := json.Unmarshal(data, &plan); err != nil {
			return e, fmt.Errorf("cannot read the plan: %w", err)
		}
		if plan.Config.OS.Strategy == "" {
			return e, fmt.Errorf("cannot take an expectation from the plan: it has no config.os.strategy; write one by hand, with \"format\": %q", expectFormat)
		}
		e = Expect{KernelChanged: true, ReleaseChanged: true, DockerChanged: plan.Facts.HasDocker && plan.Config.OS.Docker == "upgrade"}
	default:
		return e, fmt.Errorf("cannot read the expectation: its format is %q, neither %q nor that of a plan", head.Format, expectFormat)
	}
	if err := e.check(); err != nil {
		return Expect{}, fmt.Errorf("cannot use the expectation: %w", err)
	}
	return e, nil
}

// cloned are the areas in which a clone differs from its source by being
// another machine. Never written to.
var cloned = []string{SectionHost, SectionBoot, SectionHardware, SectionDisks, SectionInterfaces, SectionRoutes}

// apply makes a finding expected where it is.
func (e Expect) apply(f *Finding) {
	if f.Kind == Unknown || f.Severity == Expected {
		return
	}
	meant := false
	switch f.Area {
	case SectionBoot:
		meant = e.Rebooted || e.KernelChanged || e.HostChanged
	case SectionKernel:
		meant = e.KernelChanged && f.Before != f.After && (e.Kernel == "" || f.After == e.Kernel)
		if f.Field == "release" && e.Kernel != "" {
			meant = f.After == e.Kernel
		}
	case SectionOS:
		meant = (e.ReleaseChanged || e.Release != "") && (e.Release == "" || strings.Contains(f.After, e.Release))
	case SectionKernels:
		meant = e.KernelChanged && (f.Kind != Removed || f.Severity != Lost)
	case SectionModules, SectionHardware:
		meant = e.KernelChanged && f.Severity != Lost
	case SectionSysctl:
		meant = (e.KernelChanged || e.ReleaseChanged) && f.Severity != Lost
	case SectionPackages:
		meant = e.meansPackage(f)
	case SectionDocker:
		meant = e.DockerChanged && f.Severity != Lost
	case SectionUnits:
		meant = e.ReleaseChanged && f.Severity != Lost && !strings.Contains(f.Reason, "failed") ||
			e.DockerChanged && f.Severity != Lost && (strings.HasPrefix(f.Key, "docker") || strings.HasPrefix(f.Key, "containerd"))
	case SectionProcesses:
		_, program, _ := strings.Cut(f.Key, " ")
		meant = e.ReleaseChanged && f.Severity != Lost || e.DockerChanged && (strings.HasPrefix(program, "docker") || strings.HasPrefix(program, "containerd"))
	case SectionNginx, SectionSSH, SectionTimers, SectionLimits, SectionCron, SectionSecurity, SectionUsers, SectionFilesystems:
		meant = e.ReleaseChanged && f.Severity != Lost
	}
	if e.HostChanged && (slices.Contains(cloned, f.Area) || f.Area == SectionSSH && strings.HasPrefix(f.Key, "host key ")) {
		meant = true
	}
	for _, r := range e.Rules {
		if meant {
			break
		}
		meant = r.Area == f.Area && (r.Key == "" || glob(r.Key, f.Key)) && (r.Kind == "" || r.Kind == f.Kind) &&
			(r.Field == "" || r.Field == f.Field) && (r.After == "" || glob(r.After, f.After))
		if meant && r.Why != "" {
			f.Detail = r.Why
		}
	}
	if meant {
		f.Severity = Expected
	}
}

func (e Expect) meansPackage(f *Finding) bool {
	name, _, _ := strings.Cut(f.Key, " ")
	if slices.ContainsFunc(e.Packages, func(p string) bool { return glob(p, name) }) {
		return true
	}
	if e.KernelChanged && kernelPackage(name) {
		return true
	}
	if e.DockerChanged && (strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "containerd") || strings.HasPrefix(name, "container-selinux")) {
		return true
	}
	return e.ReleaseChanged && f.Severity != Lost
}

package upgrade

import (
	"time"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// osFinding begins the IDs of what hostos.Assess finds.
const osFinding = "os-"

// detectOS passes on what stands in the way of the operating system's upgrade.
// What fstab names by its device is mount-device's, but where the host might
// not come up.
func detectOS(_ *Config, f *Facts, _ time.Time) []Finding {
	if f.OS == nil {
		return nil
	}
	var out []Finding
	for _, why := range f.OS.Refused {
		out = append(out, Finding{ID: osFinding + "strategy", Severity: FindingBlocking, Evidence: why, Remedy: "docs/os.md says which strategy is for what"})
	}
	for _, x := range f.OS.Findings {
		severity := FindingBlocking
		if x.Severity == hostos.Warn {
			severity = FindingWarning
			if x.ID == "fstab" {
				continue
			}
		}
		out = append(out, Finding{ID: osFinding + x.ID, Severity: severity, Object: x.Object, Evidence: x.Evidence, Remedy: x.Remedy})
	}
	return out
}

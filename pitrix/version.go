package pitrix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A Version is that of the installer on a firstbox. Its parts compare as
// numbers: 4.10 is younger than 4.9.
type Version struct {
	Major, Minor, Revision int
}

// ParseVersion reads a version of two or three numbers, "3.7" or "4.2.1".
func ParseVersion(s string) (Version, error) {
	parts := strings.Split(s, ".")
	bad := fmt.Errorf("%q is not an installer version; write two or three numbers as in 4.2.1", s)
	if len(parts) != 2 && len(parts) != 3 {
		return Version{}, bad
	}
	var n [3]int
	for i, part := range parts {
		// The installer's own comparison gives each part two digits.
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil || part[0] == '+' {
			return Version{}, bad
		}
		n[i] = int(v)
	}
	return Version{n[0], n[1], n[2]}, nil
}

// ParseVersionFile reads the version out of /pitrix/version.json, which
// installers from 4.0 on have, or of the text /pitrix/version of older ones.
func ParseVersionFile(src []byte) (Version, error) {
	text := strings.TrimSpace(string(src))
	if strings.HasPrefix(text, "{") {
		var file struct {
			Current struct {
				Installer string `json:"installer"`
			} `json:"current"`
		}
		if err := json.Unmarshal(src, &file); err != nil {
			return Version{}, fmt.Errorf("cannot read the installer's version file: %w", err)
		}
		if file.Current.Installer == "" {
			return Version{}, fmt.Errorf("the installer's version file names no current.installer; is it /pitrix/version.json?")
		}
		return ParseVersion(file.Current.Installer)
	}
	// Blocks "=== current ===" and "=== old ===" with lines "installer: 3.7.0".
	current := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "===") {
			current = strings.TrimSpace(strings.Trim(line, "=")) == "current"
			continue
		}
		if v, ok := strings.CutPrefix(line, "installer:"); ok && current {
			return ParseVersion(strings.TrimSpace(v))
		}
	}
	return Version{}, fmt.Errorf("the installer's version file has no installer: line below === current ===; is it /pitrix/version?")
}

// Compare returns -1, 0 or 1 as v is older than, equal to or younger than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Revision, w.Revision))
}

// Python reports whether the installer's list and build scripts are the .py
// ones and its variables stand in one variables.yaml: from 4.3 on. Documents of
// 4.x mix both spellings, so look whether the script is there before it is run.
func (v Version) Python() bool { return v.Compare(Version{Major: 4, Minor: 3}) >= 0 }

// String returns the version with all three numbers.
func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Revision)
}

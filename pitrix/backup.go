package pitrix

import (
	"fmt"
	"path"
	"slices"
	"time"
)

// BackupPath returns where to copy dir, "/pitrix/conf/settings", to: a sibling
// named after it and after at, in at's time zone, as in
// "/pitrix/conf/settings.20261122-031500". Present are the names of all
// entries of dir's parent; a name that is among them gets "-2", "-3" and so on.
//
// The old way, cp -arf to settings.20261122, puts the second copy of a day
// inside the first, and a copy inside settings/ is one more node for every
// script. So the path is never one that exists, and a dir whose copy would
// land among the nodes or node groups is refused.
//
// Make the directory with a plain mkdir, which fails when somebody else was
// faster, and copy the content of dir into it.
func BackupPath(dir string, at time.Time, present []string) (string, error) {
	refuse := func(reason string) (string, error) {
		return "", fmt.Errorf("cannot name a backup of %q: %s", dir, reason)
	}
	clean := path.Clean(dir)
	parent, base := path.Split(clean)
	switch {
	case !path.IsAbs(dir):
		return refuse("the path is not absolute; give the whole path of the directory")
	case clean == "/":
		return refuse("the root directory has no place beside it; give the settings directory")
	case at.IsZero():
		return refuse("no time is given; give the time of the backup")
	case at.Year() < 1000 || at.Year() > 9999:
		return refuse("the year does not have four digits; check the clock")
	}
	switch path.Base(parent) {
	case "settings", "nodes":
		return refuse("files beside it are taken for nodes or groups; back up " + path.Clean(parent) + " as a whole")
	}
	if !slices.Contains(present, base) {
		// A listing of some other directory would let the copy overwrite.
		return refuse("it is not among the entries of " + path.Clean(parent) + "; list that directory first")
	}
	stem := base + "." + at.Format("20060102-150405")
	name := stem
	for n := 2; slices.Contains(present, name); n++ {
		name = fmt.Sprintf("%s-%d", stem, n)
	}
	return parent + name, nil
}

package pitrix

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Marker stands on the firstbox while nodes are rebuilt: from before their
// settings have temporary addresses until the packages have final ones again.
// What is installed elsewhere meanwhile would spread the temporary ones.
type Marker struct {
	Run   string    `json:"run"` // names the rebuild
	Role  string    `json:"role"`
	Nodes []string  `json:"nodes"`
	Since time.Time `json:"since"`
}

// markerDir is in a directory that no script reads, under a name that a
// listing does not show.
const markerDir = "/pitrix/conf/.upgradectl-rebuild"

// A MarkedError says that nodes are being rebuilt.
type MarkedError struct {
	Marker  Marker
	Outside []string // nodes of the scope that are not among them
}

func (e *MarkedError) Error() string {
	s := fmt.Sprintf("the rebuild %s of %s (%s) has been under way since %s", e.Marker.Run, e.Marker.Role, strings.Join(e.Marker.Nodes, ", "), e.Marker.Since.UTC().Format(time.RFC3339))
	if len(e.Outside) > 0 {
		s += ", and its temporary addresses would reach " + nodeList(e.Outside)
	}
	return s + "; let it end, or roll it back"
}

// SetMarker puts the marker on the firstbox, whole or not at all. The one of
// the same run is left alone; another one's gives a *MarkedError.
func (f *Firstbox) SetMarker(ctx context.Context, m Marker) error {
	if err := checkKey(m.Run); err != nil {
		return fmt.Errorf("cannot mark the rebuild: %w", err)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	// A directory that is not empty is never replaced by a rename.
	_, err = output(ctx, f.Host, fmt.Sprintf(`d=%s
t="$d.$$"
rm -rf "$t"
mkdir "$t" && printf '%%s\n' %s >"$t/marker.json" || exit 1
sync
mv -T "$t" "$d" 2>/dev/null || rm -rf "$t"`, shellq.Quote(f.at(markerDir)), shellq.Quote(string(data))))
	if err != nil {
		return fmt.Errorf("cannot mark the rebuild on the firstbox: %w", err)
	}
	is, err := f.GetMarker(ctx)
	switch {
	case err != nil:
		return err
	case is == nil:
		return fmt.Errorf("cannot mark the rebuild on the firstbox: %s could not be made", markerDir)
	case is.Run != m.Run:
		return &MarkedError{Marker: *is}
	}
	return nil
}

// GetMarker returns nil when nothing is being rebuilt.
func (f *Firstbox) GetMarker(ctx context.Context) (*Marker, error) {
	data, err := readFile(ctx, f.Host, f.at(markerDir)+"/marker.json")
	if err != nil || data == nil {
		return nil, err
	}
	m := &Marker{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("the marker of a rebuild, %s/marker.json, is damaged: %w; find out whose it is before you remove it", markerDir, err)
	}
	return m, nil
}

// ClearMarker removes the marker of a run. No marker is fine; another run's
// gives a *MarkedError.
func (f *Firstbox) ClearMarker(ctx context.Context, run string) error {
	m, err := f.GetMarker(ctx)
	if err != nil || m == nil {
		return err
	}
	if m.Run != run {
		return &MarkedError{Marker: *m}
	}
	if _, err := output(ctx, f.Host, "d="+shellq.Quote(f.at(markerDir))+` && rm -f "$d/marker.json" && rmdir "$d" && sync`); err != nil {
		return fmt.Errorf("cannot remove the marker of the rebuild: %w", err)
	}
	return nil
}

// CheckMarker returns a *MarkedError when nodes are being rebuilt and the scope
// reaches others.
func (f *Firstbox) CheckMarker(ctx context.Context, scope Scope) error {
	m, err := f.GetMarker(ctx)
	if err != nil || m == nil {
		return err
	}
	var outside []string
	for _, n := range scope.nodes {
		if !slices.Contains(m.Nodes, n) {
			outside = append(outside, n)
		}
	}
	if len(outside) > 0 {
		return &MarkedError{Marker: *m, Outside: outside}
	}
	return nil
}

package upgrade

import (
	"context"
	"fmt"
	"strings"

	"github.com/upgradectl/upgradectl/pitrix"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// compareConfigs sees that what somebody has written by hand into the role's
// other configuration files is on the new machine too.
func (r *rebuild) compareConfigs(ctx context.Context, a *engine.Act, n *RebuildNodeFacts) error {
	for _, name := range r.role.configs {
		was, is, l, err := r.both(ctx, a, n, name)
		if err != nil {
			return err
		}
		if len(was) == 0 {
			continue
		}
		opts, err := r.compareOptions(a, n)
		if err != nil {
			return err
		}
		var missing []string
		for _, m := range pitrix.MissingLines(was, is, opts.Addresses) {
			missing = append(missing, m.String())
		}
		if len(missing) > 0 {
			return fmt.Errorf("%s: %s lacks of the old machine's: %s; bring them there by hand, and resume", l.target, name, strings.Join(missing, ", "))
		}
	}
	return nil
}

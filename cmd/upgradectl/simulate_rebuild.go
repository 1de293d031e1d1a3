package main

import (
	"fmt"
	"io"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// simulatedRebuild is the result of a simulated rebuild.
type simulatedRebuild struct {
	Outcome    string                `json:"outcome"`
	Requests   int64                 `json:"requests"`
	Failed     int64                 `json:"failed"`     // outside of the gaps
	GapMS      float64               `json:"gap_ms"`     // longest time without a holder of a floating address
	GapFailed  int64                 `json:"gap_failed"` // requests that failed and overlap a gap
	Steps      int                   `json:"steps"`      // done
	Nodes      []upgrade.RebuiltNode `json:"nodes"`
	OldKept    []string              `json:"old_kept"` // backups of the old machines
	LeftBehind []string              `json:"left_behind"`
	Duration   float64               `json:"duration_s"`
	Problems   []string              `json:"problems"`
}

// rebuildFigures prints what the world counted and judges it by how the run
// ended.
func (a *app) rebuildFigures(f sim.RebuildFigures, run string, began time.Time) error {
	rep, err := upgrade.ReadReport(run)
	if err != nil {
		return runError(err)
	}
	res := simulatedRebuild{
		Outcome: rep.State, Requests: f.Requests, Failed: f.Failed, GapMS: f.GapMS, GapFailed: f.GapFailed, Steps: rep.Counts()["done"],
		Nodes: rep.Nodes, OldKept: f.OldKept, LeftBehind: f.LeftBehind, Duration: time.Since(began).Seconds(), Problems: f.CheckEnd(rep.State),
	}
	for _, list := range []*[]string{&res.OldKept, &res.LeftBehind, &res.Problems} {
		if *list == nil {
			*list = []string{}
		}
	}
	if err := a.result(res, func(w io.Writer) {
		fmt.Fprintf(w, "\n%s: %s\n", rep.Host, rep.State)
		if rep.Reason != "" && rep.State != "succeeded" {
			fmt.Fprintf(w, "  %s: %s\n", rep.Step, rep.Reason)
		}
		for _, n := range res.Nodes {
			fmt.Fprintf(w, a.t("  %-10s %s: from %s to %s, kernel %s → %s\n", "  %-10s %s：由 %s 迁至 %s，内核 %s → %s\n"), n.Name, n.Address, n.OldHost, n.Host, n.KernelBefore, n.KernelAfter)
		}
		fmt.Fprintf(w, a.t("  requests   %d sent, %d failed\n", "  请求       共 %d，失败 %d\n"), f.Requests, f.Failed)
		fmt.Fprintf(w, a.t("  floating   moved in at most %.0f ms, %d requests failed meanwhile\n", "  VIP        漂移最长 %.0f ms，期间失败请求 %d\n"), f.GapMS, f.GapFailed)
		fmt.Fprintf(w, a.t("  steps      %d done\n", "  步骤       完成 %d\n"), res.Steps)
		for _, k := range res.OldKept {
			fmt.Fprintf(w, a.t("  kept       %s\n", "  保留       %s\n"), k)
		}
		fmt.Fprintf(w, a.t("  took       %.1f s\n", "  用时       %.1f 秒\n"), res.Duration)
		for _, p := range res.Problems {
			fmt.Fprintf(w, a.t("  PROBLEM    %s\n", "  问题       %s\n"), p)
		}
	}); err != nil {
		return err
	}
	return simulationStatus(rep.State, res.Problems)
}

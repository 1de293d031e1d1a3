package pitrix

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing wrong with a settings file, or with a fleet of them.
type Problem struct {
	File string `json:"file"` // as given to Parse
	// Line and Col count from 1; Col counts bytes. A key that is missing has
	// the position 1:1.
	Line int `json:"line"`
	Col  int `json:"col"`
	// Rule is RuleSyntax for problems of Parse, else the rule of CheckFleet
	// that is broken, "R1" to "R10", RuleRebuild or RuleHosts.
	Rule string `json:"rule"`
	Key  string `json:"key,omitempty"` // empty: no single key is meant
	Text string `json:"text"`          // what is wrong and what to do
}

// Rules that have no number.
const (
	// RuleSyntax is the Rule of every Problem that Parse and Render find.
	RuleSyntax = "syntax"
	// RuleRebuild is what CheckRebuild says of files that are not of the
	// rebuilt nodes: they must not change.
	RuleRebuild = "rebuild"
	// RuleHosts is what CheckHosts says of the built package pitrix-hosts.
	RuleHosts = "hosts"
)

// String returns the problem as file:line:col: key: text (rule). The key and
// the rule of syntax problems are left out when they say nothing.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Col)
	if p.Key != "" {
		s += p.Key + ": "
	}
	s += p.Text
	if p.Rule != RuleSyntax {
		s += " (" + p.Rule + ")"
	}
	return s
}

// Problems is the error of Parse: every problem of one file, in the order of
// their positions. It is never empty when it is returned as an error.
type Problems []Problem

// Error returns the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sortProblems orders by file and position. Problems at one place keep the
// order in which they were found.
func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Col-b.Col)
	})
}

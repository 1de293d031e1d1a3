package cloud

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A contract is what testdata says of one action.
type contract struct {
	names    map[string]bool // of parameters
	required []string
	waived   []string // required by the contract, not by the simulator
}

// knows reports whether a contract has a parameter of an action's table.
func (k contract) knows(name string) bool {
	if k.names[name] {
		return true
	}
	for n := range k.names {
		prefix, ok := strings.CutSuffix(n, ".*")
		if ok && (name == prefix || strings.HasPrefix(name, prefix+".")) {
			return true
		}
	}
	// Filter.1.Key is no list in some contracts.
	return strings.HasPrefix(name, "Tag.#.") && (k.names["Tag.#.Key"] || k.names["Tag.#.key"]) // the old spelling Tag.N.key
}

// contracts reads testdata, by product and action.
func contracts(t *testing.T) map[string]contract {
	t.Helper()
	all := map[string]contract{}
	for _, file := range []string{"testdata/contracts.txt", "testdata/legacy.txt"} {
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		product := ""
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			switch {
			case len(words) == 0 || strings.HasPrefix(words[0], "#"):
				continue
			case words[0] == "=":
				require.Lenf(t, words, 3, "%s: %q", file, lines.Text())
				product = words[1] + " " + words[2]
				continue
			}
			name := product + " " + words[0]
			k, known := all[name]
			if !known {
				k.names = map[string]bool{}
			}
			for _, w := range words[1:] {
				if w, ok := strings.CutSuffix(w, "?"); ok {
					k.waived = append(k.waived, w)
					continue
				}
				w, must := strings.CutSuffix(w, "!")
				k.names[w] = true
				if must {
					k.required = append(k.required, w)
				}
			}
			all[name] = k
		}
		require.NoError(t, lines.Err())
	}
	require.Greater(t, len(all), 200)
	return all
}

func parametersOf(version, action string, kv ...string) map[string]string {
	p := map[string]string{"Version": version, "Action": action, "Format": "JSON", "RegionId": "cn-hangzhou"}
	for i := 0; i+1 < len(kv); i += 2 {
		p[kv[i]] = kv[i+1]
	}
	return p
}

// example returns a value that passes the check of a parameter.
func example(p param) string {
	if p.name == "RegionId" {
		return "cn-hangzhou"
	}
	return map[string]string{"": "x", "int": "1", "bool": "true", "ids": `["x"]`, "json": `[{"x":1}]`, "words": "x,y"}[p.kind]
}

// complete returns a request with every required parameter of an action.
func complete(a *action) map[string]string {
	p := parametersOf(a.version, a.name)
	for _, q := range a.params {
		if q.required && q.name != "RegionId" {
			p[strings.ReplaceAll(q.name, "#", "1")] = example(q)
		}
	}
	return p
}

// TestContracts holds every table of parameters against the published
// contracts: nothing is taken that they do not have, and everything that they
// require is required, by name.
func TestContracts(t *testing.T) {
	c := New(Config{})
	defer c.Close()
	all := contracts(t)
	for _, p := range products() {
		for _, a := range p.actions {
			a := c.actions[p.version][a.name]
			k, known := all[p.name+" "+p.version+" "+a.name]
			if !assert.Truef(t, known, "testdata has no contract for %s:%s", p.name, a.name) {
				continue
			}
			for _, q := range a.params {
				assert.Truef(t, q.name == "RegionId" || k.knows(q.name), "the contract of %s:%s has no parameter %s", p.name, a.name, q.name)
			}
			for _, name := range k.required {
				if slices.Contains(k.waived, name) {
					continue
				}
				given := complete(a)
				name = strings.TrimSuffix(strings.TrimSuffix(name, ".*"), ".#")
				for n := range given {
					if plain := unindexed(n); plain == name || strings.HasPrefix(plain, name+".") {
						delete(given, n)
					}
				}
				_, err := c.parse(given)
				if assert.NotNilf(t, err, "%s:%s without %s", p.name, a.name, name) {
					assert.Equalf(t, "MissingParameter", err.code, "%s:%s without %s", p.name, a.name, name)
					assert.Containsf(t, unindexed(err.message), name, "%s:%s", p.name, a.name)
					assert.True(t, err.refused)
				}
			}
			for _, name := range k.waived {
				assert.Containsf(t, k.required, name, "%s:%s waives %s, which nobody requires", p.name, a.name, name)
			}
		}
	}
}

func TestParameterTables(t *testing.T) {
	c := New(Config{})
	defer c.Close()
	word := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\.(#|\*|[0-9]|[A-Za-z][A-Za-z0-9]*))*$`)
	for _, actions := range c.actions {
		for name, a := range actions {
			seen := map[string]bool{}
			for _, p := range a.params {
				assert.Regexpf(t, word, p.name, "a word of %s", name)
				assert.Falsef(t, seen[p.name], "%s of %s stands there twice", p.name, name)
				seen[p.name] = true
				assert.Containsf(t, []string{"", "int", "bool", "ids", "json", "words"}, p.kind, "%s of %s", p.name, name)
				assert.Falsef(t, p.required && !p.served, "%s of %s is required and not served", p.name, name)
			}
			full := complete(a)
			_, err := c.parse(full)
			assert.Nilf(t, err, "%s: %v", name, err)
			for _, p := range a.params {
				given := complete(a)
				concrete := strings.NewReplacer("#", "1", "*", "Member").Replace(p.name)
				given[concrete] = example(p)
				_, err := c.parse(given)
				if p.served {
					assert.Nilf(t, err, "%s %s: %v", name, concrete, err)
				} else if assert.NotNilf(t, err, "%s %s is not simulated", name, concrete) {
					assert.Equal(t, "UnsupportedParameter", err.code)
					given[concrete] = ""
					_, err = c.parse(given)
					assert.Nilf(t, err, "%s: an empty %s is none", name, concrete)
				}
			}
			given := complete(a)
			given["Instanceid"] = "x"
			_, err = c.parse(given)
			if assert.NotNilf(t, err, "%s: unknown parameter", name) {
				assert.Equal(t, "UnsupportedParameter", err.code)
				assert.True(t, err.refused)
			}
		}
	}
}

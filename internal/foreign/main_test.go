package foreign

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program is the upgradectl under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if program = os.Getenv("UPGRADECTL"); program == "" {
		dir, err := os.MkdirTemp("", "upgradectl-foreign-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "upgradectl")
		build := exec.Command("go", "build", "-o", program, "./cmd/upgradectl")
		build.Dir = filepath.Join("..", "..")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build upgradectl: %v\n%s", err, out)
			return 1
		}
	}
	// The clients of this process speak to the loopback directly.
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		_ = os.Unsetenv(name)
	}
	return m.Run()
}

// need skips a test without a program, except where UPGRADECTL_REQUIRE (names
// separated by commas) says that it must be there.
func need(t *testing.T, name string, found error) {
	t.Helper()
	switch {
	case found == nil:
	case slices.Contains(strings.Split(os.Getenv("UPGRADECTL_REQUIRE"), ","), name):
		t.Fatalf("%s is required and missing: %v", name, found)
	default:
		t.Skipf("%s is missing: %v", name, found)
	}
}

// A simulator is a running `upgradectl simulate --serve`.
type simulator struct {
	Endpoint string // http://127.0.0.1:PORT
	Host     string // 127.0.0.1:PORT
	Region   string
	Key      string
	Secret   string
	Stock    struct {
		ImageID         string `json:"image_id"`
		InstanceType    string `json:"instance_type"`
		ZoneID          string `json:"zone_id"`
		VpcID           string `json:"vpc_id"`
		VSwitchID       string `json:"vswitch_id"`
		SecurityGroupID string `json:"security_group_id"`
		LogProject      string `json:"log_project"`
		LogStore        string `json:"log_store"`
	}

	t    *testing.T
	cmd  *exec.Cmd
	out  *bufio.Reader
	errs bytes.Buffer
	last *tally
}

// A tally is what the simulator says at its end.
type tally struct {
	Calls   map[string]int
	Refused []string
	Created []struct {
		Type, ID, Name string
		Tags           map[string]string
	}
}

// left lists what was created and is still there, as "type name".
func (t *tally) left() []string {
	l := []string{}
	for _, r := range t.Created {
		l = append(l, r.Type+" "+r.Name)
	}
	slices.Sort(l)
	return l
}

// serve starts a simulator whose cloud is a thousand times faster than the
// real one. It ends with the test, or at end.
func serve(t *testing.T, flags ...string) *simulator {
	t.Helper()
	s := &simulator{t: t}
	s.cmd = exec.Command(program, append([]string{"simulate", "--serve", "127.0.0.1:0", "--json", "--speed", "1000"}, flags...)...) // the last --speed counts
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	s.cmd.Stderr = &s.errs
	require.NoError(t, s.cmd.Start())
	s.out = bufio.NewReader(stdout)
	t.Cleanup(func() {
		if s.last == nil {
			s.stop()
		}
	})
	line, err := s.out.ReadBytes('\n')
	require.NoErrorf(t, err, "upgradectl: %s", &s.errs)
	var first struct {
		Endpoint        string          `json:"endpoint"`
		Region          string          `json:"region"`
		AccessKeyID     string          `json:"access_key_id"`
		AccessKeySecret string          `json:"access_key_secret"`
		Stock           json.RawMessage `json:"stock"`
	}
	require.NoError(t, json.Unmarshal(line, &first))
	require.NoError(t, json.Unmarshal(first.Stock, &s.Stock))
	s.Endpoint, s.Region, s.Key, s.Secret = first.Endpoint, first.Region, first.AccessKeyID, first.AccessKeySecret
	s.Host = strings.TrimPrefix(s.Endpoint, "http://")
	return s
}

func (s *simulator) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt)
	s.last = &tally{}
	if line, err := s.out.ReadBytes('\n'); err == nil {
		assert.NoError(s.t, json.Unmarshal(line, s.last))
	} else {
		assert.NoErrorf(s.t, err, "the simulator ended without its tally: %s", &s.errs)
	}
	assert.NoErrorf(s.t, s.cmd.Wait(), "upgradectl: %s", &s.errs)
}

// end stops the simulator; nothing that was sent may have been unknown to it.
func (s *simulator) end() *tally {
	s.t.Helper()
	s.stop()
	assert.Empty(s.t, s.last.Refused, "the simulator did not know these")
	actions := make([]string, 0, len(s.last.Calls))
	calls := 0
	for name, n := range s.last.Calls {
		actions = append(actions, name)
		calls += n
	}
	slices.Sort(actions)
	s.t.Logf("%d actions in %d calls: %s", len(actions), calls, strings.Join(actions, " "))
	return s.last
}

// Environ is what a client in a process of its own gets to know.
func (s *simulator) environ() []string {
	return append(os.Environ(),
		"SIM_ENDPOINT="+s.Endpoint, "SIM_HOST="+s.Host, "SIM_REGION="+s.Region, "SIM_KEY="+s.Key, "SIM_SECRET="+s.Secret,
		"SIM_IMAGE="+s.Stock.ImageID, "SIM_TYPE="+s.Stock.InstanceType, "SIM_ZONE="+s.Stock.ZoneID, "SIM_VPC="+s.Stock.VpcID,
		"SIM_VSWITCH="+s.Stock.VSwitchID, "SIM_GROUP="+s.Stock.SecurityGroupID, "SIM_PROJECT="+s.Stock.LogProject, "SIM_STORE="+s.Stock.LogStore)
}

// client runs a program that uses the simulator, and returns what it printed.
func (s *simulator) client(env []string, name string, args ...string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(s.environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// wait asks until done says so, for a minute at most.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, done, time.Minute, 20*time.Millisecond, what)
}

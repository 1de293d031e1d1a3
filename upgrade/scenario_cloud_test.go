package upgrade_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/memnet"
	"github.com/upgradectl/upgradectl/upgrade"
)

// machines is a colleague's way to the instances.
func (s *stage) machines() *ecs.Client {
	s.t.Helper()
	c, err := ecs.New(ecs.Config{Region: s.op.Region, AccessKeyID: s.op.AccessKeyID, AccessKeySecret: s.op.AccessKeySecret, Poll: 100 * time.Millisecond}, ecs.WithTransport(s.world.Cloud().Transport()))
	require.NoError(s.t, err)
	return c
}

// answers puts a proxy between the operator and the cloud's API that changes the
// answers which name an instance and not production's.
func (s *stage) answers(change func(body string) string) {
	s.t.Helper()
	cloudAddr := strings.TrimPrefix(s.op.Endpoint, "http://")
	var between memnet.Network
	ln, err := between.Listen()
	require.NoError(s.t, err)
	behind := &http.Transport{DialContext: s.world.DialOperator, DisableKeepAlives: true}
	srv := &http.Server{Handler: &httputil.ReverseProxy{
		Transport: behind,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: cloudAddr})
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			if text := string(body); strings.Contains(text, `"InstanceId":"i-`) && !strings.Contains(text, "i-web90") {
				body = []byte(change(text))
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	}}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(ln) })
	s.t.Cleanup(func() { _ = srv.Close(); served.Wait() })
	dial := s.access.NetDial
	s.access.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == cloudAddr {
			return between.Dial(ctx, ln.Addr().String())
		}
		return dial(ctx, network, addr)
	}
}

// The cloud has made the transition host of another type, with another role or in
// another network than it was asked for: it gets no traffic.
func TestScenario24OtherTypeRoleNetwork(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		weights := s.world.Figures().WeightsBefore
		var old, other string
		used := 0
		s.answers(func(body string) string {
			if old == "" || !strings.Contains(body, old) {
				return body
			}
			used++
			return strings.ReplaceAll(body, old, other)
		})
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.3", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		for _, c := range []struct{ old, other, why string }{
			{`"InstanceType":"ecs.g6.large"`, `"InstanceType":"ecs.t6.small"`, "instance type: planned ecs.g6.large, is ecs.t6.small"},
			{`"RamRoleName":""`, `"RamRoleName":"admin"`, "RAM role: planned none, is admin"},
			{`"VSwitchId":"vsw-sim"`, `"VSwitchId":"vsw-dmz"`, "vSwitch: planned vsw-sim, is vsw-dmz"},
			{`"VpcId":"vpc-sim"`, `"VpcId":"vpc-lab"`, "VPC: planned vpc-sim, is vpc-lab"},
			{`"ZoneId":"cn-hangzhou-h"`, `"ZoneId":"cn-hangzhou-i"`, "zone: planned cn-hangzhou-h, is cn-hangzhou-i"},
		} {
			old, other, used = c.old, c.other, 0
			r = s.resume(quiet)
			assert.Positive(t, used, c.old)
			s.failed(r, "3.4-addresses", c.why)
			assert.Contains(t, r.Reason, "it gets no traffic")
			assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
			assert.Equal(t, weights, s.world.Figures().WeightsAfter)
		}
		old = ""
		s.succeeded(s.resume(quiet), 6)
	})
}

// The transition host stands in other security groups than planned: it gets no
// traffic, and the run goes on when that is put right.
func TestScenario24OtherSecurityGroups(t *testing.T) {
	scenario(t, sim.Config{}, nil, func(t *testing.T, s *stage) {
		s.world.Cloud().AddSecurityGroup(cloud.SecurityGroup{ID: "sg-other", VPC: "vpc-sim"})
		weights := s.world.Figures().WeightsBefore
		o := quiet
		o.Observer = func(e upgrade.Event) {
			if e.Kind == "done" && e.Step == "3.3-clone" {
				require.NoError(t, s.machines().SetSecurityGroups(t.Context(), s.clone(), []string{"sg-other"}))
			}
		}
		r := s.apply(o)
		s.failed(r, "3.4-addresses", "security groups: planned sg-web, is sg-other")
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.Equal(t, weights, s.world.Figures().WeightsAfter)
		require.NoError(t, s.machines().SetSecurityGroups(t.Context(), s.clone(), []string{"sg-web"}))
		s.succeeded(s.resume(quiet), 6)
	})
}

// The run waits for people longer than half of the transition host's life:
// reading it warns, going on renews.
func TestScenario25ReleaseTimeInAPause(t *testing.T) {
	scenario(t, sim.Config{Rate: 0.01}, func(y string) string { return strings.Replace(y, "auto_release: 24h", "auto_release: 40m", 1) }, func(t *testing.T, s *stage) {
		require.Equal(t, "paused", s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer}).State)
		released := func() time.Time {
			in, err := s.machines().GetInstance(t.Context(), s.clone())
			require.NoError(t, err)
			return in.AutoReleaseTime
		}
		warnings := func() string {
			rep, err := upgrade.ReadReport(s.run)
			require.NoError(t, err)
			return strings.Join(rep.Warnings, "\n")
		}
		first := released()
		assert.Empty(t, warnings())
		time.Sleep(25 * time.Minute)
		assert.Contains(t, warnings(), s.clone()+" is released by itself at "+first.Format(time.RFC3339))
		assert.Equal(t, first, released(), "status changes nothing")

		r := s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		second := released()
		assert.WithinDuration(t, time.Now().Add(40*time.Minute), second, 2*time.Minute)
		assert.Empty(t, warnings())
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Contains(t, strings.Join(rep.Notes, "\n"), "renew by test")
		assert.Contains(t, strings.Join(rep.Notes, "\n"), second.Format(time.RFC3339))

		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, second, released(), "there is time left")

		// What cannot be renewed is noted, and stops nobody.
		time.Sleep(25 * time.Minute)
		s.world.Cloud().InjectFault(cloud.Fault{Action: "ModifyInstanceAutoReleaseTime", Code: "OperationDenied", Status: 403})
		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.8", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, second, released())
		rep, err = upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Contains(t, strings.Join(rep.Notes, "\n"), "it is still released by itself at "+second.Format(time.RFC3339))
		assert.NotEmpty(t, rep.Warnings)

		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.9", Observer: quiet.Observer})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Zero(t, released(), "traffic may reach it: nothing releases it")
		assert.Empty(t, warnings())
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s %v", r.Step, r.Reason, r.Work)
	})
}

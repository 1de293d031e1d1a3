package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade"
)

func TestExitStatus(t *testing.T) {
	live := context.Background()
	cancelled, cancel := context.WithCancel(live)
	cancel()
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{live, nil, 0},
		{live, errors.New("any"), 1},
		{live, usagef("wrong"), 2},
		{live, &upgrade.ConfigError{}, 3},
		{live, &hostinv.ConfigError{}, 3},
		{live, &hostinv.UnknownHostKeyError{}, 4},
		{live, &hostinv.HostKeyChangedError{}, 4},
		{live, &hostinv.HostKeyRevokedError{}, 4},
		{live, &hostinv.AuthError{}, 4},
		{live, &hostinv.DialError{Err: errors.New("refused")}, 4},
		{live, ecs.ErrCredentials, 4},
		{live, slb.ErrCredentials, 4},
		{live, &ecs.GuardError{}, 4},
		{live, &nginx.RefusedError{}, 4},
		{live, &nginx.GuardError{}, 4},
		{live, &slb.RefusedError{}, 4},
		{live, &slb.RuleConflictError{}, 4},
		{live, slb.ErrManaged, 4},
		{live, slb.ErrPermission, 1}, // the errors that match it match ErrCredentials as well
		{live, errors.Join(ecs.ErrPermission, ecs.ErrCredentials), 4},
		{live, ecs.ErrClock, 4},
		{live, slb.ErrClock, 4},
		{live, ecs.ErrRegion, 4},
		{live, slb.ErrRegion, 4},
		{live, &slb.NotSilentError{}, 6},
		{live, &nginx.NotDrainedError{}, 6},
		{live, &slb.JobError{}, 1},
		{live, &slb.NotServingError{}, 1},
		{live, &ecs.StateError{}, 1},
		{live, &nginx.TestError{}, 1},
		{live, &nginx.ReloadError{}, 1},
		{live, &nginx.ApplyError{Err: &nginx.ReloadError{}}, 7},
		{live, &nginx.ApplyError{Err: &nginx.TestError{}, PutBack: errors.New("no space")}, 8},
		{live, &exitError{code: exitParked}, 11},
		{live, &slb.ConflictError{}, 10},
		{live, &nginx.DriftError{}, 10},
		{live, &upgrade.DriftError{}, 10},
		{live, &upgrade.AccessError{Err: errors.New("no route")}, 4},
		{live, &upgrade.RefusedError{}, 4},
		{cancelled, context.Canceled, 130},
		{cancelled, &exitError{exitRefused, &upgrade.AccessError{Err: context.Canceled}}, 130},
		{cancelled, &exitError{exitDamaged, context.Canceled}, 12},
		{cancelled, &exitError{exitRefused, errors.New("refused all the same")}, 4},
		{cancelled, errors.New("a real one all the same"), 1},
		// A cancelled context of somebody else's is not our interruption.
		{live, context.Canceled, 1},
	} {
		assert.Equal(t, tt.want, exitStatus(tt.ctx, tt.err), "%T", tt.err)
		if tt.err != nil {
			assert.Equal(t, tt.want, exitStatus(tt.ctx, fmt.Errorf("wrapped: %w", tt.err)), "wrapped %T", tt.err)
		}
	}
}

func TestLanguage(t *testing.T) {
	env := func(kv map[string]string) func(string) string { return func(k string) string { return kv[k] } }
	assert.Equal(t, "en", language(nil, env(nil)))
	assert.Equal(t, "zh", language(nil, env(map[string]string{"LANG": "zh_CN.UTF-8"})))
	assert.Equal(t, "zh", language(nil, env(map[string]string{"LANG": "zh_CN.utf8@pinyin"})))
	assert.Equal(t, "en", language(nil, env(map[string]string{"LANG": "zh_CN.GBK"})), "a terminal that would show rubbish")
	assert.Equal(t, "zh", language([]string{"--lang=zh"}, env(map[string]string{"LANG": "zh_CN.GBK"})), "asked for")
	assert.Equal(t, "en", language(nil, env(map[string]string{"LC_ALL": "C", "LANG": "zh_CN.UTF-8"})))
	assert.Equal(t, "zh", language([]string{"slb", "--lang", "zh"}, env(nil)))
	assert.Equal(t, "zh", language([]string{"--lang=zh"}, env(nil)))
	assert.Equal(t, "en", language([]string{"--", "--lang=zh"}, env(nil)))
}

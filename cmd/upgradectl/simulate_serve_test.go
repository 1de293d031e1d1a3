package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
)

// startService runs `simulate --serve` in this process and returns its first
// line and how to end it: with its last line.
func startService(t *testing.T, flags ...string) (served, func() tally) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: w, err: &errs, lang: "en"}
	status := make(chan int, 1)
	go func() {
		status <- a.main(ctx, append([]string{"--json", "simulate", "--serve", "127.0.0.1:0"}, flags...))
		_ = w.Close()
	}()
	t.Cleanup(cancel)
	lines := bufio.NewReader(r)
	line, err := lines.ReadBytes('\n')
	require.NoErrorf(t, err, "%s", &errs)
	var first served
	require.NoError(t, json.Unmarshal(line, &first))
	return first, func() tally {
		t.Helper()
		cancel()
		line, err := lines.ReadBytes('\n')
		require.NoError(t, err)
		var last tally
		require.NoError(t, json.Unmarshal(line, &last))
		require.Equal(t, exitOK, <-status)
		return last
	}
}

// A client finds what it needs to begin, and its calls are counted.
func TestServe(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "addr")
	s, end := startService(t, "--addr-file", addr, "--speed", "10000", "--region", "cn-beijing", "--access-key-id", "k", "--access-key-secret", "s")
	data, err := os.ReadFile(addr)
	require.NoError(t, err)
	assert.Equal(t, s.Endpoint+"\n", string(data))
	c, err := ecs.New(ecs.Config{Region: s.Region, Endpoint: s.Endpoint, AccessKeyID: s.AccessKeyID, AccessKeySecret: s.AccessKeySecret})
	require.NoError(t, err)
	images, err := c.ListImages(t.Context(), ecs.ImageFilter{})
	require.NoError(t, err)
	assert.Empty(t, images, "the stock's image is the cloud's, not the account's")
	assert.Equal(t, "cn-beijing-h", s.Stock.ZoneID)
	last := end()
	assert.Equal(t, map[string]int{"DescribeImages": 1}, last.Calls)
	assert.Empty(t, last.Refused)
	assert.Empty(t, last.Created)
	_, err = net.DialTimeout("tcp", strings.TrimPrefix(s.Endpoint, "http://"), time.Second)
	require.Error(t, err, "nothing listens any more")
}

// The cloud works as the HTTP proxy of clients that cannot be given an
// endpoint: by the host and version in a request, whatever port it came to.
// Tunnels to elsewhere there are none.
func TestServeAsProxy(t *testing.T) {
	s, end := startService(t)
	proxy, err := url.Parse(s.Endpoint)
	require.NoError(t, err)
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}
	client := &http.Client{Transport: tr}
	resp, err := client.Get("http://ecs-cn-hangzhou.aliyuncs.com/?Action=DescribeRegions&Version=2014-05-26&Format=JSON&AccessKeyId=" + s.AccessKeyID)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct{ Code, HostId string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	assert.Equal(t, "IncompleteSignature", answer.Code)
	assert.Equal(t, "ecs-cn-hangzhou.aliyuncs.com", answer.HostId)
	_, err = client.Get("https://location-readonly.aliyuncs.com/")
	require.ErrorContains(t, err, "Forbidden")
	last := end()
	require.Len(t, last.Refused, 1, "a tunnel is no request to the cloud")
	assert.Contains(t, last.Refused[0], "IncompleteSignature")
}

// The knobs reach the cloud.
func TestServeKnobs(t *testing.T) {
	s, end := startService(t, "--speed", "10000", "--fault", "DescribeImages=error,code=ForcedForTest,status=403,skip=1", "--deny", "DescribeInstances")
	c, err := ecs.New(ecs.Config{Region: s.Region, Endpoint: s.Endpoint, AccessKeyID: s.AccessKeyID, AccessKeySecret: s.AccessKeySecret})
	require.NoError(t, err)
	_, err = c.ListImages(t.Context(), ecs.ImageFilter{})
	require.NoError(t, err)
	_, err = c.ListImages(t.Context(), ecs.ImageFilter{})
	require.ErrorContains(t, err, "ForcedForTest")
	_, err = c.GetInstance(t.Context(), "i-1")
	require.ErrorIs(t, err, ecs.ErrPermission)
	assert.Equal(t, 1, end().Calls["DescribeImages"])
}

// The hosts of the runbook are there if wanted.
func TestServeWithHosts(t *testing.T) {
	s, end := startService(t, "--with-hosts")
	assert.Contains(t, s.Stock.InstanceIDs, "i-web90")
	c, err := ecs.New(ecs.Config{Region: s.Region, Endpoint: s.Endpoint, AccessKeyID: s.AccessKeyID, AccessKeySecret: s.AccessKeySecret})
	require.NoError(t, err)
	i, err := c.GetInstance(t.Context(), "i-web90")
	require.NoError(t, err)
	assert.Equal(t, "172.31.0.90", i.PrivateIPs[0])
	end()
}

func TestServeRefusals(t *testing.T) {
	for _, c := range []struct {
		status int
		says   string
		args   []string
	}{
		{exitRefused, "not a loopback address", []string{"--serve", "0.0.0.0:0"}},
		{exitRefused, "not a loopback address", []string{"--serve", "192.0.2.1:80"}},
		{exitUsage, "missing port", []string{"--serve", "127.0.0.1"}},
		{exitUsage, "ACTION=KIND", []string{"--serve", "127.0.0.1:0", "--fault", "DescribeImages"}},
		{exitUsage, "ACTION=KIND", []string{"--serve", "127.0.0.1:0", "--fault", "DescribeImages=slow"}},
		{exitUsage, "no action Nothing", []string{"--serve", "127.0.0.1:0", "--fault", "Nothing=error"}},
		{exitUsage, `"colour" is not code`, []string{"--serve", "127.0.0.1:0", "--fault", "*=error,colour=red"}},
		{exitUsage, "invalid syntax", []string{"--serve", "127.0.0.1:0", "--fault", "*=error,times=x"}},
		{exitUsage, "CALLS/SPAN", []string{"--serve", "127.0.0.1:0", "--throttle", "20"}},
		{exitUsage, "no action Nothing", []string{"--serve", "127.0.0.1:0", "--deny", "Nothing"}},
		{exitUsage, "cannot be given together", []string{"--serve", "127.0.0.1:0", "--with-hosts", "--region", "cn-beijing"}},
		{exitUsage, "needs --serve", []string{"--fault", "*=error"}},
	} {
		var out, errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &errs, lang: "en"}
		assert.Equalf(t, c.status, a.main(t.Context(), append([]string{"simulate"}, c.args...)), "%v", c.args)
		assert.Containsf(t, errs.String(), c.says, "%v", c.args)
		assert.Emptyf(t, out.String(), "%v", c.args)
	}
}

package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

const id, secret = "test-key-id", "test-key-secret"

// The program against a simulated cloud over HTTP. Outside this module
// `upgradectl simulate --serve` gives such an endpoint.
func TestCopy(t *testing.T) {
	sim := cloud.New(cloud.Config{AccessKeyID: id, AccessKeySecret: secret, Speed: 6000, FreeIPs: []string{"172.31.0.91"}})
	defer sim.Close()
	sim.AddInstance(cloud.Instance{ID: "i-90", Name: "web-90", PrivateIP: "172.31.0.90", Disks: []cloud.Disk{{Size: 40}, {Size: 100}}})
	srv := httptest.NewServer(sim)
	defer srv.Close()
	c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: id, AccessKeySecret: secret, Poll: 5 * time.Millisecond}, ecs.WithEndpoint(srv.URL))
	require.NoError(t, err)
	defer c.CloseIdleConnections()

	var out bytes.Buffer
	require.NoError(t, Copy(t.Context(), c, "172.31.0.90", "tuesday", "crond,docker.socket", &out))
	assert.Contains(t, out.String(), "(172.31.0.91) is a copy of i-90")
	before := len(sim.Resources())
	require.NoError(t, Copy(t.Context(), c, "172.31.0.90", "tuesday", "crond,docker.socket", &out))
	assert.Len(t, sim.Resources(), before, "the second run makes nothing")

	require.NoError(t, Remove(t.Context(), c, "tuesday", &out))
	for _, r := range sim.Resources() {
		assert.False(t, r.CreatedByAPI, "%v is left", r)
	}
	assert.Empty(t, sim.Refused())
}

// transport is what a user's own test can put in the place of the network: it
// answers what is expected and refuses the rest.
type transport map[string]string

func (tr transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := tr[r.URL.Query().Get("Action")]
	if !ok {
		return nil, errors.New("unexpected " + r.URL.Query().Get("Action"))
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func TestWithTransport(t *testing.T) {
	c, err := ecs.New(ecs.Config{Region: "cn-hangzhou", AccessKeyID: id, AccessKeySecret: secret}, ecs.WithTransport(transport{
		"DescribeInstances": `{"RequestId":"1","TotalCount":0,"Instances":{"Instance":[]}}`,
	}))
	require.NoError(t, err)
	err = Copy(t.Context(), c, "172.31.0.77", "t", "", io.Discard)
	require.ErrorIs(t, err, ecs.ErrNotFound)
}

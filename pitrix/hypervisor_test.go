package pitrix

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseDomainList(t *testing.T) {
	want := []Domain{{Name: "proxy0", State: DomainRunning}, {Name: "old-vm", State: DomainShutOff}, {Name: "x", State: "in shutdown"}}
	for name, out := range map[string]string{
		"9.0": " Id   Name     State\n----------------------------\n 1    proxy0   running\n -    old-vm   shut off\n 12   x        in shutdown\n\n",
		"1.3": " Id    Name                           State\n----------------------------------------------------\n 1     proxy0                         running\n -     old-vm                         shut off\n 12    x                              in shutdown\n\n",
	} {
		got, err := ParseDomainList([]byte(out))
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
	}
	got, err := ParseDomainList([]byte(" Id   Name   State\n--------------------\n\n"))
	require.NoError(t, err)
	assert.Empty(t, got)
	for _, bad := range []string{"", "error: failed to connect\n", " Id Name State\n---\n what is this\n"} {
		_, err := ParseDomainList([]byte(bad))
		assert.Error(t, err, "%q", bad)
	}
}

func TestVMFilesState(t *testing.T) {
	const n, l, p, b = PlaceNone, PlaceLive, PlaceParked, PlaceBoth
	for _, tt := range []struct {
		image, xml, done FilePlace
		want             ParkState
	}{
		{n, n, n, ParkNone}, {l, l, l, ParkLive}, {l, l, n, ParkLive}, {p, p, p, Parked}, {p, p, n, Parked},
		{p, l, l, ParkHalf}, {p, p, l, ParkHalf}, {b, p, p, ParkConflict}, {l, b, l, ParkConflict},
	} {
		assert.Equal(t, tt.want, VMFiles{Image: tt.image, XML: tt.xml, Done: tt.done}.State(), "%+v", tt)
	}
}

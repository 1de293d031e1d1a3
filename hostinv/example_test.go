package hostinv_test

import (
	"context"
	"fmt"
	"io"

	"github.com/upgradectl/upgradectl/hostinv"
)

// container is a Host of one's own: anything that runs a command line.
type container struct{ run func(cmd string) string }

func (c container) Run(_ context.Context, cmd string, _ io.Reader, stdout, _ io.Writer) error {
	_, err := io.WriteString(stdout, c.run(cmd))
	return err
}

// A host has rebooted when its boot ID is another one, and not before.
func ExampleReadBootID() {
	ids := []string{"d2cf5a55-550f-4407-adf6-1110d73a4fac\n", "11111111-550f-4407-adf6-1110d73a4fac\n"}
	h := container{func(string) string {
		id := ids[0]
		ids = ids[1:]
		return id
	}}
	before, err := hostinv.ReadBootID(context.Background(), h)
	if err != nil {
		fmt.Println(err)
		return
	}
	after, err := hostinv.ReadBootID(context.Background(), h)
	fmt.Println(before != after, err)
	// Output: true <nil>
}

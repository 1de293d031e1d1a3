// Command ecs copies a host: it says what a copy would lack and cost, takes
// snapshots of all its disks, makes an image of them and starts a clone on which
// the given units are held back, and prints what it made. Run again with the same
// -token it goes on where it was, and makes nothing twice.
//
//	ecs -ip 172.31.0.90 -token tuesday -hold crond,docker
//	ecs -delete -token tuesday            remove all of it again
//
// Keys and region come from the environment or ~/.aliyun/config.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fs := flag.NewFlagSet("ecs", flag.ExitOnError)
	var (
		endpoint = fs.String("endpoint", "", "API endpoint instead of the public one")
		ip       = fs.String("ip", "", "private address of the host to copy")
		token    = fs.String("token", "", "name of this copy; required")
		hold     = fs.String("hold", "", "systemd units that must not start on the copy, separated by commas")
		remove   = fs.Bool("delete", false, "remove what was made under the token")
		poll     = fs.Duration("poll", 0, "first interval between two looks; 0 is the default of the package")
	)
	_ = fs.Parse(os.Args[1:])
	c, err := ecs.New(ecs.Config{Poll: *poll}, ecs.WithEndpoint(*endpoint))
	if err == nil {
		if *remove {
			err = Remove(ctx, c, *token, os.Stdout)
		} else {
			err = Copy(ctx, c, *ip, *token, *hold, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ecs:", err)
		os.Exit(1)
	}
}

// tag marks everything that belongs to one copy; source, on the clone, what it
// is a copy of.
const (
	tag       = "example:copy"
	sourceTag = "example:source"
)

// Copy makes a clone of the host that has the private address ip.
func Copy(ctx context.Context, c *ecs.Client, ip, token, hold string, out io.Writer) error {
	if token == "" {
		return errors.New("-token is required")
	}
	tags := map[string]string{tag: token}
	progress := func(p ecs.Progress) { fmt.Fprintf(out, "%s %s: %s %d%%\n", p.Object, p.ID, p.Status, p.Percent) }

	found, err := c.FindInstance(ctx, ecs.Lookup{PrivateIP: ip})
	if err != nil {
		return err
	}
	source, disks, err := c.GetDetails(ctx, found.ID)
	if err != nil {
		return err
	}
	blocked := false
	for _, b := range ecs.CheckClone(source, disks) {
		fmt.Fprintf(out, "%s: %s; %s\n", b.Code, b.Reason, b.Remedy)
		blocked = blocked || b.Blocking
	}
	if blocked {
		return fmt.Errorf("instance %s cannot be copied", source.ID)
	}
	// Should this program die, the cloud takes the clone away by itself.
	clone := ecs.CloneInput{Source: source, Disks: disks, Name: "copy-" + token, Token: token + "-clone", AutoRelease: time.Now().Add(2 * time.Hour), Tags: map[string]string{tag: token, sourceTag: source.ID}}
	if hold != "" {
		if clone.UserData, err = (ecs.Quarantine{Units: strings.Split(hold, ",")}).UserData(); err != nil {
			return err
		}
	}
	price, err := c.Price(ctx, clone)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "it costs %.4f %s an hour\n", price.Hourly, price.Currency)

	set, err := c.CreateSnapshotSet(ctx, ecs.SnapshotInput{InstanceID: source.ID, Token: token + "-snapshot", Name: "copy-" + token, RetentionDays: 1, Tags: tags})
	if err != nil {
		return err
	}
	snaps := set.Snapshots
	var ids []string
	for _, s := range snaps {
		ids = append(ids, s.ID)
	}
	if snaps, err = c.WaitSnapshots(ctx, ids, progress); err != nil {
		return err
	}
	image, err := c.CreateImage(ctx, ecs.ImageInput{Name: "copy-" + token, Token: token + "-image", Snapshots: snaps, Tags: tags})
	if err != nil {
		return err
	}
	if _, err := c.WaitImage(ctx, image, progress); err != nil {
		return err
	}
	clone.ImageID = image
	id, err := c.CreateClone(ctx, clone)
	if err != nil {
		return err
	}
	i, err := c.WaitInstance(ctx, id, ecs.StatusRunning, progress)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s (%s) is a copy of %s, released at %s\n", i.ID, strings.Join(i.PrivateIPs, " "), source.ID, i.AutoReleaseTime.Format(time.RFC3339))
	return nil
}

// Remove deletes what Copy made, and nothing that does not carry its tag.
func Remove(ctx context.Context, c *ecs.Client, token string, out io.Writer) error {
	if token == "" {
		return errors.New("-token is required")
	}
	tags := map[string]string{tag: token}
	in := ecs.ReleaseInput{Guard: ecs.Guard{TagKey: tag, TagValue: token}}
	images, err := c.ListImages(ctx, ecs.ImageFilter{Tags: tags})
	if err != nil {
		return err
	}
	for _, i := range images {
		in.Images = append(in.Images, i.ID)
	}
	groups, err := c.ListSnapshotGroups(ctx, ecs.SnapshotGroupFilter{Tags: tags})
	if err != nil {
		return err
	}
	for _, g := range groups {
		in.SnapshotGroups = append(in.SnapshotGroups, g.ID)
	}
	snaps, err := c.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: tags})
	if err != nil {
		return err
	}
	for _, s := range snaps {
		in.Snapshots = append(in.Snapshots, s.ID)
	}
	instances, err := c.ListInstances(ctx, ecs.Filter{Tags: tags})
	if err != nil {
		return err
	}
	if len(instances) > 1 {
		return fmt.Errorf("%d instances carry the tag %s=%s", len(instances), tag, token)
	}
	for _, i := range instances {
		in.InstanceID, in.SourceID = i.ID, i.Tags[sourceTag]
	}
	return c.Release(ctx, in, func(what string) { fmt.Fprintln(out, "removed", what) })
}

// Command ecs copies a host: it takes snapshots of all its disks, makes an image
// of them and starts a clone, and prints what it made. Run again with the same
// -token it goes on where it was, and makes nothing twice.
//
//	ecs -ip 172.31.0.90 -token tuesday
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
		remove   = fs.Bool("delete", false, "remove what was made under the token")
		poll     = fs.Duration("poll", 0, "first interval between two looks; 0 is the default of the package")
	)
	_ = fs.Parse(os.Args[1:])
	c, err := ecs.New(ecs.Config{Poll: *poll}, ecs.WithEndpoint(*endpoint))
	if err == nil {
		if *remove {
			err = Remove(ctx, c, *token, os.Stdout)
		} else {
			err = Copy(ctx, c, *ip, *token, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ecs:", err)
		os.Exit(1)
	}
}

// tag marks everything that belongs to one copy.
const tag = "example:copy"

// Copy makes a clone of the host that has the private address ip.
func Copy(ctx context.Context, c *ecs.Client, ip, token string, out io.Writer) error {
	if token == "" {
		return errors.New("-token is required")
	}
	tags := map[string]string{tag: token}
	progress := func(p ecs.Progress) { fmt.Fprintf(out, "%s %s: %s %d%%\n", p.Object, p.ID, p.Status, p.Percent) }

	source, err := c.FindInstance(ctx, ecs.Lookup{PrivateIP: ip})
	if err != nil {
		return err
	}
	disks, err := c.ListDisks(ctx, source.ID)
	if err != nil {
		return err
	}
	snaps, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{InstanceID: source.ID, Token: token + "-snapshot", Name: "copy-" + token, RetentionDays: 1, Tags: tags})
	if err != nil {
		return err
	}
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
	// Should this program die, the cloud takes the clone away by itself.
	id, err := c.CreateClone(ctx, ecs.CloneInput{
		Source: source, Disks: disks, ImageID: image, Name: "copy-" + token, Token: token + "-clone",
		AutoRelease: time.Now().Add(2 * time.Hour), Tags: tags,
	})
	if err != nil {
		return err
	}
	clone, err := c.WaitInstance(ctx, id, ecs.StatusRunning, progress)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s (%s) is a copy of %s, released at %s\n", clone.ID, strings.Join(clone.PrivateIPs, " "), source.ID, clone.AutoReleaseTime.Format(time.RFC3339))
	return nil
}

// Remove deletes what Copy made: the instance, then the image, then the
// snapshots, because the cloud keeps what something else is made of.
func Remove(ctx context.Context, c *ecs.Client, token string, out io.Writer) error {
	if token == "" {
		return errors.New("-token is required")
	}
	tags := map[string]string{tag: token}
	instances, err := c.ListInstances(ctx, ecs.Filter{Tags: tags})
	if err != nil {
		return err
	}
	for _, i := range instances {
		if err := c.StopInstance(ctx, i.ID); err != nil {
			return err
		}
		if err := c.DeleteInstance(ctx, i.ID, ecs.Guard{TagKey: tag, TagValue: token}); err != nil {
			return err
		}
		fmt.Fprintln(out, "released", i.ID)
	}
	images, err := c.ListImages(ctx, ecs.ImageFilter{Tags: tags})
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := c.DeleteImage(ctx, i.ID); err != nil {
			return err
		}
		fmt.Fprintln(out, "deleted", i.ID)
	}
	snaps, err := c.ListSnapshots(ctx, ecs.SnapshotFilter{Tags: tags})
	if err != nil {
		return err
	}
	for _, s := range snaps {
		if err := c.DeleteSnapshot(ctx, s.ID); err != nil {
			return err
		}
		fmt.Fprintln(out, "deleted", s.ID)
	}
	return nil
}

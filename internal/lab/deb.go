package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Deb is a package of Debian for the lab's hosts that keep Debian's package
// manager, which those without the layer of a [Mirror] do.
type Deb struct {
	Name, Version string
	Fields        string            // further lines of control, as "Depends: x\n"
	Files         map[string]string // by absolute name; those below /etc are conffiles
	Postinst      string            // shell
}

// DebianSource is the line of sources.list for [Mirror.Publish].
const DebianSource = "deb [trusted=yes] " + MirrorURL + "/debian ./"

// Publish builds packages with dpkg-deb and adds them to the mirror's repository
// of Debian packages, which keeps the versions that it has.
func (m *Mirror) Publish(ctx context.Context, debs ...Deb) error {
	dir := filepath.Join(m.Dir, "debian")
	for _, d := range debs {
		tree, err := os.MkdirTemp("", "deb")
		if err == nil {
			err = d.build(ctx, tree, dir)
		}
		if err != nil {
			return fmt.Errorf("cannot build %s %s: %w", d.Name, d.Version, err)
		}
		if err := os.RemoveAll(tree); err != nil {
			return err
		}
	}
	scan := exec.CommandContext(ctx, "dpkg-scanpackages", "--multiversion", ".")
	scan.Dir = dir
	index, err := scan.Output()
	if err != nil {
		return fmt.Errorf("dpkg-scanpackages: %w", err)
	}
	release := fmt.Sprintf("Origin: lab\nSuite: stable\nArchitectures: amd64\nDate: Tue, 01 Dec 2020 00:00:00 UTC\nSHA256:\n %x %d Packages\n", sha256.Sum256(index), len(index))
	for name, text := range map[string][]byte{"Packages": index, "Release": []byte(release)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (d Deb) build(ctx context.Context, tree, dir string) error {
	files := map[string]string{
		"/DEBIAN/control": "Package: " + d.Name + "\nVersion: " + d.Version + "\nArchitecture: amd64\nMaintainer: lab <lab@example.com>\nDescription: lab\n" + d.Fields,
	}
	conffiles := ""
	for name, text := range d.Files {
		files[name] = text
		if strings.HasPrefix(name, "/etc/") {
			conffiles += name + "\n"
		}
	}
	if conffiles != "" {
		files["/DEBIAN/conffiles"] = conffiles
	}
	if d.Postinst != "" {
		files["/DEBIAN/postinst"] = "#!/bin/sh\nset -e\n" + d.Postinst
	}
	if err := writeFiles(tree, files); err != nil {
		return err
	}
	if d.Postinst != "" {
		if err := os.Chmod(filepath.Join(tree, "DEBIAN/postinst"), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return command("dpkg-deb", "--build", "-Znone", "--root-owner-group", tree, dir)
}

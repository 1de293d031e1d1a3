package lab

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed app/App.java
var javaSource []byte

// Apps are the programs that hosts of the lab serve with.
type Apps struct {
	Binary string // statically linked: see internal/lab/app
	Image  string // tar file with the binary as /app, for "docker import"
	Jar    string // the same service for a real Java runtime
}

// Where [Apps.Install] puts them.
const (
	AppBinary = "/opt/lab/bin/app"
	AppImage  = "/opt/lab/app.tar"
	AppJar    = "/opt/lab/app.jar"
)

// Install copies them into a tree, such as the layer that hosts share.
func (a *Apps) Install(root string) error {
	for to, from := range map[string]string{AppBinary: a.Binary, AppImage: a.Image, AppJar: a.Jar} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		to = filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// BuildApps compiles them into dir, with the go command and javac.
func BuildApps(ctx context.Context, dir string) (*Apps, error) {
	a := &Apps{Binary: filepath.Join(dir, "app"), Image: filepath.Join(dir, "app.tar"), Jar: filepath.Join(dir, "app.jar")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := BuildApp(ctx, a.Binary); err != nil {
		return nil, err
	}
	if err := a.writeImage(); err != nil {
		return nil, err
	}
	return a, a.writeJar(ctx, dir)
}

// BuildApp compiles the binary alone, with the go command.
func BuildApp(ctx context.Context, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, "github.com/upgradectl/upgradectl/internal/lab/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build of the application: %w: %s", err, out)
	}
	return nil
}

func (a *Apps) writeImage() error {
	data, err := os.ReadFile(a.Binary)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(data))}); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(a.Image, b.Bytes(), 0o644)
}

func (a *Apps) writeJar(ctx context.Context, dir string) error {
	classes := filepath.Join(dir, "classes")
	if err := os.MkdirAll(classes, 0o755); err != nil {
		return err
	}
	source := filepath.Join(dir, "App.java")
	if err := os.WriteFile(source, javaSource, 0o644); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "javac", "-J-XX:TieredStopAtLevel=1", "-proc:none", "-d", classes, source).CombinedOutput(); err != nil {
		return fmt.Errorf("javac: %w: %s", err, out)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("META-INF/MANIFEST.MF")
	if err != nil {
		return err
	}
	fmt.Fprint(w, "Manifest-Version: 1.0\r\nMain-Class: App\r\n\r\n")
	err = fs.WalkDir(os.DirFS(classes), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(classes, name))
		if err != nil {
			return err
		}
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(a.Jar, b.Bytes(), 0o644)
}

package firstbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// unrooted writes files below a directory of the test, with the paths in their
// texts led there too.
func unrooted(t *testing.T, files map[string]string, dirs ...string) string {
	t.Helper()
	root := t.TempDir()
	var pairs []string
	for _, d := range dirs {
		pairs = append(pairs, d, root+d)
		require.NoError(t, os.MkdirAll(root+d, 0o755))
	}
	lead := strings.NewReplacer(pairs...)
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(root+name), 0o755))
		require.NoError(t, os.WriteFile(root+name, []byte(lead.Replace(text)), 0o644))
	}
	return root
}

// The real nginx accepts the files of old and new webservices, and says of a
// broken one what the simulated nodes say.
func TestWebFilesAsNginx(t *testing.T) {
	nginx := testenv.Need(t, "nginx")
	for name, files := range map[string]map[string]string{"old": agedWeb(nil), "new": webFiles(false)} {
		root := unrooted(t, files, "/etc/nginx", "/var/log/nginx", "/run")
		out, err := exec.Command(nginx, "-t", "-e", root+"/var/log/nginx/error.log", "-c", root+nginxFile).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.NoError(t, os.WriteFile(root+siteFile, []byte("server {\n    lisen 80;\n}\n"), 0o644))
		out, err = exec.Command(nginx, "-t", "-e", root+"/var/log/nginx/error.log", "-c", root+nginxFile).CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), `unknown directive "lisen"`)
	}
}

// Debian's named-checkconf and named-compilezone read the files of old and new
// name servers as the simulated ones do, and refuse what they refuse.
func TestDNSFilesAsBind(t *testing.T) {
	checkconf, compile := testenv.Need(t, "named-checkconf"), testenv.Need(t, "named-compilezone")
	for name, files := range map[string]map[string]string{"old": agedDNS(nil), "new": dnsFiles()} {
		root := unrooted(t, files, "/etc/bind", "/var/lib/bind", "/var/cache/bind")
		out, err := exec.Command(checkconf, "-z", root+namedFile).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)

		read := func(name string) ([]byte, error) { return os.ReadFile(name) }
		tree, err := readNamed(read, root+namedFile)
		require.NoError(t, err)
		real, err := exec.Command(checkconf, "-p", root+namedFile).Output()
		require.NoError(t, err)
		assert.Equal(t, statements(string(real)), statements(canonical(tree, "", false)), name)

		z, errs := loadZones(read, root+namedFile)
		require.Empty(t, errs)
		for _, one := range z.list {
			assert.Contains(t, string(out), "zone "+one.origin+"/IN: loaded serial ")
			file := map[string]string{"lab.example": zoneFile, "router.lab.example": routerFile, "ops.example": handZoneFile}[one.origin]
			text, err := exec.Command(compile, "-q", "-i", "none", "-k", "ignore", "-n", "ignore", "-o", "-", one.origin, root+file).Output()
			require.NoError(t, err)
			var real, ours []string
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); f[3] != "SOA" {
					real = append(real, strings.TrimSuffix(f[0], ".")+" "+f[3]+" "+strings.TrimSuffix(f[4], "."))
				}
			}
			for _, r := range one.records {
				if s := r.String(); !strings.HasSuffix(s, " SOA") {
					ours = append(ours, s)
				}
			}
			assert.ElementsMatch(t, real, ours, one.origin)
		}

		for what, broken := range map[string]map[string]string{
			"no semicolon": {namedLocal: files[namedLocal] + "zone \"x\" { type master }\n"},
			"no option":    {namedOptions: strings.Replace(files[namedOptions], "options", "optoins", 1)},
			"no record":    {zoneFile: files[zoneFile] + "bad\tIN\tA\t192.0.2.900\n"},
			"no file":      {namedLocal: strings.Replace(files[namedLocal], "db.lab.example", "db.gone", 1)},
			"no include":   {namedFile: "include \"/etc/bind/gone\";\n"},
		} {
			lead := strings.NewReplacer("/etc/bind", root+"/etc/bind", "/var/lib/bind", root+"/var/lib/bind", "/var/cache/bind", root+"/var/cache/bind")
			for file, text := range broken {
				good, err := os.ReadFile(root + file)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(root+file, []byte(lead.Replace(text)), 0o644))
				out, err := exec.Command(checkconf, "-z", root+namedFile).CombinedOutput()
				require.Error(t, err, "%s: %s", what, out)
				_, errs := loadZones(read, root+namedFile)
				assert.NotEmpty(t, errs, what)
				require.NoError(t, os.WriteFile(root+file, good, 0o644))
			}
		}
	}
}

// statements are the lines of a canonical configuration in one order, with the
// blanks and lengths of single addresses that programs add.
func statements(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.ReplaceAll(strings.Join(strings.Fields(line), " "), "/32;", ";")
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

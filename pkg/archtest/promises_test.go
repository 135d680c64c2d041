package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPromisesNameRealTests: every test that docs/promises.md names stands in the package that it names it for.
func TestPromisesNameRealTests(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs/promises.md"))
	require.NoError(t, err)
	quoted, function := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
	sources, named := map[string]string{}, 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		pkg := "testkit/fleettest"
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			name := m[1]
			if !function.MatchString(name) {
				if info, err := os.Stat(filepath.Join(root, "pkg", name)); err == nil && info.IsDir() {
					pkg = name
				}
				continue
			}
			if _, ok := sources[pkg]; !ok {
				files, err := filepath.Glob(filepath.Join(root, "pkg", pkg, "*_test.go"))
				require.NoError(t, err)
				for _, f := range files {
					b, err := os.ReadFile(f)
					require.NoError(t, err)
					sources[pkg] += string(b)
				}
			}
			named++
			require.Contains(t, sources[pkg], "\nfunc "+name+"(", "docs/promises.md names a test of pkg/%s that is not there", pkg)
		}
	}
	require.Greater(t, named, 50)
}

package archtest

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const repoRoot = "../.."

func TestArchitecture(t *testing.T) {
	faults, err := check(os.DirFS(repoRoot))
	require.NoError(t, err)
	for _, f := range faults {
		t.Error(f)
	}
}

func TestRootAndPkgHoldOnlyWhatTheyShould(t *testing.T) {
	ignore, err := os.ReadFile(repoRoot + "/.gitignore")
	require.NoError(t, err)
	artefacts := strings.Fields(strings.ReplaceAll(string(ignore), "/", ""))
	for _, name := range names(t, repoRoot) {
		if !strings.HasPrefix(name, ".") && !slices.Contains(artefacts, name) {
			require.Contains(t, rootNames, name, "the root of the repository")
		}
	}
	for _, name := range names(t, repoRoot+"/pkg") {
		require.Contains(t, pkgNames, name, "pkg")
	}
}

func names(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestTableIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range table {
		require.False(t, seen[r.pkg], "two rows for %s", r.pkg)
		seen[r.pkg] = true
		for _, p := range r.importers {
			if strings.HasPrefix(p, "@") || strings.HasSuffix(p, "/") {
				continue
			}
			user, ok := find(p)
			require.True(t, ok, "%s may be imported by %s, which has no row", r.pkg, p)
			require.GreaterOrEqual(t, user.layer, r.layer, "%s may be imported by %s of a lower layer", r.pkg, p)
		}
	}
}

// TestPlantedFaults shows that each rule bites, and that what it allows stays allowed.
func TestPlantedFaults(t *testing.T) {
	const ours = module + "/pkg/"
	for _, tc := range []struct {
		name, file, clause string
		imports            []string
		want               string // "" if it is fine
	}{
		{"down", "pkg/service/room/x.go", "room", []string{ours + "matrix/event", ours + "store/roomdb", ours + "shardlog/commit"}, ""},
		{"parent", "pkg/service/room/roomrpc/x.go", "roomrpc", []string{ours + "service/room", ours + "shardlog/wire"}, ""},
		{"own internal part", "pkg/service/room/x.go", "room", []string{ours + "service/room/internal/actor"}, ""},
		{"test kit in a test", "pkg/store/roomdb/x_test.go", "roomdb", []string{ours + "testkit/pgtest", "github.com/jackc/pgx/v5"}, ""},
		{"a test across layers", "pkg/shardlog/commit/x_test.go", "commit_test", []string{ours + "store/commitdb"}, ""},
		{"a driver in its place", "pkg/store/roomdb/x.go", "roomdb", []string{"github.com/jackc/pgx/v5", ours + "infra/pg"}, ""},
		{"a parser in the core", "pkg/matrix/id/x.go", "id", []string{"net/netip", "strings"}, ""},
		{"fleettest starts workers", "pkg/testkit/fleettest/x.go", "fleettest", []string{ours + "app", "github.com/stretchr/testify/require"}, ""},
		{"the otel API", "pkg/service/room/x.go", "room", []string{"go.opentelemetry.io/otel/trace"}, ""},

		{"sideways", "pkg/service/room/x.go", "room", []string{ours + "service/typing"}, "sideways"},
		{"sideways in the store", "pkg/store/roomdb/x.go", "roomdb", []string{ours + "store/feddb"}, "sideways"},
		{"a child by its parent", "pkg/service/room/x.go", "room", []string{ours + "service/room/roomrpc"}, "sideways"},
		{"upward", "pkg/store/roomdb/x.go", "roomdb", []string{ours + "service/room"}, "upward"},
		{"upward from a test inside", "pkg/store/roomdb/x_test.go", "roomdb", []string{ours + "service/room"}, "upward"},
		{"skipped layer", "pkg/api/write/x.go", "write", []string{ours + "store/roomdb"}, "only ["},
		{"handlers do not commit", "pkg/api/write/x.go", "write", []string{ours + "shardlog/commit"}, "only ["},
		{"infra knows no Matrix", "pkg/infra/pg/x.go", "pg", []string{ours + "matrix/id"}, "sideways"},
		{"the core knows no infra", "pkg/matrix/id/x.go", "id", []string{ours + "infra/cache"}, "sideways"},
		{"impure: clock", "pkg/matrix/event/x.go", "event", []string{"time"}, "pure"},
		{"impure: below a ban", "pkg/matrix/event/x.go", "event", []string{"log/slog"}, "pure"},
		{"impure: sockets", "pkg/matrix/event/x.go", "event", []string{"net/http"}, "pure"},
		{"impure: a library", "pkg/matrix/event/x.go", "event", []string{"golang.org/x/sync/errgroup"}, "pure"},
		{"driver: pgx", "pkg/service/room/x.go", "room", []string{"github.com/jackc/pgx/v5/pgxpool"}, "PostgreSQL"},
		{"driver: nats", "pkg/shardlog/follow/x.go", "follow", []string{"github.com/nats-io/nats.go"}, "NATS"},
		{"driver: redis", "pkg/api/auth/x.go", "auth", []string{"github.com/redis/go-redis/v9"}, "Redis"},
		{"otel SDK", "pkg/service/room/x.go", "room", []string{"go.opentelemetry.io/otel/sdk/trace"}, "SDK"},
		{"HTTP in a service", "pkg/service/room/x.go", "room", []string{"net/http"}, "HTTP"},
		{"assertions in code", "pkg/service/room/x.go", "room", []string{"github.com/stretchr/testify/require"}, "assert"},
		{"test kit in code", "pkg/service/room/x.go", "room", []string{ours + "testkit/pgtest"}, "for tests"},
		{"a kit that starts workers", "pkg/testkit/pgtest/x.go", "pgtest", []string{ours + "app"}, "fleettest"},
		{"the mains stay thin", "cmd/master/x.go", "main", []string{ours + "service/room"}, "only ["},
		{"routes are for cmd/heddle", "cmd/master/x.go", "main", []string{ours + "route"}, "only ["},
		{"archtest", "pkg/service/room/x_test.go", "room_test", []string{ours + "archtest"}, "nobody"},
		{"unknown target", "pkg/service/room/x.go", "room", []string{ours + "matrix/nonsense"}, "no row"},
		{"unknown package", "pkg/service/nonsense/x.go", "nonsense", nil, "no row"},
		{"unknown part that is not internal", "pkg/service/room/part/x.go", "part", nil, "no row"},
		{"vague name", "pkg/service/room/internal/util/x.go", "util", nil, "says nothing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			faults, err := check(plant(tc.file, tc.clause, tc.imports...))
			require.NoError(t, err)
			if tc.want == "" {
				require.Empty(t, faults)
				return
			}
			require.Len(t, faults, 1)
			require.Contains(t, faults[0], tc.want)
			require.Contains(t, faults[0], tc.file)
		})
	}
}

func TestPlantedDocs(t *testing.T) {
	const room = "pkg/service/room/"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"one", map[string]string{room + "a.go": "// Package room is.\npackage room", room + "b.go": "package room"}, ""},
		{"none", map[string]string{room + "a.go": "package room"}, "0 package comments"},
		{"two", map[string]string{room + "a.go": "// Package room is.\npackage room", room + "b.go": "// Package room is too.\npackage room"}, "2 package comments"},
		{"detached", map[string]string{room + "a.go": "// Package room is.\n\npackage room"}, "0 package comments"},
		{"another's", map[string]string{room + "a.go": "// Package rom is.\npackage room"}, "does not begin"},
		{"a main's", map[string]string{"cmd/master/main.go": "// Command master is.\npackage main"}, ""},
		{"only tests", map[string]string{room + "a_test.go": "package room_test"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := fstest.MapFS{"cmd/x": {}, "pkg/x": {}}
			for name, text := range tc.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			faults, err := check(root)
			require.NoError(t, err)
			if tc.want == "" {
				require.Empty(t, faults)
				return
			}
			require.Len(t, faults, 1)
			require.Contains(t, faults[0], tc.want)
		})
	}
}

// plant returns a repository with one file.
func plant(file, clause string, imports ...string) fstest.MapFS {
	var b strings.Builder
	switch {
	case clause == "main":
		b.WriteString("// Command " + strings.Split(file, "/")[1] + " is planted.\n")
	case !strings.HasSuffix(file, "_test.go"):
		b.WriteString("// Package " + clause + " is planted.\n")
	}
	b.WriteString("package " + clause + "\n")
	for _, imp := range imports {
		b.WriteString("import _ \"" + imp + "\"\n")
	}
	return fstest.MapFS{"cmd/x": {}, "pkg/x": {}, file: {Data: []byte(b.String())}}
}

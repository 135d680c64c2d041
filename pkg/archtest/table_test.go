package archtest

// module is the import path under which everything of ours lives.
const module = "github.com/heddle-im/heddle"

// row describes one package of ours: its layer and who may import it.
//
// An importer is the path of a package (exact), a path that ends in a slash (everything
// below it), or "@N" (every package of layer N and up). Imports run to a lower layer; a
// package of the same layer may be imported only by those named with their path. A
// package's own internal/ folders belong to its row.
type row struct {
	pkg       string
	layer     int
	importers []string
}

// The layers, bottom up.
const (
	layerCore    = 1 // matrix/ and infra/
	layerVocab   = 2 // the words of the log, and the route table
	layerStore   = 3
	layerFleet   = 4 // commit, follow, lease, rpc, remote servers
	layerService = 5
	layerAPI     = 6
	layerConfig  = 7
	layerApp     = 8
	layerCmd     = 9
	layerTest    = 10
)

// Lists of importers that recur.
var (
	everyoneButInfra = []string{"@2", "matrix/"}
	threeAndUp       = []string{"@3"}
	readers          = []string{"service/", "store/commitdb", "app"} // of one aggregate's store
	handlers         = []string{"api/", "config", "app"}             // callers of a service
)

// table is docs/architecture.md's picture of the packages, as data. Keep it in step with
// docs/adr/0001-layout.md.
var table = []row{
	// 1: the specification. Pure: see pureBans.
	{"matrix/id", layerCore, everyoneButInfra},
	{"matrix/mxerr", layerCore, everyoneButInfra},
	{"matrix/canonjson", layerCore, everyoneButInfra},
	{"matrix/roomver", layerCore, everyoneButInfra},
	{"matrix/signing", layerCore, everyoneButInfra},
	{"matrix/event", layerCore, everyoneButInfra},
	{"matrix/eventauth", layerCore, everyoneButInfra},
	{"matrix/stateres", layerCore, everyoneButInfra},
	{"matrix/statemap", layerCore, everyoneButInfra},
	{"matrix/relation", layerCore, everyoneButInfra},
	{"matrix/visibility", layerCore, everyoneButInfra},
	{"matrix/serveracl", layerCore, everyoneButInfra},
	{"matrix/pushrule", layerCore, everyoneButInfra},
	{"matrix/filter", layerCore, everyoneButInfra},
	{"matrix/invitation", layerCore, everyoneButInfra}, // whose invitations a user takes

	// 1: drivers. They know no Matrix and no Heddle.
	{"infra/pg", layerCore, []string{"store/", "config", "app"}},
	{"infra/bus", layerCore, []string{"shardlog/follow", "fleet/", "config", "app"}},
	{"infra/bus/embedded", layerCore, []string{"testkit/", "cmd/heddle"}}, // NATS's server, which no worker should carry
	{"infra/soft", layerCore, []string{"service/account", "service/account/oauth", "service/account/letter", "service/presence", "service/rendezvous", "api/auth", "api/httpx", "config", "app"}},
	{"infra/mail", layerCore, []string{"service/account/letter", "config", "app"}},
	{"infra/blob", layerCore, []string{"service/media", "config", "app"}},
	{"infra/outhttp", layerCore, []string{"remote/", "service/push", "service/appservice", "service/media", "app"}},
	{"infra/cache", layerCore, append([]string{"infra/"}, threeAndUp...)},
	{"infra/lifecycle", layerCore, append([]string{"infra/"}, threeAndUp...)},
	{"infra/telemetry", layerCore, append([]string{"infra/"}, threeAndUp...)},
	{"infra/turns", layerCore, append([]string{"infra/"}, threeAndUp...)},
	{"infra/fault", layerCore, append([]string{"infra/"}, threeAndUp...)},

	// 2: the words of the log, and the route table.
	{"shardlog/shard", layerVocab, append([]string{"shardlog/"}, threeAndUp...)},
	{"shardlog/token", layerVocab, threeAndUp},
	{"shardlog/entry", layerVocab, threeAndUp},
	{"shardlog/wire", layerVocab, []string{"shardlog/", "fleet/rpc", "service/room/roomrpc"}},
	{"route", layerVocab, []string{"route/", "fleet/members", "api/", "app", "cmd/heddle"}},
	{"route/render", layerVocab, []string{"app", "cmd/heddle"}},

	// 3: SQL, row types, readers and multi-row writers of one aggregate each; no decisions.
	{"store/schema", layerStore, []string{"app", "cmd/heddle"}}, // the migrations
	{"store/roomdb", layerStore, append([]string{"store/readdb"}, readers...)},
	{"store/accountdb", layerStore, readers},
	{"store/e2eedb", layerStore, readers},
	{"store/pushdb", layerStore, readers},
	{"store/feddb", layerStore, append([]string{"remote/keyring"}, readers...)},
	{"store/delaydb", layerStore, []string{"service/delay", "api/", "app"}},
	{"store/senderdb", layerStore, []string{"service/sender", "app"}},
	{"store/appservicedb", layerStore, []string{"service/appservice", "app"}},
	{"store/mediadb", layerStore, readers},
	{"store/dirdb", layerStore, readers},
	{"store/searchdb", layerStore, readers},
	{"store/logdb", layerStore, []string{"store/commitdb", "app"}},
	{"store/leasedb", layerStore, []string{"store/commitdb", "fleet/lease", "app"}}, // its row types are what lease decides on
	{"store/fleetdb", layerStore, []string{"store/commitdb", "fleet/members", "fleet/level", "app"}},

	// 4: the fleet.
	{"store/commitdb", layerFleet, []string{"app"}},
	{"store/readdb", layerFleet, readers}, // rooms as a reader sees them: over roomdb
	{"shardlog/commit", layerFleet, []string{"store/commitdb", "shardlog/command", "service/", "app"}},
	{"shardlog/command", layerFleet, []string{"service/account", "service/e2ee", "service/room", "service/room/roomrpc", "app"}},
	{"shardlog/follow", layerFleet, []string{"service/", "app"}},
	{"fleet/lease", layerFleet, []string{"app"}},
	{"fleet/level", layerFleet, []string{"app"}},
	{"fleet/members", layerFleet, []string{"api/", "app"}},
	{"fleet/rpc", layerFleet, []string{"service/room/roomrpc", "app"}},
	{"remote/fedclient", layerFleet, []string{"remote/keyring", "api/auth", "app"}},
	{"remote/keyring", layerFleet, []string{"api/auth", "app"}},
	{"remote/authservice", layerFleet, []string{"app"}},
	{"remote/oidc", layerFleet, []string{"app"}},
	{"remote/identity", layerFleet, []string{"service/account/contact", "api/write", "app"}}, // its types are what an invitation by address is made of

	// 5: one package per thing that the server does. Never a sibling, only one's own parent.
	{"service/room", layerService, append([]string{"service/room/roomrpc", "service/inbound", "service/abroad", "service/policy"}, handlers...)},
	{"service/room/roomrpc", layerService, handlers},
	{"service/account", layerService, append([]string{"service/account/oauth", "service/account/letter", "service/account/sso", "service/account/contact"}, handlers...)},
	{"service/account/letter", layerService, handlers},
	{"service/account/sso", layerService, handlers},
	{"service/account/contact", layerService, handlers}, // what is done at identity servers
	{"service/account/oauth", layerService, []string{"api/web", "app"}},
	{"service/profile", layerService, []string{"app"}},   // a consumer of the log: nobody calls it (docs/adr/0001-layout.md)
	{"service/farewell", layerService, []string{"app"}},  // the same
	{"service/guests", layerService, []string{"app"}},    // the same
	{"service/wordindex", layerService, []string{"app"}}, // the same
	{"service/roomwalk", layerService, []string{"service/profile", "service/farewell", "app"}},
	{"service/e2ee", layerService, handlers},
	{"service/receipt", layerService, handlers},
	{"service/typing", layerService, handlers},
	{"service/presence", layerService, handlers},
	{"service/directory", layerService, handlers},
	{"service/lobby", layerService, handlers}, // rooms, as those are told of them who are not in them
	{"service/media", layerService, handlers},
	{"service/msync", layerService, append([]string{"service/msync/sliding"}, handlers...)},
	{"service/msync/sliding", layerService, handlers},
	{"service/timeline", layerService, handlers},
	{"service/resident", layerService, handlers}, // rooms, as other servers are told of them
	{"service/inbound", layerService, append([]string{"service/abroad"}, handlers...)},
	{"service/abroad", layerService, handlers}, // what users of this server do in rooms that are elsewhere
	{"service/delay", layerService, handlers},
	{"service/policy", layerService, []string{"app"}}, // what policy servers sign
	{"service/notice", layerService, handlers},        // messages of those who run the server to its users
	{"service/sender", layerService, []string{"app"}},
	{"service/push", layerService, handlers},
	{"service/rendezvous", layerService, handlers},
	{"service/appservice", layerService, handlers},
	{"service/janitor", layerService, handlers},

	// 6: HTTP.
	{"api/httpx", layerAPI, []string{"api/", "app"}},
	{"api/auth", layerAPI, []string{"api/", "app"}},
	{"api/forward", layerAPI, []string{"api/", "app"}},
	{"api/web", layerAPI, []string{"app"}},
	{"api/write", layerAPI, []string{"app"}},
	{"api/read", layerAPI, []string{"app"}},
	{"api/federation", layerAPI, []string{"app"}},
	{"api/admin", layerAPI, []string{"app"}},
	{"api/ops", layerAPI, []string{"app"}},

	// 7, 8, 9: composition.
	{"config", layerConfig, []string{"app", "cmd/"}},
	{"app/buildinfo", layerCore, []string{"app", "cmd/"}},
	{"app", layerApp, []string{"cmd/", "testkit/fleettest", "testkit/fedtest"}},
	{"cmd/internal/cli", layerCmd, []string{"cmd/"}},
	{"cmd/master", layerCmd, nil},
	{"cmd/synchrotron", layerCmd, nil},
	{"cmd/federation-reader", layerCmd, nil},
	{"cmd/heddle", layerCmd, nil},

	// 10: for tests. Every _test file may import them.
	{"testkit/pgtest", layerTest, []string{"testkit/"}},
	{"testkit/bustest", layerTest, []string{"testkit/"}},
	{"testkit/redistest", layerTest, []string{"testkit/"}},
	{"testkit/smtptest", layerTest, []string{"testkit/"}},
	{"testkit/certtest", layerTest, []string{"testkit/"}},
	{"testkit/roomtest", layerTest, []string{"testkit/"}},
	{"testkit/fleettest", layerTest, []string{"testkit/"}},
	{"testkit/fedtest", layerTest, []string{"testkit/"}},
	{"archtest", layerTest, nil},
}

// fence keeps an import from outside the module to the packages that may have it. The
// longest matching prefix decides; what no fence names is free, but for the pure core.
// Tests and testkit are exempt.
type fence struct {
	imports string   // import path, with everything below it
	users   []string // as row.importers
	why     string
}

// whole is why a worker may not have what calls methods by a name that is not a constant.
const whole = "it calls methods by name (reflect), so that the linker keeps every method of every package in a worker (docs/adr/0016)"

var fences = []fence{
	{"github.com/jackc/pgx", []string{"infra/pg", "store/"}, "PostgreSQL is reached through infra/pg and store/"},
	{"database/sql", []string{"infra/pg", "store/schema"}, "PostgreSQL is reached through infra/pg and store/"},
	{"github.com/pressly/goose", []string{"infra/pg", "store/schema"}, "migrations are run in one place"},
	{"github.com/exaring/otelpgx", []string{"infra/pg"}, "PostgreSQL is reached through infra/pg and store/"},
	{"github.com/nats-io", []string{"infra/bus", "infra/bus/embedded"}, "NATS is reached through infra/bus"},
	{"github.com/redis", []string{"infra/soft"}, "Redis is reached through infra/soft"},
	{"github.com/wneessen/go-mail", []string{"infra/mail"}, "mail is sent in one place"},
	{"github.com/minio", []string{"infra/blob"}, "blobs are reached through infra/blob"},
	{"github.com/knadh/koanf", []string{"config"}, "only config reads configuration"},
	{"github.com/alecthomas/kong", []string{"cmd/heddle"}, whole},
	{"text/template", nil, whole},
	{"html/template", nil, whole},
	{"net/rpc", nil, whole},
	{"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp", nil, whole},
	{"go.opentelemetry.io/proto/otlp/collector", nil, whole},
	{"google.golang.org/grpc", nil, whole},
	{"maragu.dev/gomponents", []string{"api/"}, "pages are made at the edge"},
	{"flag", []string{"cmd/"}, "flags belong to the mains"},
	{"github.com/gorilla/mux", []string{"api/", "app"}, "HTTP routing belongs to api/"},
	{"go.opentelemetry.io/otel/sdk", []string{"infra/telemetry"}, "the OpenTelemetry SDK is set up in one place; others use its API"},
	{"go.opentelemetry.io/otel/exporters", []string{"infra/telemetry"}, "the OpenTelemetry SDK is set up in one place; others use its API"},
	{"google.golang.org/protobuf", []string{"shardlog/", "fleet/rpc", "service/room/roomrpc", "infra/telemetry"}, "protobuf is the form of the wire, not of our types"},
	{"net/http", []string{
		"infra/bus", "infra/blob", "infra/telemetry", "fleet/rpc", "fleet/members", "remote/",
		"service/push", "service/appservice", "service/media", // they are clients of others
		"api/", "app",
	}, "services know no HTTP"},
	{"github.com/stretchr/testify", nil, "only tests assert"},
	{"github.com/google/go-cmp", nil, "only tests compare"},
	{"go.uber.org/goleak", nil, "only tests look for leaks"},
	{"pgregory.net/rapid", nil, "only tests generate"},
	{"testing", nil, "only tests test"},
	{"unsafe", []string{"shardlog/wire"}, "only generated code has need of it"},
	{"plugin", nil, "we have no need of it"},
}

// The core computes: bytes in, values or numbered errors out. Time and randomness are
// arguments. pureBans are import paths with everything below them, purePardons what is
// allowed none the less, pureOutside the only other modules that the core may use.
var (
	pureBans = []string{
		"context", "time", "math/rand", "crypto/rand", "sync", "os", "io/fs", "io/ioutil", "net", "log", "syscall",
		"runtime", "embed", "unsafe", "plugin", "testing",
	}
	purePardons = []string{"net/netip", "net/url"} // parsers, not sockets
	pureOutside = []string{
		"github.com/go-json-experiment/json", "github.com/tidwall/gjson", "github.com/RoaringBitmap/roaring",
		"github.com/cespare/xxhash", "golang.org/x/crypto",
	}
)

// vagueNames say nothing about what a package is for.
var vagueNames = []string{"util", "utils", "common", "types", "helpers", "helper", "misc", "base", "shared"}

// rootNames are the only names at the root of the repository, beside dot files and what
// .gitignore names.
var rootNames = []string{
	"cmd", "docs", "deploy", "helm", "pkg", "go.mod", "go.sum", "Makefile",
	"LICENSE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md",
}

// pkgNames are the only names in pkg.
var pkgNames = []string{
	"api", "app", "archtest", "config", "fleet", "infra", "matrix", "remote", "route", "service", "shardlog", "store", "testkit",
}

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDefaultsOfTheAllInOneNeedNothing(t *testing.T) {
	c, err := Load(Source{Embedded: true})
	require.NoError(t, err)
	require.Equal(t, "localhost", c.ServerName)
	require.Equal(t, "127.0.0.1:8008", c.Listen.HTTP)
	require.Equal(t, "./data/signing.key", c.SigningKeyPath)
	require.Equal(t, 16, c.Shards)
	require.Equal(t, Roles(), c.Roles)
	require.True(t, c.Memory.Budget.Auto())
	require.True(t, c.Registration.Enabled)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(c.Instance, host+"-"), c.Instance)
}

func TestEveryKeyIsRead(t *testing.T) {
	const file = "testdata/full.good.yml"
	c, err := Load(Source{File: file})
	require.NoError(t, err)
	require.Equal(t, "example.org", c.ServerName)
	require.Equal(t, "master-1", c.Instance)
	require.Equal(t, "/etc/heddle/key.pem", c.Listen.TLS.Key)
	require.EqualValues(t, 20, c.Database.MaxConns)
	require.EqualValues(t, 100<<20, c.Media.MaxUpload)
	require.EqualValues(t, 2<<30, c.Memory.Budget.Bytes)
	require.Equal(t, Rate{Count: 30, Per: time.Minute, Burst: 30}, c.RateLimits.CreateRoom)
	require.InDelta(t, 0.5, c.RateLimits.CreateRoom.PerSecond(), 1e-9)
	require.False(t, c.RateLimits.Admin.Limited())
	require.Equal(t, "10.1.0.0/16", c.Federation.AllowNetworks[0].String())
	require.Len(t, c.Federation.DenyNetworks, 1)

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	l := loader{schema: schemaOf(new(Config)), origin: map[string]Error{}}
	require.NoError(t, l.nodes(file, text))
	for path := range l.leaves {
		switch section, _, _ := strings.Cut(path, "."); section {
		case "database", "nats", "redis", "telemetry": // whose packages may add keys
		default:
			require.Contains(t, l.origin, path, "the example leaves a key out")
		}
	}
}

// TestBad loads each testdata/*.bad.yml, whose first line says what must come of it.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			first, _, _ := strings.Cut(string(text), "\n")
			want, ok := strings.CutPrefix(first, "# want: ")
			require.True(t, ok, "no want line")
			if want[0] >= '0' && want[0] <= '9' {
				want = file + ":" + want
			}

			_, err = Load(Source{File: file})
			var e *Error
			require.ErrorAs(t, err, &e)
			require.True(t, strings.HasPrefix(err.Error(), want), "got  %s\nwant %s", err, want)
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "password")
		})
	}
}

func TestEnvironmentGoesOverTheFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("from a file\n"), 0o600))
	c, err := Load(Source{File: "testdata/full.good.yml", Environ: []string{
		"PATH=/bin",
		"HEDDLE_CONFIG=elsewhere.yml",
		"HEDDLE_SERVER_NAME=other.org",
		"HEDDLE_DATABASE_DSN=postgres://other/db",
		"HEDDLE_DATABASE_MAX_CONNS=7",
		"HEDDLE_ROLES=push, background",
		"HEDDLE_PRESENCE_ENABLED=false",
		"HEDDLE_MEDIA_MAX_UPLOAD=1GiB",
		"HEDDLE_FEDERATION_DENY_NETWORKS=",
		"HEDDLE_FEDERATION_ALLOW_NETWORKS=10.2.0.0/16,10.3.0.0/16",
		"HEDDLE_REGISTRATION_SHARED_SECRET_FILE=" + secret,
		"HEDDLE_MASTER_SERVICE_HOST=10.0.0.1",
		"HEDDLE_MASTER_SERVICE_PORT_HTTP=8008",
		"HEDDLE_MASTER_PORT=tcp://10.0.0.1:8008",
		"HEDDLE_MASTER_PORT_8008_TCP_ADDR=10.0.0.1",
		"HEDDLE_TEST_DATABASE=x",
		"HEDDLE_TELEMETRY_SAMPLE_RATIO=0.25",
	}})
	require.NoError(t, err)
	require.Equal(t, "other.org", c.ServerName)
	require.Equal(t, "postgres://other/db", c.Database.DSN)
	require.EqualValues(t, 7, c.Database.MaxConns)
	require.Equal(t, []Role{RolePush, RoleBackground}, c.Roles)
	require.False(t, c.Presence.Enabled)
	require.EqualValues(t, 1<<30, c.Media.MaxUpload)
	require.Empty(t, c.Federation.DenyNetworks)
	require.Len(t, c.Federation.AllowNetworks, 2)
	require.InDelta(t, 0.25, *c.Telemetry.SampleRatio, 0)
	require.Equal(t, "from a file", c.Registration.SharedSecret)
	require.Equal(t, "master-1", c.Instance, "what the environment leaves stays")
}

func TestBadEnvironment(t *testing.T) {
	for _, tc := range []struct{ env, want string }{
		{"HEDDLE_SHARDS=many", `HEDDLE_SHARDS: shards: want a whole number, got "many"`},
		{"HEDDLE_SHARDS=0", "HEDDLE_SHARDS: shards: must be from 1 to 256"},
		{"HEDDLE_PRESENCE_ENABLED=1", `HEDDLE_PRESENCE_ENABLED: presence.enabled: want true or false, got "1"`},
		{"HEDDLE_ROLES=writer,cook", `HEDDLE_ROLES: roles: there is no role "cook"`},
		{"HEDDLE_DATABSE_DSN=x", "HEDDLE_DATABSE_DSN: unknown environment variable: no key has this name"},
		{"HEDDLE_LOG_LEVEL_FILE=x", "HEDDLE_LOG_LEVEL_FILE: unknown environment variable: no key has this name"},
		{"HEDDLE_REDIS_URL_FILE=/nonexistent", "HEDDLE_REDIS_URL_FILE: redis.url_file: open /nonexistent: no such file or directory"},
	} {
		t.Run(tc.env, func(t *testing.T) {
			_, err := Load(Source{Environ: []string{tc.env}, Embedded: true})
			require.EqualError(t, err, tc.want)
		})
	}
}

func TestAbsentFile(t *testing.T) {
	_, err := Load(Source{File: "testdata/none.yml"})
	require.EqualError(t, err, "open testdata/none.yml: no such file or directory")
}

func TestEmptyValuesSayNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "~", "shards:\nlisten:\nlog:\n  level:\n"} {
		c, err := load(Source{File: "x.yml", Embedded: true}, []byte(text))
		require.NoError(t, err, "%q", text)
		require.Equal(t, 16, c.Shards)
		require.Equal(t, "info", c.Log.Level)
	}
}

func TestDataMovesWithItsFolder(t *testing.T) {
	c, err := Load(Source{Environ: []string{"HEDDLE_DATA_DIR=/srv/heddle"}, Embedded: true})
	require.NoError(t, err)
	require.Equal(t, "/srv/heddle/media", c.Media.Path)
	require.Equal(t, "/srv/heddle/signing.key", c.SigningKeyPath)
}

func TestAdvertiseAddress(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	for _, tc := range []struct{ http, advertise, want string }{
		{"127.0.0.1:8008", "", "127.0.0.1:8008"},
		{"worker-3:8008", "", "worker-3:8008"},
		{":8008", "", host + ":8008"},
		{"0.0.0.0:8008", "", host + ":8008"},
		{"[::]:8008", "", host + ":8008"},
		{":8008", "10.0.0.5:80", "10.0.0.5:80"},
	} {
		got, err := Config{Listen: Listen{HTTP: tc.http, Advertise: tc.advertise}}.AdvertiseAddress()
		require.NoError(t, err)
		require.Equal(t, tc.want, got)
	}
}

// TestEnvironmentNamesAreDistinct: `a.b_c` and `a_b.c` would share one.
func TestEnvironmentNamesAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for path, l := range schemaOf(new(Config)).leaves {
		names := []string{l.env()}
		if l.secret {
			names = append(names, envName(path+fileSuffix))
		}
		for _, n := range names {
			require.Empty(t, seen[n], "%s and %s", path, seen[n])
			require.False(t, foreign(n) && !strings.Contains(path, "port"), "%s is taken for another program's", n)
			seen[n] = path
		}
	}
}

func TestAssignDuration(t *testing.T) {
	var c struct {
		D time.Duration `koanf:"d"`
	}
	leaves := map[string]leaf{}
	walkForTest(&c, leaves)
	require.NoError(t, assign(leaves["d"].value, "90s"))
	require.Equal(t, 90*time.Second, c.D)
	require.EqualError(t, assign(leaves["d"].value, 90), "want a duration such as 30s, got 90")
	require.EqualError(t, assign(leaves["d"].value, "soon"), `want a duration such as 30s, got "soon"`)
}

func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Min(0).Draw(t, "bytes"))
		var back Bytes
		require.NoError(t, back.UnmarshalText([]byte(b.String())))
		require.Equal(t, b, back)
	})
	for text, want := range map[string]Bytes{"0": 0, "512": 512, "1KB": 1000, "1KiB": 1024, " 3 GiB ": 3 << 30, "2TB": 2e12} {
		var b Bytes
		require.NoError(t, b.UnmarshalText([]byte(text)))
		require.Equal(t, want, b)
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yml")
	require.NoError(f, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := load(Source{File: "x.yml", Embedded: true}, text)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		if err == nil && (c.Shards < 1 || c.ServerName == "" || len(c.Roles) == 0) {
			t.Fatalf("what is not valid passed: %+v", c)
		}
	})
}

func TestSupportIsChecked(t *testing.T) {
	require.NoError(t, Support{Page: "https://a.example", AdminMatrixID: "@a:a.example", SecurityEmail: "s@a.example"}.Validate())
	require.ErrorContains(t, Support{Page: "a.example"}.Validate(), "page")
	require.ErrorContains(t, Support{AdminMatrixID: "a"}.Validate(), "admin_matrix_id")
	require.ErrorContains(t, Support{SecurityMatrixID: "a"}.Validate(), "security_matrix_id")
}

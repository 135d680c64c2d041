package app

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func TestMigrate(t *testing.T) {
	db := pgtest.New(t, pgtest.Empty())
	cfg := config.Default(false)
	cfg.Database.DSN = db.DSN

	var out bytes.Buffer
	require.ErrorIs(t, Migrate(t.Context(), cfg, true, &out), pg.ErrSchemaVersion)
	require.Empty(t, out.String())
	require.NoError(t, Migrate(t.Context(), cfg, false, &out))
	require.NoError(t, Migrate(t.Context(), cfg, false, &out), "a second time does nothing")
	out.Reset()
	require.NoError(t, Migrate(t.Context(), cfg, true, &out))
	require.Contains(t, out.String(), "0 to apply")
}

func TestMigrateWithoutADatabase(t *testing.T) {
	err := Migrate(t.Context(), config.Default(true), false, nil)
	require.EqualError(t, err, "database.dsn: must be set")
}

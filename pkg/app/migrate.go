package app

import (
	"context"
	"fmt"
	"io"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/store/schema"
)

// Migrate brings the database's schema to what this binary needs and says on out what it did. With check it changes
// nothing, and its error says why this binary could not run on the database as it is.
func Migrate(ctx context.Context, cfg config.Config, check bool, out io.Writer) error {
	if cfg.Database.DSN == "" {
		return &config.Error{Key: "database.dsn", Problem: "must be set"}
	}
	m, err := pg.NewMigrator(cfg.Database, schema.FS, pg.SchemaRange{Min: schema.Min, Max: schema.Max, Oldest: schema.Oldest}, nil)
	if err != nil {
		return err
	}
	if check {
		st, err := m.Check(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "schema version %d; this binary works with %d to %d; %d to apply\n",
			st.Version, schema.Min, schema.Max, len(st.Pending))
		return err
	}
	version, err := m.Up(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "schema version %d\n", version)
	return err
}

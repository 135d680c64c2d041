package fleetdb

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/standbys.sql
var standbysSQL string

// Standby is a server that replicates from the primary. All but their number is empty to who may not see it.
type Standby struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Sync is sync, quorum, potential or async.
	Sync string `json:"sync"`
	// Behind is in bytes of the write-ahead log.
	Behind int64 `json:"behind_bytes"`
}

// Standbys reads the standbys that are connected to the primary.
func (q *Queries) Standbys(ctx context.Context) ([]Standby, error) {
	rows, err := q.db.Query(ctx, standbysSQL)
	if err != nil {
		return nil, fmt.Errorf("read the standbys: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Standby])
	if err != nil {
		return nil, fmt.Errorf("read the standbys: %w", err)
	}
	return list, nil
}

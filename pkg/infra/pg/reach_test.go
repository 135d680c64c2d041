package pg

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func TestAnUnreachableDatabaseIsOneLine(t *testing.T) {
	_, err := pgx.Connect(t.Context(), "postgres://u@127.0.0.1:1/x")
	require.Contains(t, err.Error(), "\n", "it is worth the trouble")
	said := reached(err)
	require.Equal(t, "failed to connect to `user=u database=x`: 127.0.0.1:1 (127.0.0.1): "+
		"dial error: dial tcp 127.0.0.1:1: connect: connection refused", said.Error())
	var c *pgconn.ConnectError
	require.ErrorAs(t, said, &c)
	require.True(t, IsConnection(said))
	other := errors.New("a\nb")
	require.Equal(t, other, reached(other))
}

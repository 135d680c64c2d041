package pg

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unreachable puts what pgconn says of each address, which is a line each and often twice the same, on one line.
type unreachable struct {
	err  error
	text string
}

func (e *unreachable) Error() string { return e.text }

func (e *unreachable) Unwrap() error { return e.err }

// reached returns err, said in one line if it is that of a connection that could not be made.
func reached(err error) error {
	var c *pgconn.ConnectError
	if !errors.As(err, &c) {
		return err
	}
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSpace(line); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	text := lines[0]
	if len(lines) > 1 {
		text += " " + strings.Join(lines[1:], "; ")
	}
	return &unreachable{err: err, text: text}
}

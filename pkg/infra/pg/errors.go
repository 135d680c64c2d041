package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrUnknownOutcome is wrapped by the error of a COMMIT whose result never
// arrived: the transaction may be there or not, and may even still be running
// on the server. Whoever gets it must fence first and only then look.
var ErrUnknownOutcome = errors.New("outcome of the commit is unknown")

// SQLSTATE codes that callers tell apart.
const (
	codeUniqueViolation     = "23505"
	codeForeignKeyViolation = "23503"
	codeCheckViolation      = "23514"
	codeSerialization       = "40001"
	codeDeadlock            = "40P01"
	codeLockNotAvailable    = "55P03"
	codeQueryCanceled       = "57014"
	codeUndefinedTable      = "42P01"
	codeCannotConnectNow    = "57P03"
	codeReadOnly            = "25006"
)

// Wrap says in an error what was being done, and is nil if there is none.
func Wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func hasCode(err error, codes ...string) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	for _, c := range codes {
		if pe.Code == c {
			return true
		}
	}
	return false
}

// IsUniqueViolation says whether err is a unique violation, of one of the
// constraints if any are named.
func IsUniqueViolation(err error, constraints ...string) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != codeUniqueViolation {
		return false
	}
	for _, c := range constraints {
		if pe.ConstraintName == c {
			return true
		}
	}
	return len(constraints) == 0
}

// IsForeignKeyViolation says whether err is a foreign key violation.
func IsForeignKeyViolation(err error) bool { return hasCode(err, codeForeignKeyViolation) }

// IsCheckViolation says whether err is a check violation.
func IsCheckViolation(err error) bool { return hasCode(err, codeCheckViolation) }

// IsSerialization says whether the transaction lost against another one and
// may succeed if it is run again from its beginning: a serialization failure
// or a deadlock.
func IsSerialization(err error) bool { return hasCode(err, codeSerialization, codeDeadlock) }

// IsTimeout says whether the server gave up the statement: statement timeout,
// cancellation, or a lock that was not to be had.
func IsTimeout(err error) bool { return hasCode(err, codeQueryCanceled, codeLockNotAvailable) }

// IsReadOnly says whether a write reached a standby: the sign of a failover.
func IsReadOnly(err error) bool { return hasCode(err, codeReadOnly) }

// IsNoRows says whether a query for one row found none.
func IsNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// IsConnection says whether the connection could not be made or was lost, the
// server ended the session, or it is starting or stopping. It is false for a
// context that ended.
func IsConnection(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return endsSession(pe)
	}
	var ce *pgconn.ConnectError
	var ne net.Error
	return errors.As(err, &ce) || errors.As(err, &ne) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed)
}

// endsSession: class 08 is a connection exception, 57P0x an operator's or the
// server's own shutdown; FATAL and PANIC end the session whatever the code.
func endsSession(pe *pgconn.PgError) bool {
	return strings.HasPrefix(pe.Code, "08") || strings.HasPrefix(pe.Code, "57P") ||
		pe.SeverityUnlocalized == "FATAL" || pe.SeverityUnlocalized == "PANIC"
}

// commitError classifies the error of a COMMIT that was begun on a connection
// that was open. pgconn.SafeToRetry must not be asked here: when the connection is
// lost while the answer is awaited, pgx 5.12 says "conn closed", which claims
// to be safe although the COMMIT was sent and may have been done.
func commitError(err error) error {
	if err == nil || errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, pgx.ErrTxClosed) {
		return err
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) && !endsSession(pe) {
		return err // the server says that it did not commit
	}
	return &unknownOutcomeError{cause: err}
}

type unknownOutcomeError struct{ cause error }

func (e *unknownOutcomeError) Error() string {
	return ErrUnknownOutcome.Error() + ": " + e.cause.Error()
}

func (e *unknownOutcomeError) Unwrap() []error { return []error{ErrUnknownOutcome, e.cause} }

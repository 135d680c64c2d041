package mxerr

// The constructors below are the usual ones; for the others there is New.

// Forbidden is 403 M_FORBIDDEN.
func Forbidden(message string) *Error { return New(CodeForbidden, message) }

// NotFound is 404 M_NOT_FOUND.
func NotFound(message string) *Error { return New(CodeNotFound, message) }

// BadJSON is 400 M_BAD_JSON: valid JSON, but not what is wanted.
func BadJSON(message string) *Error { return New(CodeBadJSON, message) }

// NotJSON is 400 M_NOT_JSON.
func NotJSON(message string) *Error { return New(CodeNotJSON, message) }

// InvalidParam is 400 M_INVALID_PARAM.
func InvalidParam(message string) *Error { return New(CodeInvalidParam, message) }

// MissingParam is 400 M_MISSING_PARAM.
func MissingParam(message string) *Error { return New(CodeMissingParam, message) }

// MissingToken is 401 M_MISSING_TOKEN.
func MissingToken() *Error { return New(CodeMissingToken, "Missing access token") }

// UnknownToken is 401 M_UNKNOWN_TOKEN; softLogout tells a client to keep its keys.
func UnknownToken(message string, softLogout bool) *Error {
	e := New(CodeUnknownToken, message)
	if softLogout {
		return e.With("soft_logout", true)
	}
	return e
}

// Unauthorized is 401 M_UNAUTHORIZED: a federation request without a valid signature.
func Unauthorized(message string) *Error { return New(CodeUnauthorized, message) }

// Unrecognized is 404 M_UNRECOGNIZED: no such endpoint.
func Unrecognized() *Error { return New(CodeUnrecognized, "Unrecognized request") }

// MethodNotAllowed is 405 M_UNRECOGNIZED.
func MethodNotAllowed() *Error {
	return New(CodeUnrecognized, "Method not allowed").WithStatus(405)
}

// LimitExceeded is 429 M_LIMIT_EXCEEDED.
func LimitExceeded(retryAfterMS int64) *Error {
	return New(CodeLimitExceeded, "Too many requests").With("retry_after_ms", max(retryAfterMS, 0))
}

// TooLarge is 413 M_TOO_LARGE.
func TooLarge(message string) *Error { return New(CodeTooLarge, message) }

// IncompatibleRoomVersion is 400 M_INCOMPATIBLE_ROOM_VERSION, naming the room's version.
func IncompatibleRoomVersion(version string) *Error {
	return New(CodeIncompatibleRoomVersion, "Your homeserver does not support the features required to join this room").
		With("room_version", version)
}

// UnsupportedRoomVersion is 400 M_UNSUPPORTED_ROOM_VERSION.
func UnsupportedRoomVersion() *Error {
	return New(CodeUnsupportedRoomVersion, "This room version is not supported")
}

// ResourceLimitExceeded is 403 M_RESOURCE_LIMIT_EXCEEDED.
func ResourceLimitExceeded(message, adminContact string) *Error {
	return New(CodeResourceLimitExceeded, message).With("admin_contact", adminContact)
}

// WrongRoomKeysVersion is 403 M_WRONG_ROOM_KEYS_VERSION, naming the current version.
func WrongRoomKeysVersion(current string) *Error {
	return New(CodeWrongRoomKeysVersion, "Wrong backup version").With("current_version", current)
}

// Unavailable is 503 M_UNKNOWN: try again later.
func Unavailable(message string, cause error) *Error {
	return New(CodeUnknown, message).WithStatus(503).Wrap(cause)
}

// Internal is 500 M_UNKNOWN, saying nothing of its cause.
func Internal(cause error) *Error { return New(CodeUnknown, "Internal server error").Wrap(cause) }

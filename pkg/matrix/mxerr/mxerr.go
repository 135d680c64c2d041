// Package mxerr holds every error code that a Matrix server answers, once, and the error value that carries one from where
// it is found to the edge that answers it.
//
// An [Error] has two sides: what a stranger may know (status, errcode, text, further members), and the cause, which is for
// the log alone. The package is pure; it may be imported by every package.
package mxerr

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// Code is an errcode of the specification, without further information.
type Code string

// The codes of the client-server and server-server specifications, and those of proposals that clients know.
const (
	AppserviceLoginUnsupported  Code = "M_APPSERVICE_LOGIN_UNSUPPORTED"
	BadAlias                    Code = "M_BAD_ALIAS"
	BadJSON                     Code = "M_BAD_JSON"
	BadState                    Code = "M_BAD_STATE"
	BadStatus                   Code = "M_BAD_STATUS"
	CannotLeaveServerNoticeRoom Code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
	CannotOverwriteMedia        Code = "M_CANNOT_OVERWRITE_MEDIA"
	CaptchaInvalid              Code = "M_CAPTCHA_INVALID"
	CaptchaNeeded               Code = "M_CAPTCHA_NEEDED"
	ConflictingUnsubscription   Code = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION" // unstable
	ConnectionFailed            Code = "M_CONNECTION_FAILED"
	ConnectionTimeout           Code = "M_CONNECTION_TIMEOUT"
	ConsentNotGiven             Code = "M_CONSENT_NOT_GIVEN" // not in the specification; clients know it
	DestinationRejected         Code = "M_DESTINATION_REJECTED"
	DuplicateAnnotation         Code = "M_DUPLICATE_ANNOTATION"
	EmailSendError              Code = "M_EMAIL_SEND_ERROR"
	Exclusive                   Code = "M_EXCLUSIVE"
	Forbidden                   Code = "M_FORBIDDEN"
	GuestAccessForbidden        Code = "M_GUEST_ACCESS_FORBIDDEN"
	IncompatibleRoomVersion     Code = "M_INCOMPATIBLE_ROOM_VERSION"
	InvalidAddress              Code = "M_INVALID_ADDRESS"
	InvalidEmail                Code = "M_INVALID_EMAIL"
	InvalidParam                Code = "M_INVALID_PARAM"
	InvalidPepper               Code = "M_INVALID_PEPPER"
	InvalidRoomState            Code = "M_INVALID_ROOM_STATE"
	InvalidSignature            Code = "M_INVALID_SIGNATURE"
	InvalidUsername             Code = "M_INVALID_USERNAME"
	InviteBlocked               Code = "M_INVITE_BLOCKED"
	KeyTooLarge                 Code = "M_KEY_TOO_LARGE"
	LimitExceeded               Code = "M_LIMIT_EXCEEDED"
	MissingParam                Code = "M_MISSING_PARAM"
	MissingParams               Code = "M_MISSING_PARAMS" // as identity servers spell it
	MissingToken                Code = "M_MISSING_TOKEN"
	NotFound                    Code = "M_NOT_FOUND"
	NotJSON                     Code = "M_NOT_JSON"
	NotInThread                 Code = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD" // unstable
	NotYetUploaded              Code = "M_NOT_YET_UPLOADED"
	NoValidSession              Code = "M_NO_VALID_SESSION"
	ProfileTooLarge             Code = "M_PROFILE_TOO_LARGE"
	ResourceLimitExceeded       Code = "M_RESOURCE_LIMIT_EXCEEDED"
	RoomInUse                   Code = "M_ROOM_IN_USE"
	SendError                   Code = "M_SEND_ERROR"
	ServerNotTrusted            Code = "M_SERVER_NOT_TRUSTED"
	SessionExpired              Code = "M_SESSION_EXPIRED"
	SessionNotValidated         Code = "M_SESSION_NOT_VALIDATED"
	TermsNotSigned              Code = "M_TERMS_NOT_SIGNED"
	ThreepidAuthFailed          Code = "M_THREEPID_AUTH_FAILED"
	ThreepidDenied              Code = "M_THREEPID_DENIED"
	ThreepidInUse               Code = "M_THREEPID_IN_USE"
	ThreepidMediumNotSupported  Code = "M_THREEPID_MEDIUM_NOT_SUPPORTED"
	ThreepidNotFound            Code = "M_THREEPID_NOT_FOUND"
	TokenIncorrect              Code = "M_TOKEN_INCORRECT"
	TooLarge                    Code = "M_TOO_LARGE"
	UnableToAuthoriseJoin       Code = "M_UNABLE_TO_AUTHORISE_JOIN"
	UnableToGrantJoin           Code = "M_UNABLE_TO_GRANT_JOIN"
	Unauthorized                Code = "M_UNAUTHORIZED"
	Unknown                     Code = "M_UNKNOWN"
	UnknownDevice               Code = "M_UNKNOWN_DEVICE"
	UnknownPos                  Code = "M_UNKNOWN_POS"
	UnknownToken                Code = "M_UNKNOWN_TOKEN"
	Unrecognized                Code = "M_UNRECOGNIZED"
	UnsupportedRoomVersion      Code = "M_UNSUPPORTED_ROOM_VERSION"
	URLNotSet                   Code = "M_URL_NOT_SET"
	UserDeactivated             Code = "M_USER_DEACTIVATED"
	UserInUse                   Code = "M_USER_IN_USE"
	UserLimitExceeded           Code = "M_USER_LIMIT_EXCEEDED"
	UserLocked                  Code = "M_USER_LOCKED"
	UserSuspended               Code = "M_USER_SUSPENDED"
	WeakPassword                Code = "M_WEAK_PASSWORD"
	WrongRoomKeysVersion        Code = "M_WRONG_ROOM_KEYS_VERSION"
)

// Status gives the HTTP status that the code is usually answered with.
func (c Code) Status() int {
	switch c {
	case Forbidden, GuestAccessForbidden, Exclusive, UserDeactivated, UserSuspended, ThreepidDenied, InviteBlocked,
		WrongRoomKeysVersion, ResourceLimitExceeded, CannotLeaveServerNoticeRoom, TermsNotSigned, TokenIncorrect,
		UserLimitExceeded, ConsentNotGiven:
		return 403
	case UnknownToken, MissingToken, Unauthorized, UserLocked:
		return 401
	case NotFound, ThreepidNotFound, Unrecognized, NoValidSession:
		return 404
	case LimitExceeded:
		return 429
	case TooLarge:
		return 413
	case CannotOverwriteMedia, ConflictingUnsubscription:
		return 409
	case NotYetUploaded, ConnectionTimeout:
		return 504
	case ConnectionFailed, BadStatus:
		return 502
	case Unknown:
		return 500
	}
	return 400
}

// Error is a refusal. Its exported fields are for the client; the cause is not. Values are immutable: the With methods
// give changed copies.
type Error struct {
	Code       Code
	HTTPStatus int
	Message    string
	// RetryAfterMs is how long to wait, with M_LIMIT_EXCEEDED and with a 503; 0 says nothing.
	RetryAfterMs int64
	// Extra are further members of the error object.
	Extra map[string]any

	cause error
}

// New makes an error with the code's usual status. The text is for the client: it says what was wrong with the request.
func New(c Code, text string) *Error { return &Error{Code: c, HTTPStatus: c.Status(), Message: text} }

// Newf is [New] with a format.
func Newf(c Code, format string, args ...any) *Error { return New(c, fmt.Sprintf(format, args...)) }

// Limited says that the client asks too much, and when it may ask again.
func Limited(retryAfterMs int64) *Error {
	e := New(LimitExceeded, "Too many requests")
	e.RetryAfterMs = retryAfterMs
	return e
}

// Unavailable says that the request cannot be served now, with status 503.
func Unavailable(text string, retryAfterMs int64) *Error {
	e := New(Unknown, text)
	e.HTTPStatus, e.RetryAfterMs = 503, retryAfterMs
	return e
}

// Internal hides a failure behind a 500 without particulars; the cause is for the log.
func Internal(cause error) *Error { return New(Unknown, "Internal server error").WithCause(cause) }

// Error gives the code, the text and the cause: for a log, not for a client.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// WithCause gives a copy with a cause, which is never shown to the client.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// WithStatus gives a copy with another HTTP status than the code's usual one.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.HTTPStatus = status
	return &c
}

// With gives a copy with one more member in the error object. The value must be fit for JSON.
func (e *Error) With(member string, value any) *Error {
	c := *e
	c.Extra = maps.Clone(e.Extra)
	if c.Extra == nil {
		c.Extra = make(map[string]any, 1)
	}
	c.Extra[member] = value
	return &c
}

// Body gives the error object that a client sees.
func (e *Error) Body() map[string]any {
	b := make(map[string]any, 3+len(e.Extra))
	maps.Copy(b, e.Extra)
	b["errcode"], b["error"] = string(e.Code), e.Message
	if e.RetryAfterMs > 0 && e.Code == LimitExceeded {
		b["retry_after_ms"] = e.RetryAfterMs
	}
	return b
}

// From gives the refusal in err's chain, or hides err behind a 500 if there is none.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Internal(err)
}

// Is tells whether err's chain holds a refusal with the code.
func Is(err error, c Code) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == c
}

// AppendJSON appends the error object that a client sees, with its members in order. A further member that is not fit for
// JSON is a mistake in the program, and left out.
func (e *Error) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"errcode":`...)
	dst = canonjson.AppendString(dst, string(e.Code))
	dst = append(dst, `,"error":`...)
	dst = canonjson.AppendString(dst, e.Message)
	body := e.Body()
	for _, member := range slices.Sorted(maps.Keys(body)) {
		if member == "errcode" || member == "error" {
			continue
		}
		value, err := canonjson.Marshal(body[member])
		if err != nil {
			continue
		}
		dst = append(dst, ',')
		dst = canonjson.AppendString(dst, member)
		dst = append(dst, ':')
		dst = append(dst, value...)
	}
	return append(dst, '}')
}

// RetryAfter gives how long the client should wait, in milliseconds; ok is false if the error says nothing of it.
func (e *Error) RetryAfter() (ms int64, ok bool) { return e.RetryAfterMs, e.RetryAfterMs > 0 }

// maxRemote bounds what is read of another server's answer.
const maxRemote = 64 << 10

// Parse reads another server's error answer; ok is false if the body has no errcode. The text is cut to 1,000 bytes: it is
// a stranger's, and not shown as our own.
func Parse(status int, body []byte) (e *Error, ok bool) {
	c, err := canonjson.Canonical(body, canonjson.Options{Mode: canonjson.Lax, MaxSize: maxRemote})
	code, ok := canonjson.GetString(c, "errcode")
	if err != nil || !ok || code == "" || len(code) > 255 {
		return nil, false //nolint:nilerr // not an error object: ok says so
	}
	text, _ := canonjson.GetString(c, "error")
	e = &Error{Code: Code(code), HTTPStatus: status, Message: text[:min(len(text), 1000)]}
	if version, ok := canonjson.GetString(c, "room_version"); ok {
		e = e.With("room_version", version)
	}
	if ms, ok := canonjson.GetInt(c, "retry_after_ms"); ok && ms > 0 {
		e.RetryAfterMs = ms
	}
	return e, true
}

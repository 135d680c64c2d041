package mxerr

// A Code is an errcode of the specification.
type Code string

// Every errcode that this server answers with, and every other one of the specification's.
const (
	CodeAppserviceLoginUnsupported  Code = "M_APPSERVICE_LOGIN_UNSUPPORTED"
	CodeBadAlias                    Code = "M_BAD_ALIAS"
	CodeBadJSON                     Code = "M_BAD_JSON"
	CodeBadState                    Code = "M_BAD_STATE"
	CodeBadStatus                   Code = "M_BAD_STATUS"
	CodeCannotLeaveServerNoticeRoom Code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
	CodeCannotOverwriteMedia        Code = "M_CANNOT_OVERWRITE_MEDIA"
	CodeCaptchaInvalid              Code = "M_CAPTCHA_INVALID"
	CodeCaptchaNeeded               Code = "M_CAPTCHA_NEEDED"
	CodeConnectionFailed            Code = "M_CONNECTION_FAILED"
	CodeConnectionTimeout           Code = "M_CONNECTION_TIMEOUT"
	CodeDestinationRejected         Code = "M_DESTINATION_REJECTED"
	CodeDuplicateAnnotation         Code = "M_DUPLICATE_ANNOTATION"
	CodeEmailSendError              Code = "M_EMAIL_SEND_ERROR"
	CodeExclusive                   Code = "M_EXCLUSIVE"
	CodeForbidden                   Code = "M_FORBIDDEN"
	CodeGuestAccessForbidden        Code = "M_GUEST_ACCESS_FORBIDDEN"
	CodeIncompatibleRoomVersion     Code = "M_INCOMPATIBLE_ROOM_VERSION"
	CodeInvalidAddress              Code = "M_INVALID_ADDRESS"
	CodeInvalidEmail                Code = "M_INVALID_EMAIL"
	CodeInvalidParam                Code = "M_INVALID_PARAM"
	CodeInvalidPepper               Code = "M_INVALID_PEPPER"
	CodeInvalidRoomState            Code = "M_INVALID_ROOM_STATE"
	CodeInvalidSignature            Code = "M_INVALID_SIGNATURE"
	CodeInvalidUsername             Code = "M_INVALID_USERNAME"
	CodeInviteBlocked               Code = "M_INVITE_BLOCKED"
	CodeKeyTooLarge                 Code = "M_KEY_TOO_LARGE"
	CodeLimitExceeded               Code = "M_LIMIT_EXCEEDED"
	CodeMissingParam                Code = "M_MISSING_PARAM"
	CodeMissingParams               Code = "M_MISSING_PARAMS" // identity servers spell it so
	CodeMissingToken                Code = "M_MISSING_TOKEN"
	CodeNotFound                    Code = "M_NOT_FOUND"
	CodeNotJSON                     Code = "M_NOT_JSON"
	CodeNotYetUploaded              Code = "M_NOT_YET_UPLOADED"
	CodeNoValidSession              Code = "M_NO_VALID_SESSION"
	CodeProfileTooLarge             Code = "M_PROFILE_TOO_LARGE"
	CodeResourceLimitExceeded       Code = "M_RESOURCE_LIMIT_EXCEEDED"
	CodeRoomInUse                   Code = "M_ROOM_IN_USE"
	CodeSendError                   Code = "M_SEND_ERROR"
	CodeServerNotTrusted            Code = "M_SERVER_NOT_TRUSTED"
	CodeSessionExpired              Code = "M_SESSION_EXPIRED"
	CodeSessionNotValidated         Code = "M_SESSION_NOT_VALIDATED"
	CodeTermsNotSigned              Code = "M_TERMS_NOT_SIGNED"
	CodeThreePIDAuthFailed          Code = "M_THREEPID_AUTH_FAILED"
	CodeThreePIDDenied              Code = "M_THREEPID_DENIED"
	CodeThreePIDInUse               Code = "M_THREEPID_IN_USE"
	CodeThreePIDMediumNotSupported  Code = "M_THREEPID_MEDIUM_NOT_SUPPORTED"
	CodeThreePIDNotFound            Code = "M_THREEPID_NOT_FOUND"
	CodeTokenIncorrect              Code = "M_TOKEN_INCORRECT"
	CodeTooLarge                    Code = "M_TOO_LARGE"
	CodeUnableToAuthoriseJoin       Code = "M_UNABLE_TO_AUTHORISE_JOIN"
	CodeUnableToGrantJoin           Code = "M_UNABLE_TO_GRANT_JOIN"
	CodeUnauthorized                Code = "M_UNAUTHORIZED"
	CodeUnknown                     Code = "M_UNKNOWN"
	CodeUnknownDevice               Code = "M_UNKNOWN_DEVICE"
	CodeUnknownPos                  Code = "M_UNKNOWN_POS" // sliding sync
	CodeUnknownToken                Code = "M_UNKNOWN_TOKEN"
	CodeUnrecognized                Code = "M_UNRECOGNIZED"
	CodeUnsupportedRoomVersion      Code = "M_UNSUPPORTED_ROOM_VERSION"
	CodeURLNotSet                   Code = "M_URL_NOT_SET"
	CodeUserDeactivated             Code = "M_USER_DEACTIVATED"
	CodeUserInUse                   Code = "M_USER_IN_USE"
	CodeUserLimitExceeded           Code = "M_USER_LIMIT_EXCEEDED"
	CodeUserLocked                  Code = "M_USER_LOCKED"
	CodeUserSuspended               Code = "M_USER_SUSPENDED"
	CodeWeakPassword                Code = "M_WEAK_PASSWORD"
	CodeWrongRoomKeysVersion        Code = "M_WRONG_ROOM_KEYS_VERSION"
)

// Status is the HTTP status that the specification gives the code, or that fits it best; 400 where it
// says nothing and for codes of others.
func (c Code) Status() int {
	switch c {
	case CodeMissingToken, CodeUnknownToken, CodeUserLocked, CodeUnauthorized:
		return 401
	case CodeForbidden, CodeGuestAccessForbidden, CodeUserDeactivated, CodeUserSuspended, CodeInviteBlocked,
		CodeThreePIDDenied, CodeResourceLimitExceeded, CodeUserLimitExceeded, CodeCannotLeaveServerNoticeRoom,
		CodeWrongRoomKeysVersion, CodeTermsNotSigned, CodeBadState:
		return 403
	case CodeNotFound, CodeUnrecognized, CodeNoValidSession:
		return 404
	case CodeCannotOverwriteMedia:
		return 409
	case CodeTooLarge:
		return 413
	case CodeLimitExceeded:
		return 429
	case CodeUnknown:
		return 500
	case CodeBadStatus, CodeConnectionFailed:
		return 502
	case CodeNotYetUploaded, CodeConnectionTimeout:
		return 504
	}
	return 400
}

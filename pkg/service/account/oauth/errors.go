package oauth

// Code is an error code of OAuth 2.0.
type Code string

// The codes (RFC 6749, sections 4.1.2.1 and 5.2; RFC 7591, section 3.2.2; RFC 8628, section 3.5).
const (
	InvalidRequest        Code = "invalid_request"
	InvalidClient         Code = "invalid_client"
	InvalidGrant          Code = "invalid_grant"
	UnauthorizedClient    Code = "unauthorized_client"
	UnsupportedGrantType  Code = "unsupported_grant_type"
	UnsupportedResponse   Code = "unsupported_response_type"
	InvalidScope          Code = "invalid_scope"
	AccessDenied          Code = "access_denied"
	InvalidRedirectURI    Code = "invalid_redirect_uri"
	InvalidClientMetadata Code = "invalid_client_metadata"
	AuthorizationPending  Code = "authorization_pending"
	SlowDown              Code = "slow_down"
	ExpiredToken          Code = "expired_token"
	TemporarilyDown       Code = "temporarily_unavailable"
)

// Error is a refusal as clients of OAuth 2.0 know it.
type Error struct {
	Code        Code
	Description string
}

// Error implements error.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Description }

func refuse(c Code, description string) *Error { return &Error{c, description} }

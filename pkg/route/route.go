// Package route is the route table: the one place that says for each HTTP endpoint of the server its
// methods and paths, which kind of worker serves it, what to hash for sticky balancing, who may call
// it, and its limits.
//
// The HTTP routers, the generated proxy configurations, the forwarding between workers and the docs
// are all made from it, so that they cannot disagree. It is data: it knows no handler and does no I/O.
// Everything here is immutable once built and safe for concurrent use.
//
// It may be imported by fleet/members, api/, app and cmd/heddle. It imports the standard library only.
package route

import (
	"slices"
	"time"
)

// Kind is a kind of worker.
type Kind string

// The kinds of worker that serve requests. The all-in-one process serves all three.
const (
	Master           Kind = "master"
	Synchrotron      Kind = "synchrotron"
	FederationReader Kind = "federation-reader"
)

// Kinds returns all kinds, in the order in which they are always listed.
func Kinds() []Kind { return []Kind{Master, Synchrotron, FederationReader} }

// Sticky says what a balancer hashes, so that requests which profit from the same caches meet there.
// It is an optimisation and never a condition: any worker of the right kind answers correctly.
type Sticky string

// What can be hashed.
const (
	// ByNone spreads evenly.
	ByNone Sticky = "none"
	// ByUser hashes the access token, which is what a balancer can see of the user.
	ByUser Sticky = "user"
	// ByRoom hashes the room id or alias in the path.
	ByRoom Sticky = "room"
	// ByOrigin hashes the origin that the X-Matrix header names.
	ByOrigin Sticky = "origin"
)

// Auth says who may call an endpoint. The wrapper in api/auth enforces it before a handler runs.
type Auth string

// Who may call.
const (
	// AuthNone needs nothing.
	AuthNone Auth = "none"
	// AuthUser needs the access token of a user who is not a guest, or of an appservice.
	AuthUser Auth = "user"
	// AuthGuest is AuthUser with guests let in too.
	AuthGuest Auth = "guest"
	// AuthOptional looks at an access token if there is one, and goes on without.
	AuthOptional Auth = "optional"
	// AuthFederation needs the signature of another homeserver (X-Matrix).
	AuthFederation Auth = "federation"
	// AuthAdmin needs the access token of a server administrator.
	AuthAdmin Auth = "admin"
	// AuthAppservice needs an appservice's token.
	AuthAppservice Auth = "appservice"
)

// RateClass names the rate limit that an endpoint counts against. Its figures are configuration.
type RateClass string

// The rate-limit classes.
const (
	RateNone       RateClass = "none"
	RateRead       RateClass = "read"
	RateSync       RateClass = "sync"
	RateSearch     RateClass = "search"
	RateWrite      RateClass = "write"
	RateMessage    RateClass = "message"
	RateEphemeral  RateClass = "ephemeral"
	RateToDevice   RateClass = "to_device"
	RateJoin       RateClass = "join"
	RateInvite     RateClass = "invite"
	RateCreateRoom RateClass = "create_room"
	RateLogin      RateClass = "login"
	RateRegister   RateClass = "register"
	RateThreepid   RateClass = "threepid"
	RateUpload     RateClass = "upload"
	RateDownload   RateClass = "download"
	RateFederation RateClass = "federation"
	RateKeys       RateClass = "keys"
	RateAdmin      RateClass = "admin"
)

// Body limits in bytes; a larger request body is refused with 413 M_TOO_LARGE.
const (
	// BodyNone is the limit of endpoints that take no body. A few clients send one ("{}") all the same,
	// so it is small and not zero.
	BodyNone int64 = 16 << 10
	// BodySmall is for bodies of a few fields.
	BodySmall int64 = 64 << 10
	// BodyEvent is for one event: 64 KiB of canonical JSON may arrive with whitespace and escapes.
	BodyEvent int64 = 256 << 10
	// BodyJSON is for ordinary JSON.
	BodyJSON int64 = 1 << 20
	// BodyBulk is for federation transactions (50 PDUs and 100 EDUs), key backups and to-device messages.
	BodyBulk int64 = 16 << 20
	// BodyUpload stands for the configured limit of media uploads.
	BodyUpload int64 = -1
)

// Timeout is a class of how long an answer may take.
type Timeout string

// The classes of time.
const (
	// Normal endpoints work in this deployment only.
	Normal Timeout = "normal"
	// Slow endpoints may have to ask other homeservers, or answer with very much.
	Slow Timeout = "slow"
	// LongPoll endpoints wait for something to happen, as long as the client asks them to.
	LongPoll Timeout = "longpoll"
	// Stream endpoints carry bodies as fast as the client takes or gives them.
	Stream Timeout = "stream"
)

// Timeouts returns all classes of time, in the order in which they are always listed.
func Timeouts() []Timeout { return []Timeout{Normal, Slow, LongPoll, Stream} }

// Limit is how long a worker lets the endpoint take, or 0 when only its client's patience ends it.
func (t Timeout) Limit() time.Duration {
	switch t {
	case LongPoll, Stream:
		return 0
	case Slow:
		return 10 * time.Minute
	default:
		return time.Minute
	}
}

// Proxy is how long something in front of a worker waits for its next byte: longer than the worker
// takes at most, so that the worker's own answer arrives and not a 504 of the proxy.
func (t Timeout) Proxy() time.Duration {
	if t == Normal {
		return 75 * time.Second
	}
	return 11 * time.Minute
}

// Row is one endpoint.
//
// A path pattern is made of segments: a literal, {name} for exactly one non-empty segment, or, last
// only, {name...} for all the rest, which may be empty and may contain slashes. Literal segments win
// over variables.
type Row struct {
	// Name identifies the endpoint: the specification's operation id, for the server-server API behind
	// "federation." or "key.". Metrics, traces and logs carry it.
	Name string
	// Methods are the HTTP methods, without HEAD (answered where GET is) and OPTIONS (answered everywhere).
	Methods []string
	// Paths are all spellings of the path, the current one first.
	Paths   []string
	Kind    Kind
	Sticky  Sticky
	Auth    Auth
	Rate    RateClass
	MaxBody int64
	Timeout Timeout
}

// Allows says whether the row answers the method.
func (r *Row) Allows(method string) bool {
	if method == "HEAD" {
		method = "GET"
	}
	return slices.Contains(r.Methods, method)
}

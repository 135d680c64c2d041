package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/mail"
	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// Config is everything that a process can be told. The comment of each field is its text in
// docs/configuration.md.
type Config struct {
	// ServerName is the name of the homeserver in all ids (the part after the colon). It can never be changed. Required,
	// but for the all-in-one, where it is `localhost`.
	ServerName string `koanf:"server_name"`
	// PublicBaseurl is the URL at which clients reach this homeserver. Empty: nothing is announced in
	// `/.well-known/matrix/client`.
	PublicBaseurl string `koanf:"public_baseurl"`
	// SigningKeyPath is the file with this homeserver's signing keys, made by `heddle keygen`. Every worker needs the same.
	// The all-in-one makes it if it is absent.
	SigningKeyPath string `koanf:"signing_key_path"`
	// Instance is this process's name among the workers; no two may have the same. Empty: host name and process id.
	Instance string `koanf:"instance"`
	// DataDir is where the all-in-one keeps its database, its keys and its media.
	DataDir string `koanf:"data_dir"`
	// Listen says where this process answers.
	Listen Listen `koanf:"listen"`
	// Database is PostgreSQL, the only durable store.
	Database pg.Config `koanf:"database"`
	// Nats carries the log's fan-out and requests between workers. Nothing is kept there that cannot be rebuilt.
	Nats bus.Config `koanf:"nats"`
	// Redis holds what may be lost. Without it, each worker keeps its own in memory.
	Redis soft.Config `koanf:"redis"`
	// Shards is the number of hash slots that rooms and users are spread over, and so the most masters that can write at
	// once. It is fixed when the database is created.
	Shards int `koanf:"shards"`
	// Roles are what this master does: `writer` (owns shards and writes events), `client` (answers client requests),
	// `federation-sender`, `push`, `appservice`, `background`. Other kinds of worker ignore it.
	Roles []Role `koanf:"roles"`
	// Registration says who may make an account.
	Registration Registration `koanf:"registration"`
	// Sessions say how long a login lasts.
	Sessions Sessions `koanf:"sessions"`
	// OAuth is how clients get tokens by OAuth 2.0: from this server itself, or from an outside service that keeps the accounts. Without
	// either, clients log in by the older endpoints.
	OAuth OAuth `koanf:"oauth"`
	// SSO is login at outside providers that speak OpenID Connect, by the older endpoints. It needs `public_baseurl`.
	SSO SSO `koanf:"sso"`
	// Email is how this server writes to people: to confirm their addresses, and for forgotten passwords. It needs `public_baseurl`.
	Email Email `koanf:"email"`
	// Identity is what this server does at identity servers for its users: it binds their addresses there so that others find them, and invites
	// people by address.
	Identity Identity `koanf:"identity"`
	// RateLimits bound what one client may ask for: a user, or an address where nobody is logged in. Each is an allowance such as `10/s
	// burst 60` (also `/min` and `/h`): so many at once, refilled at that pace; `none` is no limit. Whoever has used it up gets 429
	// M_LIMIT_EXCEEDED with the time to wait. All workers count together if there is a Redis, and each by itself if there is none.
	RateLimits RateLimits `koanf:"rate_limits"`
	// Appservices are the registration files of application services (bridges, bots), in YAML as the Matrix specification has them. Every
	// worker needs the same. They are read at the start.
	Appservices []string `koanf:"appservices"`
	// Federation is the exchange with other homeservers.
	Federation Federation `koanf:"federation"`
	// Push is the sending of notifications to the gateways of users' apps.
	Push Push `koanf:"push"`
	// Media is the store of uploaded and remote files.
	Media Media `koanf:"media"`
	// Presence is who is online.
	Presence Presence `koanf:"presence"`
	// Calls are the servers over which calls go.
	Calls Calls `koanf:"calls"`
	// ServerNotices are messages of those who run the server to its users, each in a room of their own. Server administrators send them.
	ServerNotices ServerNotices `koanf:"server_notices"`
	// Support is whom people ask for help: it is told in `/.well-known/matrix/support`, if any of it is set.
	Support Support `koanf:"support"`
	// Memory is the budget that all caches and windows of this process share.
	Memory Memory `koanf:"memory"`
	// Log is what this process writes on standard error.
	Log telemetry.LogConfig `koanf:"log"`
	// Telemetry is where traces go. Metrics are at `/metrics` on `listen.ops`.
	Telemetry telemetry.Config `koanf:"telemetry"`
}

// Listen says where this process answers.
type Listen struct {
	// HTTP is the address of the Matrix APIs.
	HTTP string `koanf:"http"`
	// Advertise is the host and port at which the other workers reach `listen.http`. Empty: the same address, with this
	// machine's host name if it names no host.
	Advertise string `koanf:"advertise"`
	// TLS is an optional second listener, for federation without a proxy in front.
	TLS ListenTLS `koanf:"tls"`
	// Ops is the address of `/healthz`, `/readyz`, `/metrics`, `/version` and `/debug/pprof`. It must never be public.
	Ops string `koanf:"ops"`
}

// ListenTLS is a listener with a certificate of its own.
type ListenTLS struct {
	// Address of the listener. Empty: there is none.
	Address string `koanf:"address"`
	// Cert is the file with the certificate chain, in PEM.
	Cert string `koanf:"cert"`
	// Key is the file with its private key, in PEM.
	Key string `koanf:"key"`
}

// Registration says who may make an account.
type Registration struct {
	// Enabled lets anybody register who does what else is required here.
	Enabled bool `koanf:"enabled"`
	// SharedSecret lets whoever knows it register accounts, administrators too, whatever `enabled` says. Empty: nobody.
	SharedSecret string `koanf:"shared_secret" secret:"true"`
	// RequireToken asks for a registration token that an administrator gave out.
	RequireToken bool `koanf:"require_token"`
	// RequireEmail asks for an e-mail address, which must be confirmed. If `email` is set up without this, one can be given.
	RequireEmail bool `koanf:"require_email"`
	// Terms are documents that people must agree to.
	Terms []Policy `koanf:"terms"`
	// EnforceTerms has people agree who have an account already, and again when a version changes: until then they can read, and neither write nor join.
	// Their apps are told where to agree, on a page of this server (`/_matrix/consent`). It needs `public_baseurl`.
	EnforceTerms bool `koanf:"enforce_terms"`
	// Guests lets anybody make guest accounts, which can look at rooms that are open to guests and do little else.
	Guests bool `koanf:"guests"`
}

// Sessions say how long a login lasts.
type Sessions struct {
	// AccessTokenLifetime is how long an access token of a client that cannot refresh it is good. 0: until logout.
	AccessTokenLifetime time.Duration `koanf:"access_token_lifetime"`
	// RefreshableAccessTokenLifetime is how long one is good that the client can refresh.
	RefreshableAccessTokenLifetime time.Duration `koanf:"refreshable_access_token_lifetime"`
	// RefreshTokenLifetime is how long a client may wait with a refresh until it must log in again. 0: for ever.
	RefreshTokenLifetime time.Duration `koanf:"refresh_token_lifetime"`
	// LoginTokenLifetime is how long a token for one login on another device is good.
	LoginTokenLifetime time.Duration `koanf:"login_token_lifetime"`
}

// OAuth is how clients get tokens by OAuth 2.0: from this server itself, or from an outside service that keeps the accounts.
type OAuth struct {
	// Provide has this server give tokens by OAuth 2.0 itself, on pages where its users log in with their passwords, beside its
	// own login. It needs `public_baseurl`. Logins of devices without a browser wait in Redis: with several masters there should be one.
	Provide bool `koanf:"provide"`
	// Endpoint is the base URL under which the workers reach the service. Empty: there is none. With one, clients log in there, and what
	// belongs to this server's own login (`/login`, `/register`, `/logout`, `/refresh`, passwords) answers 404 M_UNRECOGNIZED.
	Endpoint string `koanf:"endpoint"`
	// Secret is what the service and this server show each other.
	Secret string `koanf:"secret" secret:"true"`
}

// RateLimits bound what one client may ask for.
type RateLimits struct {
	// Enabled switches all of them.
	Enabled bool `koanf:"enabled"`
	// Read is for reading: messages, state, members, profiles.
	Read Rate `koanf:"read"`
	// Sync is for syncs and long polls.
	Sync Rate `koanf:"sync"`
	// Search is for searches of rooms and users.
	Search Rate `koanf:"search"`
	// Write is for changes that have no class of their own: account data, profiles, kicks, aliases.
	Write Rate `koanf:"write"`
	// Message is for events sent to rooms.
	Message Rate `koanf:"message"`
	// Ephemeral is for typing, receipts and presence.
	Ephemeral Rate `koanf:"ephemeral"`
	// ToDevice is for messages to devices.
	ToDevice Rate `koanf:"to_device"`
	// Join is for joins, knocks and leaves.
	Join Rate `koanf:"join"`
	// Invite is for invitations.
	Invite Rate `koanf:"invite"`
	// CreateRoom is for new rooms.
	CreateRoom Rate `koanf:"create_room"`
	// Login is for logins, refreshes of tokens and the steps of an authentication.
	Login Rate `koanf:"login"`
	// Register is for registrations.
	Register Rate `koanf:"register"`
	// Threepid is for mails and text messages that have this server write to somebody.
	Threepid Rate `koanf:"threepid"`
	// Upload is for uploads of media.
	Upload Rate `koanf:"upload"`
	// Download is for downloads of media.
	Download Rate `koanf:"download"`
	// Keys is for uploads, queries and claims of device keys.
	Keys Rate `koanf:"keys"`
	// Admin is for the admin API.
	Admin Rate `koanf:"admin"`
	// Federation is for requests of other homeservers that bear no signature, by address.
	Federation Rate `koanf:"federation"`
	// RoomMessage is for events sent to one room by all users of this server together.
	RoomMessage Rate `koanf:"room_message"`
}

// defaultRateLimits are figures that a person with several devices does not meet, and that one client cannot harm others within.
func defaultRateLimits() RateLimits {
	perSecond := func(n float64, burst int64) Rate { return Rate{Count: n, Per: time.Second, Burst: burst} }
	return RateLimits{
		Enabled:     true,
		Read:        perSecond(50, 300),
		Sync:        perSecond(20, 100),
		Search:      perSecond(2, 20),
		Write:       perSecond(10, 100),
		Message:     perSecond(10, 60),
		Ephemeral:   perSecond(20, 100),
		ToDevice:    perSecond(20, 200),
		Join:        perSecond(2, 60),
		Invite:      perSecond(2, 100),
		CreateRoom:  Rate{Count: 30, Per: time.Minute, Burst: 30},
		Login:       perSecond(1, 30),
		Register:    Rate{Count: 30, Per: time.Minute, Burst: 30},
		Threepid:    Rate{Count: 72, Per: time.Hour, Burst: 5},
		Upload:      perSecond(2, 50),
		Download:    perSecond(50, 300),
		Keys:        perSecond(20, 100),
		Admin:       perSecond(50, 300),
		Federation:  perSecond(50, 300),
		RoomMessage: perSecond(100, 500),
	}
}

// Federation is the exchange with other homeservers.
type Federation struct {
	// Enabled switches it, both ways.
	Enabled bool `koanf:"enabled"`
	// CAFile has certificates to trust beside the system's, in PEM.
	CAFile string `koanf:"ca_file"`
	// AllowNetworks are networks that may be reached although `deny_networks` names them.
	AllowNetworks []netip.Prefix `koanf:"allow_networks"`
	// DenyNetworks are networks that this server never connects to on behalf of others.
	DenyNetworks []netip.Prefix `koanf:"deny_networks"`
	// KeyServers are homeservers that are asked for the signing keys of others that do not answer themselves any more. They are
	// believed in that.
	KeyServers []string `koanf:"key_servers"`
	// OldKeys are the public halves of keys that this server signed with before, so that what they signed stays good: each is the key's
	// id, the key in base64, and when it went out of use, in milliseconds: `ed25519:old BASE64 1600000000000`.
	OldKeys []string `koanf:"old_keys"`
}

// Push is the sending of notifications to the gateways of users' apps.
type Push struct {
	// AllowNetworks are networks in which gateways may be although `federation.deny_networks` names them.
	AllowNetworks []netip.Prefix `koanf:"allow_networks"`
	// CAFile has certificates to trust beside the system's, in PEM.
	CAFile string `koanf:"ca_file"`
}

// Media is the store of uploaded and remote files.
type Media struct {
	// Path of the folder that holds them, unless they are in S3.
	Path string `koanf:"path"`
	// S3 is an object store to hold them instead.
	S3 S3 `koanf:"s3"`
	// MaxUpload is the size of the largest upload.
	MaxUpload Bytes `koanf:"max_upload"`
	// MaxRemote is the size of the largest file that is fetched from another server.
	MaxRemote Bytes `koanf:"max_remote"`
	// UserQuota is how much a user may have uploaded in all. 0: as much as they like.
	UserQuota Bytes `koanf:"user_quota"`
	// MaxPixels is the size of the largest picture of which thumbnails are made.
	MaxPixels int64 `koanf:"max_pixels"`
	// Thumbnails are the sizes of thumbnails. Larger ones are made if a client asks for them.
	Thumbnails []ThumbnailSize `koanf:"thumbnails"`
	// AllowUnauthenticated lets clients download media without an access token, at the endpoints that were there before there were others. What
	// was stored while it was allowed stays so.
	AllowUnauthenticated bool `koanf:"allow_unauthenticated"`
	// RemoteRetention is for how long media of other servers are kept that nobody looks at. 0: for ever.
	RemoteRetention time.Duration `koanf:"remote_retention"`
	// URLPreviews are looks at the pages that URLs in messages lead to, on behalf of clients.
	URLPreviews URLPreviews `koanf:"url_previews"`
}

// URLPreviews are looks at the pages that URLs in messages lead to, on behalf of clients.
type URLPreviews struct {
	// Enabled switches them. This server then fetches whatever URL one of its users names, unless it is in one of `federation.deny_networks`: name
	// there what else it should not reach, such as your own machines that have public addresses.
	Enabled bool `koanf:"enabled"`
	// AllowNetworks are networks that may be looked at although `federation.deny_networks` names them.
	AllowNetworks []netip.Prefix `koanf:"allow_networks"`
	// Lifetime is for how long a preview is kept.
	Lifetime time.Duration `koanf:"lifetime"`
}

// S3 is an object store.
type S3 struct {
	// Endpoint is the URL of the service. Empty: no S3.
	Endpoint string `koanf:"endpoint"`
	// Region of the bucket.
	Region string `koanf:"region"`
	// Bucket that holds the media.
	Bucket string `koanf:"bucket"`
	// AccessKey names the account.
	AccessKey string `koanf:"access_key"`
	// SecretKey is the account's secret.
	SecretKey string `koanf:"secret_key" secret:"true"`
	// Prefix stands before the names of all objects.
	Prefix string `koanf:"prefix"`
	// PathStyle puts the bucket into the path of URLs and not into the host's name, as some services want it.
	PathStyle bool `koanf:"path_style"`
}

// Presence is who is online.
type Presence struct {
	// Enabled switches it.
	Enabled bool `koanf:"enabled"`
}

// Calls are the servers over which calls go.
type Calls struct {
	// TURN is for calls between two, by way of a server that relays what cannot go directly.
	TURN TURN `koanf:"turn"`
	// LiveKit are the URLs of the services that let users of this server into calls of many (MatrixRTC over LiveKit), the preferred one first.
	LiveKit []string `koanf:"livekit"`
}

// TURN is for calls between two, by way of a server that relays what cannot go directly.
type TURN struct {
	// URIs of the server, each beginning with `turn:` or `turns:`. Empty: there is none.
	URIs []string `koanf:"uris"`
	// SharedSecret is what the TURN server and this one both know: passwords are made of it, for one user and a time.
	SharedSecret string `koanf:"shared_secret" secret:"true"`
	// Lifetime is for how long a password is good.
	Lifetime time.Duration `koanf:"lifetime"`
}

// Validate implements the check of a section.
func (c Calls) Validate() error {
	for _, u := range c.LiveKit {
		if err := checkURL(u, "http", "https"); err != nil {
			return fmt.Errorf("livekit: %w", err)
		}
	}
	return nil
}

// Validate implements the check of a section.
func (t TURN) Validate() error {
	for _, u := range t.URIs {
		if !strings.HasPrefix(u, "turn:") && !strings.HasPrefix(u, "turns:") {
			return fmt.Errorf("uris: %q is not a turn: or turns: address", u)
		}
	}
	switch {
	case len(t.URIs) > 0 && t.SharedSecret == "":
		return errors.New("shared_secret: must be set if uris is")
	case t.Lifetime < time.Second:
		return errors.New("lifetime: must be a second or more")
	}
	return nil
}

// ServerNotices are messages of those who run the server to its users, each in a room of their own.
type ServerNotices struct {
	// Localpart is the name of the user who sends them (`@name:server`). The account is made for the first notice, and nobody can log in to it. Empty:
	// there are no notices.
	Localpart string `koanf:"localpart"`
	// DisplayName is what the user is called.
	DisplayName string `koanf:"display_name"`
	// AvatarURL is the user's picture, an `mxc:` URI.
	AvatarURL string `koanf:"avatar_url"`
	// RoomName is what new rooms are called.
	RoomName string `koanf:"room_name"`
	// RoomAvatarURL is the picture of new rooms, an `mxc:` URI.
	RoomAvatarURL string `koanf:"room_avatar_url"`
}

// Validate implements the check of a section.
func (n ServerNotices) Validate() error {
	if n.Localpart != "" {
		if _, err := id.ParseUserIDStrict("@" + n.Localpart + ":localhost"); err != nil {
			return fmt.Errorf("localpart: %w", err)
		}
	}
	for key, v := range map[string]string{"avatar_url": n.AvatarURL, "room_avatar_url": n.RoomAvatarURL} {
		if v != "" && !strings.HasPrefix(v, "mxc://") {
			return fmt.Errorf("%s: want an mxc:// URI", key)
		}
	}
	return nil
}

// Support is whom people ask for help.
type Support struct {
	// Page is the URL of a page that helps.
	Page string `koanf:"page"`
	// AdminMatrixID is the user id of who runs the server, which may be of another one.
	AdminMatrixID string `koanf:"admin_matrix_id"`
	// AdminEmail is the address of who runs the server.
	AdminEmail string `koanf:"admin_email"`
	// SecurityMatrixID is the user id of whom to tell of weaknesses.
	SecurityMatrixID string `koanf:"security_matrix_id"`
	// SecurityEmail is the address for the same.
	SecurityEmail string `koanf:"security_email"`
}

// Validate implements the check of a section.
func (s Support) Validate() error {
	if s.Page != "" {
		if err := checkURL(s.Page, "http", "https"); err != nil {
			return fmt.Errorf("page: %w", err)
		}
	}
	for key, v := range map[string]string{"admin_matrix_id": s.AdminMatrixID, "security_matrix_id": s.SecurityMatrixID} {
		if v == "" {
			continue
		}
		if _, err := id.ParseUserID(v); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// Memory is the budget that all caches and windows of a process share.
type Memory struct {
	// Budget is a size, or `auto` for nine tenths of what the process may use: its cgroup's limit, or a quarter of the
	// machine's memory where there is no limit.
	Budget Budget `koanf:"budget"`
}

// Role is something that a master does.
type Role string

// What a master can do.
const (
	RoleWriter           Role = "writer"
	RoleClient           Role = "client"
	RoleFederationSender Role = "federation-sender"
	RolePush             Role = "push"
	RoleAppservice       Role = "appservice"
	RoleBackground       Role = "background"
)

// Roles returns all of them.
func Roles() []Role {
	return []Role{RoleWriter, RoleClient, RoleFederationSender, RolePush, RoleAppservice, RoleBackground}
}

// Default is the configuration before anything was said. That of the all-in-one (embedded)
// needs nothing more.
func Default(embedded bool) Config {
	c := Config{
		DataDir:    "./data",
		Listen:     Listen{HTTP: "127.0.0.1:8008", Ops: "127.0.0.1:9008"},
		Database:   pg.Config{}.WithDefaults(),
		Nats:       bus.Config{}.WithDefaults(),
		Redis:      soft.Config{}.WithDefaults(),
		Shards:     16,
		Roles:      Roles(),
		RateLimits: defaultRateLimits(),
		Sessions:   Sessions{RefreshableAccessTokenLifetime: 5 * time.Minute, LoginTokenLifetime: 2 * time.Minute},
		Email:      Email{SMTP: mail.Config{}.WithDefaults(), PerAddress: Rate{Count: 10, Per: time.Hour, Burst: 5}},
		Identity:   Identity{Enabled: true},
		Federation: Federation{Enabled: true, DenyNetworks: specialNetworks()},
		Media:      Media{Path: "./data/media", MaxUpload: 100 << 20, MaxRemote: 100 << 20, MaxPixels: 32_000_000, Thumbnails: defaultThumbnails(), URLPreviews: URLPreviews{Lifetime: time.Hour}},
		Presence:   Presence{Enabled: true},

		Calls:         Calls{TURN: TURN{Lifetime: 24 * time.Hour}},
		ServerNotices: ServerNotices{DisplayName: "Server notices", RoomName: "Server notices"},

		Memory: Memory{Budget: Budget{}},
		Log:    telemetry.LogConfig{Level: "info", Format: "json"},
	}
	if embedded {
		c.ServerName = "localhost"
		c.SigningKeyPath = "./data/signing.key"
		// It listens on the loopback address alone: whoever tries it out should be able to make users.
		c.Registration.Enabled = true
		c.Log.Format = "text"
	}
	return c
}

// specialNetworks are those that are not the public Internet: private, local to the machine
// or the link, for documentation, or a way to write one of these as another address.
func specialNetworks() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"224.0.0.0/4", "240.0.0.0/4",
		"::/128", "::1/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
		"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Validate reports the first mistake of what is not in a section, as "key: problem". Load
// calls it, and that of each section.
func (c Config) Validate() error {
	if c.ServerName == "" {
		return errors.New("server_name: must be set")
	}
	if _, err := id.ParseServerName(c.ServerName); err != nil {
		return fmt.Errorf("server_name: %w", err)
	}
	if c.PublicBaseurl != "" {
		if err := checkURL(c.PublicBaseurl, "http", "https"); err != nil {
			return fmt.Errorf("public_baseurl: %w", err)
		}
	}
	if len(c.SSO.Providers) > 0 && (c.PublicBaseurl == "" || c.OAuth.Endpoint != "") {
		return errors.New("sso.providers: needs public_baseurl, where providers send browsers back, and no oauth.endpoint")
	}
	if c.Email.SMTP.Host != "" && c.PublicBaseurl == "" {
		return errors.New("email.smtp.host: needs public_baseurl, where the links of mails lead")
	}
	if c.Registration.RequireEmail && c.Email.SMTP.Host == "" {
		return errors.New("registration.require_email: needs email.smtp.host")
	}
	if c.Registration.EnforceTerms && (c.PublicBaseurl == "" || len(c.Registration.Terms) == 0) {
		return errors.New("registration.enforce_terms: needs registration.terms, and public_baseurl, where people find the page")
	}
	if c.OAuth.Provide && c.PublicBaseurl == "" {
		return errors.New("oauth.provide: needs public_baseurl, where clients find the pages")
	}
	if c.SigningKeyPath == "" {
		return errors.New("signing_key_path: must be set")
	}
	if c.Shards < 1 || c.Shards > 256 {
		return errors.New("shards: must be from 1 to 256")
	}
	if c.Database.MaxConns < 4 { // committer, renewals, followers and requests must not wait for one another
		return errors.New("database.max_conns: must be at least 4")
	}
	if list, err := appservice.Load(c.Appservices); err != nil {
		return fmt.Errorf("appservices: %w", err)
	} else if _, err := appservice.NewRegistry(id.ServerName(c.ServerName), list); err != nil {
		return fmt.Errorf("appservices: %w", err)
	}
	if len(c.Roles) == 0 {
		return errors.New("roles: must name at least one")
	}
	for i, r := range c.Roles {
		if !slices.Contains(Roles(), r) {
			return fmt.Errorf("roles: there is no role %q", r)
		}
		if slices.Contains(c.Roles[:i], r) {
			return fmt.Errorf("roles: %q is named twice", r)
		}
	}
	return nil
}

// Validate implements the loader's check of a section.
func (o OAuth) Validate() error {
	if o.Endpoint == "" {
		return nil
	}
	if o.Provide {
		return errors.New("provide: the service at the endpoint does this")
	}
	if err := checkURL(o.Endpoint, "http", "https"); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	if o.Secret == "" {
		return errors.New("secret: the service at the endpoint needs one")
	}
	return nil
}

// Validate reports the first mistake, as "key: problem".
func (l Listen) Validate() error {
	if err := checkAddress(l.HTTP); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if err := checkAddress(l.Ops); err != nil {
		return fmt.Errorf("ops: %w", err)
	}
	if l.Advertise != "" {
		if err := checkAddress(l.Advertise); err != nil {
			return fmt.Errorf("advertise: %w", err)
		}
	}
	return nil
}

// Validate reports the first mistake, as "key: problem".
func (l ListenTLS) Validate() error {
	if l.Address == "" {
		return nil
	}
	if err := checkAddress(l.Address); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if l.Cert == "" {
		return errors.New("cert: must be set if listen.tls.address is")
	}
	if l.Key == "" {
		return errors.New("key: must be set if listen.tls.address is")
	}
	return nil
}

// Validate reports the first mistake, as "key: problem".
func (m Media) Validate() error {
	switch {
	case m.Path == "" && m.S3.Endpoint == "":
		return errors.New("path: must be set, or media.s3")
	case m.MaxUpload < 1:
		return errors.New("max_upload: must be more than nothing")
	case m.MaxRemote < 1:
		return errors.New("max_remote: must be more than nothing")
	case m.MaxPixels < 1:
		return errors.New("max_pixels: must be more than nothing")
	case m.RemoteRetention < 0:
		return errors.New("remote_retention: must not be negative")
	case m.URLPreviews.Lifetime <= 0:
		return errors.New("url_previews.lifetime: must be more than nothing")
	}
	return nil
}

// Validate reports the first mistake, as "key: problem".
func (s S3) Validate() error {
	switch {
	case s == S3{}:
		return nil
	case s.Endpoint == "":
		return errors.New("endpoint: must be set")
	case s.Bucket == "":
		return errors.New("bucket: must be set")
	}
	if err := checkURL(s.Endpoint, "http", "https"); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	return nil
}

// Validate reports the first mistake, as "key: problem".
func (m Memory) Validate() error {
	const least = 16 << 20 // below this no window holds a conversation
	if m.Budget.Bytes != 0 && m.Budget.Bytes < least {
		return fmt.Errorf("budget: must be at least %s", Bytes(least))
	}
	return nil
}

// AdvertiseAddress is where other workers reach this one's listener.
func (c Config) AdvertiseAddress() (string, error) {
	if c.Listen.Advertise != "" {
		return c.Listen.Advertise, nil
	}
	host, port, err := net.SplitHostPort(c.Listen.HTTP)
	if err != nil {
		return "", err
	}
	if ip, _ := netip.ParseAddr(host); host != "" && (!ip.IsValid() || !ip.IsUnspecified()) {
		return c.Listen.HTTP, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("learn this machine's name: %w", err)
	}
	return net.JoinHostPort(name, port), nil
}

// PublicHost is the host name of public_baseurl, or "" if that is not set.
func (c Config) PublicHost() string {
	u, err := url.Parse(c.PublicBaseurl)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// complete fills in the defaults that depend on the machine or on other keys.
func (c *Config) complete(embedded bool) error {
	if c.Instance == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("instance: learn this machine's name: %w", err)
		}
		c.Instance = name + "-" + strconv.Itoa(os.Getpid())
	}
	if d := Default(embedded); c.DataDir != d.DataDir { // what is kept in it moves with it
		if c.Media.Path == d.Media.Path {
			c.Media.Path = filepath.Join(c.DataDir, "media")
		}
		if embedded && c.SigningKeyPath == d.SigningKeyPath {
			c.SigningKeyPath = filepath.Join(c.DataDir, "signing.key")
		}
	}
	return nil
}

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("want host:port, got %q", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("want a port from 0 to 65535, got %q", port)
	} else if n == 0 && host == "" {
		return errors.New("a port of 0 needs a host")
	}
	return nil
}

// checkURL never repeats the URL in its error: it may hold a password.
func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" && u.Path == "" {
		return fmt.Errorf("want a URL (%s://…)", schemes[0])
	}
	if !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("want a URL with the scheme %s, got %s", strings.Join(schemes, " or "), u.Scheme)
	}
	return nil
}

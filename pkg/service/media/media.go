package media

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/heddle-im/heddle/pkg/infra/blob"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// Remote asks other homeservers. An answer that is not 2xx is a *[RefusedError].
type Remote interface {
	// Open asks for a path; the caller reads, bounds and closes the answer. ctx bounds all of it.
	Open(ctx context.Context, server id.ServerName, path string, query url.Values, signed bool) (*http.Response, error)
}

// RefusedError is another server's refusal.
type RefusedError struct {
	Status  int
	Code    string // of the Matrix error, "" if there was none
	Message string
}

// Error implements error.
func (e *RefusedError) Error() string {
	return "the server answered " + http.StatusText(e.Status) + " " + e.Code + " " + e.Message
}

// Size is one of the sizes in which thumbnails are made.
type Size struct {
	Width, Height int
	Crop          bool
}

// Config says what is kept, and bounds it. Zero values take the defaults.
type Config struct {
	// MaxUpload and MaxRemote are the longest content of a user, and of another server, in bytes. Default 100 MiB.
	MaxUpload, MaxRemote int64
	// UserQuota is how many bytes a user may have uploaded. Default: no bound.
	UserQuota int64
	// MaxPixels is the largest picture that is made smaller. Default 32 million.
	MaxPixels int64
	// ImageMemory bounds what is needed for making pictures smaller, at any time. Default 256 MiB.
	ImageMemory int64
	// Sizes are those of thumbnails, besides which others are made only if none of them is large enough.
	Sizes []Size
	// Open lets what is stored from now on be downloaded without an access token, and what other servers have.
	Open bool
	// Retention is for how long media of others is kept that nobody uses. Default: for ever.
	Retention time.Duration

	// PreviewLifetime is for how long previews of URLs are kept. Default 1 h.
	PreviewLifetime time.Duration

	// Unused is for how long a URI waits for its content. Default 24 h.
	Unused time.Duration
	// MaxPending is for how many URIs of one user it is waited. Default 50.
	MaxPending int
	// FetchTime bounds the fetching of a content from another server. Default 5 min.
	FetchTime time.Duration
	// MaxFetches bounds how many are fetched at a time. Default 64.
	MaxFetches int
	// Failures is for how long it is remembered that another server does not have something. Default 1 min.
	Failures time.Duration
	// Poll is how often it is looked for a content that is waited for, if nobody tells. Default 1 s.
	Poll time.Duration
	// Flush is how often it is written down when media were used. Default 1 min.
	Flush time.Duration
	// WriteTime is how long a blob may take to be written. Default 24 h.
	WriteTime time.Duration
}

func (c Config) withDefaults() Config {
	def(&c.MaxUpload, 100<<20)
	def(&c.MaxRemote, 100<<20)
	def(&c.MaxPixels, 32_000_000)
	def(&c.ImageMemory, 256<<20)
	def(&c.PreviewLifetime, time.Hour)
	def(&c.Unused, 24*time.Hour)
	def(&c.MaxPending, 50)
	def(&c.FetchTime, 5*time.Minute)
	def(&c.MaxFetches, 64)
	def(&c.Failures, time.Minute)
	def(&c.Poll, time.Second)
	def(&c.Flush, time.Minute)
	def(&c.WriteTime, 24*time.Hour)
	return c
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Options are what a Service needs. Remote, Tell, Metrics and Log may be nil.
type Options struct {
	Server id.ServerName
	DB     *mediadb.DB
	Blobs  blob.Store
	// Remote asks other servers; nil: there are none.
	Remote Remote
	// Previews looks at URLs that users name, and never in a network that may not be reached; nil: URLs are not looked at.
	Previews *http.Client
	// HTTP fetches what other servers say is elsewhere, and never from a network that may not be reached.
	HTTP *http.Client
	// Tell tells the other workers that a URI has its content now. They hear of it by [Service.Hear]; what is not heard is found a little later.
	Tell func(uri string)
	// Random gives the names of things that must not be guessed.
	Random  func() string
	Now     func() time.Time
	Metrics *telemetry.Metrics
	Log     *slog.Logger
}

// Service keeps media.
type Service struct {
	cfg Config
	o   Options

	tasks    *lifecycle.Tasks
	fetches  flights[mediadb.Key, *mediadb.Media]
	makes    flights[thumbKey, *madeThumbnail]
	looks    flights[[32]byte, []byte]
	fetching *semaphore.Weighted
	memory   *semaphore.Weighted
	workers  *semaphore.Weighted
	failures failures
	waiting  waiting

	mu   sync.Mutex // guards used
	used map[mediadb.Key]int64

	uploaded, served *prometheus.CounterVec
	fetched, made    *prometheus.CounterVec
	removed, looked  *prometheus.CounterVec
}

// maxUnderWay bounds how many fetches, and how many thumbnails, are under way or wait for their turn.
const maxUnderWay = 1000

// maxLooks bounds at how many URLs it is looked at once.
const maxLooks = 100

// New makes a Service. It fetches and makes things as soon as it is asked, until ctx ends; Start is for what it writes down at times.
func New(ctx context.Context, cfg Config, o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	cfg = cfg.withDefaults()
	m := o.Metrics
	return &Service{
		cfg: cfg, o: o, tasks: lifecycle.NewTasks(ctx), used: map[mediadb.Key]int64{},
		fetching: semaphore.NewWeighted(int64(cfg.MaxFetches)), memory: semaphore.NewWeighted(cfg.ImageMemory),
		workers: semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)))),
		fetches: flights[mediadb.Key, *mediadb.Media]{most: maxUnderWay}, makes: flights[thumbKey, *madeThumbnail]{most: maxUnderWay}, looks: flights[[32]byte, []byte]{most: maxLooks},
		failures: failures{now: o.Now, keep: cfg.Failures},
		uploaded: m.CounterVec("media_uploads_total", "Uploads, by what became of them.", "outcome"),
		served:   m.CounterVec("media_served_total", "Contents that were served, by what they are.", "what"),
		fetched:  m.CounterVec("media_fetches_total", "Contents asked of other servers, by what became of it.", "outcome"),
		made:     m.CounterVec("media_thumbnails_made_total", "Thumbnails that were made, by what became of it.", "outcome"),
		looked:   m.CounterVec("media_url_previews_total", "URLs that were looked at, by what became of it.", "outcome"),
		removed:  m.CounterVec("media_removed_total", "What was removed in the background.", "of"),
	}
}

// MaxUpload is the longest content that a user may upload.
func (s *Service) MaxUpload() int64 { return s.cfg.MaxUpload }

func (s *Service) now() int64 { return s.o.Now().UnixMilli() }

// Start implements lifecycle.Service.
func (s *Service) Start(context.Context) error {
	s.tasks.Every(s.cfg.Flush, s.flush)
	return nil
}

// Stop implements lifecycle.Service.
func (s *Service) Stop(ctx context.Context) error {
	err := s.tasks.StopWithin(ctx)
	s.flush(ctx)
	return err
}

// maxUsed bounds what is remembered between two writings.
const maxUsed = 20_000

// use remembers that media were used.
func (s *Service) use(m *mediadb.Media) {
	const day = 24 * 60 * 60 * 1000
	now := s.now()
	if m.Kind == mediadb.Uploaded && now-m.LastAccess < day { // nothing rests on it but what operators look at
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.used[m.Key]; ok || len(s.used) < maxUsed {
		s.used[m.Key] = now
	}
}

// flush writes down when media were used.
func (s *Service) flush(ctx context.Context) {
	s.mu.Lock()
	used := s.used
	s.used = map[mediadb.Key]int64{}
	s.mu.Unlock()
	if err := s.o.DB.Touch(ctx, used); err != nil && ctx.Err() == nil {
		s.o.Log.WarnContext(ctx, "the use of media was not written down", "error", err)
	}
}

// Content is what is served. The caller closes Body.
type Content struct {
	Body        io.ReadSeekCloser
	Size        int64
	ContentType string
	FileName    string // "": none
	// ETag names the content, and is never used for another.
	ETag string
}

// Disposition gives the header that says what to do with it.
func (c *Content) Disposition() string { return Disposition(c.ContentType, c.FileName) }

func etag(hash []byte, variant string) string {
	return `"` + hex.EncodeToString(hash[:16]) + variant + `"`
}

package write

import (
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/rendezvous"
)

// concurrentWrite is how either protocol says that a session holds another text than the one that was read.
const (
	concurrentWrite     = "M_CONCURRENT_WRITE"
	concurrentWriteJSON = "IO_ELEMENT_MSC4388_CONCURRENT_WRITE"
	textPath            = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous/"
)

// Rendezvous answers devices that meet to log one of them in: by plain text and entity tags (MSC4108), and by JSON (MSC4388).
type Rendezvous struct {
	text, json *rendezvous.Sessions
	baseURL    string
	now        func() time.Time
}

// NewRendezvous makes the handlers. baseURL is what clients are told to use, without a slash at its end.
func NewRendezvous(text, json *rendezvous.Sessions, baseURL string, now func() time.Time) *Rendezvous {
	return &Rendezvous{text: text, json: json, baseURL: baseURL, now: now}
}

// Handlers gives the handlers by the names of their rows.
func (v *Rendezvous) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"createRendezvous": v.create, "useRendezvous": v.use, "createRendezvousJSON": v.createJSON, "useRendezvousJSON": v.useJSON,
	}
}

// tag is the entity tag of what a session holds.
func tag(s *rendezvous.Session) string { return `"` + strconv.FormatInt(s.Seq, 10) + `"` }

// tagged gives the number of an entity tag of ours; proxies that compress make weak ones of it.
func tagged(t string) (int64, bool) {
	t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
	if len(t) < 3 || t[0] != '"' || t[len(t)-1] != '"' {
		return 0, false
	}
	n, err := strconv.ParseInt(t[1:len(t)-1], 10, 64)
	return n, err == nil && n > 0
}

// describe says in headers how a session is. It is read by whoever knows its address, and shown by no browser.
func describe(w http.ResponseWriter, s *rendezvous.Session) {
	h := w.Header()
	h.Set("ETag", tag(s))
	h.Set("Expires", time.UnixMilli(s.Expires).UTC().Format(http.TimeFormat))
	h.Set("Last-Modified", time.UnixMilli(s.Modified).UTC().Format(http.TimeFormat))
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
}

// plain reads a body of plain text.
func plain(r *http.Request) ([]byte, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "text/plain" {
		return nil, mxerr.New(mxerr.InvalidParam, "The body must be text/plain")
	}
	return io.ReadAll(r.Body) // the route bounds it
}

func (v *Rendezvous) create(w http.ResponseWriter, r *http.Request) error {
	data, err := plain(r)
	if err != nil {
		return err
	}
	s, err := v.text.Create(r.Context(), data)
	if err != nil {
		return err
	}
	describe(w, &s)
	return httpx.WriteJSON(w, http.StatusCreated, map[string]string{"url": v.baseURL + textPath + s.ID})
}

func (v *Rendezvous) use(w http.ResponseWriter, r *http.Request) error {
	id := httpx.Var(r, "sessionId")
	switch r.Method {
	case http.MethodPut:
		return v.replace(w, r, id)
	case http.MethodDelete:
		if err := v.text.Delete(r.Context(), id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err := notShown(r); err != nil {
		return err
	}
	s, err := v.text.Get(r.Context(), id)
	if err != nil {
		return err
	}
	describe(w, &s)
	for t := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if n, ok := tagged(t); ok && n == s.Seq || strings.TrimSpace(t) == "*" {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(s.Data)))
	_, _ = w.Write(s.Data) // a client that has gone is not our error
	return nil
}

func (v *Rendezvous) replace(w http.ResponseWriter, r *http.Request, id string) error {
	data, err := plain(r)
	if err != nil {
		return err
	}
	match := r.Header.Get("If-Match")
	if match == "" {
		return mxerr.New(mxerr.MissingParam, "The request has no If-Match")
	}
	seq, _ := tagged(match) // a tag that is not ours matches nothing
	s, done, err := v.text.Put(r.Context(), id, seq, data)
	if err != nil {
		return err
	}
	describe(w, &s)
	if !done {
		return mxerr.New(mxerr.Unknown, "The session holds something else by now").WithStatus(http.StatusPreconditionFailed).
			With("org.matrix.msc4108.errcode", concurrentWrite)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// notShown refuses a browser that would show to a person what a session holds, which another may have put there.
func notShown(r *http.Request) error {
	h := r.Header
	dest := h.Get("Sec-Fetch-Dest")
	if dest != "" && dest != "empty" || h.Get("Sec-Fetch-Mode") == "navigate" || h.Get("Sec-Fetch-User") == "?1" || h.Get("Sec-Fetch-Site") == "none" {
		return mxerr.New(mxerr.Forbidden, "What a session holds is for programs")
	}
	return nil
}

func (v *Rendezvous) createJSON(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		return httpx.WriteJSON(w, http.StatusOK, map[string]bool{"create_available": true})
	}
	var q struct {
		Data *string `json:"data"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Data == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no data")
	}
	s, err := v.json.Create(r.Context(), []byte(*q.Data))
	if err != nil {
		return err
	}
	describe(w, &s)
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{
		"id": s.ID, "sequence_token": strconv.FormatInt(s.Seq, 10), "expires_in_ms": s.Left(v.now()).Milliseconds(),
	})
}

func (v *Rendezvous) useJSON(w http.ResponseWriter, r *http.Request) error {
	id := httpx.Var(r, "sessionId")
	switch r.Method {
	case http.MethodPut:
		return v.replaceJSON(w, r, id)
	case http.MethodDelete:
		if err := v.json.Delete(r.Context(), id); err != nil {
			return err
		}
		return httpx.WriteEmpty(w)
	}
	if err := notShown(r); err != nil {
		return err
	}
	s, err := v.json.Get(r.Context(), id)
	if err != nil {
		return err
	}
	describe(w, &s)
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{
		"data": string(s.Data), "sequence_token": strconv.FormatInt(s.Seq, 10), "expires_in_ms": s.Left(v.now()).Milliseconds(),
	})
}

func (v *Rendezvous) replaceJSON(w http.ResponseWriter, r *http.Request, id string) error {
	var q struct {
		Token *string `json:"sequence_token"`
		Data  *string `json:"data"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Token == nil || q.Data == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no sequence_token or no data")
	}
	seq, err := strconv.ParseInt(*q.Token, 10, 64)
	if err != nil {
		seq = 0 // a token that is not ours matches nothing
	}
	s, done, err := v.json.Put(r.Context(), id, seq, []byte(*q.Data))
	if err != nil {
		return err
	}
	describe(w, &s)
	if !done {
		return mxerr.New(concurrentWriteJSON, "The session holds something else by now").WithStatus(http.StatusConflict)
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"sequence_token": strconv.FormatInt(s.Seq, 10)})
}

package httpx

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// File is a content of strangers that is served as it is.
type File struct {
	Body                           io.ReadSeeker
	ContentType, Disposition, ETag string
	// Public files may be kept by caches that serve many.
	Public bool
}

// fileTime is how long a client may take for a piece of a file. A client that takes nothing at all must not hold the file for ever.
const fileTime = time.Minute

// fileSecurity is what the specification recommends: whatever a file has in it, it runs nothing and belongs to nobody.
const fileSecurity = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';"

// ServeFile answers with a file, or the parts of it that the request names, or with nothing if the client has it.
func ServeFile(w http.ResponseWriter, r *http.Request, f File) {
	h := w.Header()
	SecureFile(h)
	h.Set("Content-Type", f.ContentType)
	h.Set("Content-Disposition", f.Disposition)
	h.Set("ETag", f.ETag)
	caching := "private"
	if f.Public {
		caching = "public"
	}
	h.Set("Cache-Control", caching+", max-age=86400, immutable")
	body := f.Body
	if b, ok := body.(interface{ OSFile() *os.File }); ok { // which the kernel copies
		body = b.OSFile()
	}
	slow := &patientWriter{w, http.NewResponseController(w)}
	defer slow.done()
	http.ServeContent(slow, r, "", time.Time{}, body)
}

// SecureFile sets the headers that keep a content from doing harm in a browser.
func SecureFile(h http.Header) {
	h.Set("Content-Security-Policy", fileSecurity)
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
}

// Patient gives a writer that fails when the client takes none of what is written for a while. done is to be called in the end.
func Patient(w http.ResponseWriter) (to http.ResponseWriter, done func()) {
	p := &patientWriter{w, http.NewResponseController(w)}
	return p, p.done
}

// patientWriter gives the client time for each piece anew.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patientWriter) extend() { _ = p.control.SetWriteDeadline(time.Now().Add(fileTime)) } // not every connection has one

func (p *patientWriter) done() { _ = p.control.SetWriteDeadline(time.Time{}) }

func (p *patientWriter) Write(b []byte) (int, error) {
	p.extend()
	return p.ResponseWriter.Write(b)
}

// ReadFrom lets the kernel copy files to sockets, in pieces.
func (p *patientWriter) ReadFrom(src io.Reader) (total int64, err error) {
	const piece = 1 << 20
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	for limited.N > 0 {
		p.extend()
		want := min(piece, limited.N)
		n, err := io.Copy(p.ResponseWriter, &io.LimitedReader{R: limited.R, N: want})
		total, limited.N = total+n, limited.N-n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// Unwrap is for http.ResponseController.
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// UploadBody gives the request's body as it comes. Its errors say to the client what was wrong.
func UploadBody(r *http.Request) io.Reader { return uploadBody{r.Body} }

type uploadBody struct{ r io.Reader }

func (u uploadBody) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case errors.As(err, &tooLarge):
		return n, mxerr.Newf(mxerr.TooLarge, "Cannot upload files larger than %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, mxerr.New(mxerr.Unknown, "The request's body did not arrive in time").WithStatus(http.StatusRequestTimeout)
	default:
		return n, mxerr.New(mxerr.Unknown, "The request's body did not arrive whole").WithStatus(http.StatusBadRequest).WithCause(err)
	}
}

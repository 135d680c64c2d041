package httpx

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"
)

// A client that syncs asks again as soon as it is answered, on the same connection. To give that to the server each time costs a tenth of the
// processor time of a sync, and a quarter of what it allocates, for goroutines and buffers that the server makes for a connection and loses when
// it is taken from it. So a request that is plainly the same long poll again is read and handled here, by the server's own handler. Whatever
// is not plain is the server's: another path, a body, a header in pieces or of many kilobytes, or anything that it may have to refuse.

// maxNext is how long the header of a request may be that is handled here.
const maxNext = 4 << 10

// nextReader is what the reading of a request takes.
type nextReader struct {
	data [maxNext]byte
	from bytes.Reader
	in   *bufio.Reader
}

// poll is the long poll for which a connection was parked.
type poll struct {
	server *http.Server
	path   string
}

// direct is the answer to a request that is handled here.
type direct struct {
	answer
	conn   net.Conn
	poll   poll
	taken  bool           // parked again
	chunks io.WriteCloser // nil unless the answer is sent as it is written
}

// SetReadDeadline is for http.ResponseController.
func (d *direct) SetReadDeadline(t time.Time) error { return d.conn.SetReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (d *direct) SetWriteDeadline(t time.Time) error { return d.conn.SetWriteDeadline(t) }

// FlushError is for http.ResponseController. After the header has been sent so, what is written is sent at once.
func (d *direct) FlushError() error {
	if d.chunks != nil {
		return nil
	}
	d.header.Set("Transfer-Encoding", "chunked")
	if !d.write(d.conn, net.Buffers{d.head(false)}) {
		return net.ErrClosed
	}
	d.chunks = httputil.NewChunkedWriter(d.conn)
	_, err := d.chunks.Write(d.body)
	d.body = nil
	return err
}

func (d *direct) Write(b []byte) (int, error) {
	if d.chunks != nil {
		return d.chunks.Write(b)
	}
	return d.answer.Write(b)
}

// finish sends what is not sent yet.
func (d *direct) finish(last bool) bool {
	if d.chunks == nil {
		return d.send(d.conn, last)
	}
	_ = d.conn.SetWriteDeadline(time.Now().Add(sendTime))
	err := d.chunks.Close()
	return d.write(d.conn, net.Buffers{[]byte("\r\n")}) && err == nil // there are no trailers
}

// next answers the requests that begin on a connection, until it is parked again or closed; false leaves it to the server.
func (p *Parking) next(k *parked) bool {
	for {
		r := p.read(k)
		if r == nil {
			return false
		}
		d := &direct{answer: answer{header: make(http.Header, 12)}, conn: k.conn, poll: k.poll}
		whole := p.handle(d, r)
		if d.taken {
			return true
		}
		if last := p.isLame() || d.header.Get("Connection") != ""; !whole || !d.finish(last) || last || !p.another(k) {
			_ = k.conn.Close()
			return true
		}
	}
}

// handle has the server's handler answer; false if it has broken off.
func (p *Parking) handle(d *direct, r *http.Request) (whole bool) {
	ctx, cancel := context.WithCancel(p.base)
	defer cancel()
	defer func() { _ = recover() }() // the router has told of it: what is left is to break the connection off
	d.poll.server.Handler.ServeHTTP(d, r.WithContext(ctx))
	if d.taken {
		return true
	}
	if d.status == 0 {
		d.status = http.StatusOK
	}
	d.header.Set("Content-Length", strconv.Itoa(len(d.body)))
	return true
}

// read reads the request that has begun, if it is one to be handled here; else it is kept for the server.
func (p *Parking) read(k *parked) *http.Request {
	if k.poll.server == nil || len(k.next) >= maxNext {
		return nil
	}
	b, _ := p.readers.Get().(*nextReader)
	if b == nil {
		b = &nextReader{in: bufio.NewReader(nil)}
	}
	defer p.readers.Put(b)
	n := copy(b.data[:], k.next)
	if !bytes.HasSuffix(b.data[:n], []byte(headerEnd)) {
		_ = k.conn.SetReadDeadline(time.Now().Add(cmp.Or(k.poll.server.ReadHeaderTimeout, sendTime)))
		more, _ := k.conn.Read(b.data[n:]) // an error comes again
		_ = k.conn.SetReadDeadline(time.Time{})
		n += more
	}
	var r *http.Request
	if plain(b.data[:n], k.poll.path) {
		b.from.Reset(b.data[:n])
		b.in.Reset(&b.from)
		r, _ = http.ReadRequest(b.in)
		b.from.Reset(nil)
	}
	if r == nil || r.Close {
		k.next = bytes.Clone(b.data[:n])
		return nil
	}
	k.next = nil
	r.RemoteAddr = k.conn.RemoteAddr().String()
	return r
}

// headerEnd ends a header.
const headerEnd = "\r\n\r\n"

// plain tells whether data is the whole header of a GET of the path, with nothing behind it, of which every server would think the same.
func plain(data []byte, path string) bool {
	head, behind, ok := bytes.Cut(data, []byte(headerEnd))
	if !ok || len(behind) > 0 {
		return false
	}
	line, head, _ := bytes.Cut(head, []byte("\r\n"))
	target, get := bytes.CutPrefix(line, []byte("GET "))
	target, version := bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if at, _, _ := bytes.Cut(target, []byte("?")); !get || !version || string(at) != path || !printable(target) || bytes.ContainsAny(target, " #") {
		return false
	}
	hosts := 0
	for len(head) > 0 {
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if value = bytes.TrimSpace(value); !ok || len(name) == 0 || bytes.ContainsFunc(name, notOfName) || !printable(value) {
			return false
		}
		switch {
		case is(name, "Host"):
			if hosts++; len(value) == 0 || bytes.ContainsFunc(value, notOfHost) {
				return false
			}
		case is(name, "Connection"):
			if !is(value, "keep-alive") {
				return false
			}
		case is(name, "Content-Length"), is(name, "Transfer-Encoding"), is(name, "Trailer"), is(name, "TE"), is(name, "Expect"), is(name, "Upgrade"),
			is(name, "Proxy-Connection"): // there is more to it than its header
			return false
		}
	}
	return hosts == 1
}

func is(b []byte, s string) bool { return len(b) == len(s) && strings.EqualFold(string(b), s) }

func printable(b []byte) bool {
	return !bytes.ContainsFunc(b, func(c rune) bool { return c < ' ' || c > '~' })
}

func notOfName(c rune) bool { return !isLetterOrDigit(c) && c != '-' && c != '_' }

func notOfHost(c rune) bool { return !isLetterOrDigit(c) && !strings.ContainsRune(".-:[]", c) }

func isLetterOrDigit(c rune) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

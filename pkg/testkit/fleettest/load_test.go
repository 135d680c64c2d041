package fleettest_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"time"
)

// sender is one connection that sends messages one after the other, made for load: net/http's client takes as much processor time
// for a request as PostgreSQL does for the event, on the same processors.
type sender struct {
	conn  net.Conn
	in    *textproto.Reader
	buf   []byte
	host  string
	token string
}

func newSender(addr, token string) (*sender, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &sender{conn: conn, in: textproto.NewReader(bufio.NewReader(conn)), host: addr, token: token}, nil
}

func (s *sender) close() { _ = s.conn.Close() }

var errNotAnEvent = errors.New("the answer is no event id")

// send sends an m.room.message and fails unless the answer is 200 and an event id.
func (s *sender) send(room string, txn int64, body []byte) error {
	s.buf = fmt.Appendf(s.buf[:0], "PUT /_matrix/client/v3/rooms/%s/send/m.room.message/%d HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", room, txn, s.host, s.token, len(body), body)
	if _, err := s.conn.Write(s.buf); err != nil {
		return err
	}
	status, err := s.in.ReadLineBytes()
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	length := -1
	for {
		line, err := s.in.ReadLineBytes()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		if v, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(v)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("%s: no Content-Length", status)
	}
	s.buf = append(s.buf[:0], make([]byte, length)...)
	if _, err := io.ReadFull(s.in.R, s.buf); err != nil {
		return err
	}
	if !ok || !bytes.HasPrefix(s.buf, []byte(`{"event_id":"$`)) {
		return fmt.Errorf("%w: %s", errNotAnEvent, s.buf)
	}
	return nil
}

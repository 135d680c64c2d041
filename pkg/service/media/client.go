package media

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
)

// NewClient makes an HTTP client for URLs that strangers name: it connects to no network that the guard refuses, follows few redirects, and
// bounds what it holds. roots are the authorities to trust; nil: the system's.
func NewClient(guard *outhttp.Guard, roots *x509.CertPool) *http.Client {
	const wait = 10 * time.Second
	return &http.Client{
		CheckRedirect: followSafely,
		Transport: &http.Transport{
			DialContext: guard.Dialer(wait).DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: wait,
			ResponseHeaderTimeout: 2 * wait, MaxIdleConns: 100, MaxIdleConnsPerHost: 2, MaxConnsPerHost: 16, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

// followSafely follows a few redirects, and none from https to anything else.
func followSafely(req *http.Request, via []*http.Request) error {
	const most = 5
	switch {
	case len(via) >= most:
		return errors.New("too many redirects")
	case req.URL.Scheme != "https" && (req.URL.Scheme != "http" || strings.EqualFold(via[0].URL.Scheme, "https")):
		return errors.New("redirect to a URL of another scheme")
	}
	return nil
}

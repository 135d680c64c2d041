package app

import (
	"crypto/x509"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/remote/keyring"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

// openRemote makes what reaches other homeservers, and knows their keys.
func (s *shared) openRemote() error {
	c := s.cfg.Federation
	roots, err := rootsOf(c.CAFile)
	if err != nil {
		return &config.Error{Key: "federation.ca_file", Problem: err.Error()}
	}
	if s.oldKeys, err = parseOldKeys(c.OldKeys); err != nil {
		return &config.Error{Key: "federation.old_keys", Problem: err.Error()}
	}
	var notaries []id.ServerName
	for _, name := range c.KeyServers {
		n, err := id.ParseServerName(name)
		if err != nil {
			return &config.Error{Key: "federation.key_servers", Problem: fmt.Sprintf("%q is no server name", name)}
		}
		notaries = append(notaries, n)
	}
	s.remote = fedclient.New(fedclient.Options{
		Enabled: c.Enabled, Server: s.base.server, Key: s.keys[0], Guard: outhttp.NewGuard(c.AllowNetworks, c.DenyNetworks),
		Cache: s.soft, Roots: roots, UserAgent: "Heddle/" + s.opts.Build.Version, Now: s.now,
	})
	s.onClose(s.remote.Close)
	s.fed = feddb.NewDB(s.db)
	s.keyring = keyring.New(keyring.Options{
		Server: s.base.server, Own: s.keys, Old: s.oldKeys, Notaries: notaries, Store: s.fed, Fetcher: s.remote, Budget: s.budget,
		Now: s.now, Metrics: s.tel.Metrics, Log: s.log,
	})
	s.onClose(s.keyring.Close)
	return nil
}

// federationGate verifies what other servers ask; nil if they may not ask.
func (s *shared) federationGate() auth.Federation {
	if !s.cfg.Federation.Enabled {
		return nil
	}
	return auth.NewXMatrix(s.base.server, s.keyring, s.now, s.heard)
}

// rootsOf gives the system's authorities with those of a file; nil, which means the system's, without one.
func rootsOf(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// parseOldKeys reads the configured keys that are out of use.
func parseOldKeys(lines []string) ([]signing.OldKey, error) {
	var out []signing.OldKey
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%q is not an id, a key and a time", line)
		}
		keyID, err := id.ParseServerKeyID(f[0])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		public, err := signing.DecodeBase64(f[1])
		if err != nil || len(public) != 32 {
			return nil, fmt.Errorf("%q: the key is malformed", line)
		}
		expired, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || expired <= 0 {
			return nil, fmt.Errorf("%q: the time is malformed", line)
		}
		out = append(out, signing.OldKey{ID: keyID, Key: public, Expired: expired})
	}
	return out, nil
}

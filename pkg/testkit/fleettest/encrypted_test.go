package fleettest_test

import (
	"testing"

	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// A real encrypting client, by two users with two devices each and more that come later, finds all it needs on a split deployment; and so do
// two devices that meet for a login by QR code.
func TestEncryptedConversationOnASplitDeployment(t *testing.T) {
	const public = "https://matrix.fleet.test"
	spec := fleettest.Split()
	spec.Env = []string{"HEDDLE_PUBLIC_BASEURL=" + public, "HEDDLE_OAUTH_PROVIDE=true"}
	f := fleettest.Start(t, binaries(t), nats, spec)
	node(t, "rendezvous.mjs", f.URL, public)
	node(t, "encrypted.mjs", f.URL, f.URL)
}

// The same between two servers, each of them split: everything that is said goes over TLS through the proxy of the other.
func TestEncryptedConversationBetweenTwoServers(t *testing.T) {
	fleets := federated(t, fleettest.Split(), "localhost", "127.0.0.1")
	node(t, "encrypted.mjs", fleets[0].URL, fleets[1].URL)
}

// federated starts deployments that reach each other.
func federated(t testing.TB, spec fleettest.Spec, hosts ...string) []*fleettest.Fleet {
	t.Helper()
	ca, bin := certtest.NewAuthority(t), binaries(t)
	var fleets []*fleettest.Fleet
	for _, host := range hosts {
		cert, key := ca.Certificate(host)
		spec.Federation = &fleettest.Federation{Host: host, Link: true, Cert: cert, Key: key, CA: ca.File}
		fleets = append(fleets, fleettest.Start(t, bin, nats, spec))
	}
	return fleets
}

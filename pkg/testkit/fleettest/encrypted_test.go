package fleettest_test

import (
	"testing"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// A real encrypting client, by two users with two devices each and a third that comes later, finds all it needs on a split deployment.
func TestEncryptedConversationOnASplitDeployment(t *testing.T) {
	f := fleettest.Start(t, binaries(t), nats, fleettest.Split())
	node(t, "encrypted.mjs", f.URL, f.URL)
}

package app

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/fleet/level"
)

// A roll-out from this release to one that reads a level more: the level stays while an older worker lives, a token of the later
// release reaches a worker of that, and once the last older one has gone none can come back.
func TestFeatureLevelOfTwoReleases(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start(t, Master, "m")
	older := f.start(t, Synchrotron, "older")
	f.owns(t, "m")
	status, user, _ := older.call(t, "POST", register, "", registration("alice"))
	require.Equal(t, 200, status, user)
	token := user["access_token"].(string)
	_, synced, _ := older.call(t, "GET", "/_matrix/client/v3/sync", token, "")
	raw, err := base64.RawURLEncoding.DecodeString(synced["next_batch"].(string))
	require.NoError(t, err)
	require.EqualValues(t, featureNewest, raw[0])
	raw[0]++
	later := "/_matrix/client/v3/sync?since=" + base64.RawURLEncoding.EncodeToString(raw)
	passed := func() float64 { return older.passedOn(t, "synchrotron") }

	status, answer, _ := older.call(t, "GET", later, token, "")
	require.Equal(t, 400, status)
	require.Equal(t, "M_INVALID_PARAM", answer["errcode"])
	require.Zero(t, passed())

	f.reads = featureNewest + 1
	f.start(t, Master, "m2")
	newer := f.start(t, Synchrotron, "newer")
	require.Eventually(t, func() bool { // the newer one here is the same code, and does not know the token either
		status, answer, _ := older.call(t, "GET", later, token, "")
		return status == 400 && answer["errcode"] == "M_INVALID_PARAM" && passed() > 0
	}, patient, patient/100)

	var v *Overview
	overview := func() *Overview {
		var err error
		v, err = ReadOverview(t.Context(), f.cfg)
		require.NoError(t, err)
		return v
	}
	require.EqualValues(t, featureNewest, overview().FeatureLevel)
	require.Equal(t, []string{"m", "older"}, v.FeatureLevelHeldBy)
	var out bytes.Buffer
	require.NoError(t, v.Print(&out))
	require.Contains(t, out.String(), "1, held there by m, older")

	// The rest of the roll-out.
	for _, name := range []string{"m", "older"} {
		_, err := f.db.Pool.Exec(t.Context(), "UPDATE worker SET protocol_max = $2 WHERE instance = $1", name, f.reads)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return overview().FeatureLevel == f.reads }, patient, patient/100)
	require.Empty(t, v.FeatureLevelHeldBy)
	require.Eventually(t, func() bool { return newer.base.level.Allows(f.reads) }, patient, patient/100)

	// One that was too slow to be replaced is taken out of service by its own readiness.
	require.Eventually(t, func() bool { return older.readyz(t) == http.StatusServiceUnavailable }, patient, patient/100)
	require.Equal(t, http.StatusOK, newer.readyz(t))

	// And none comes back.
	cfg := f.cfg
	cfg.Instance, cfg.Listen.HTTP, cfg.Listen.Ops = "back", freePort(t), freePort(t)
	back, err := New(t.Context(), cfg, Options{Kind: Synchrotron})
	require.NoError(t, err)
	var old *level.TooOldError
	require.ErrorAs(t, back.Start(t.Context()), &old)
	require.NoError(t, back.Stop(t.Context()))
}

// passedOn is how many requests for a kind of worker were answered by another.
func (w *worker) passedOn(t *testing.T, kind string) (n float64) {
	t.Helper()
	for _, m := range w.metrics(t)["heddle_forward_requests_total"].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["kind"] == kind && labels["result"] == "ok" {
			n += m.GetCounter().GetValue()
		}
	}
	return n
}

// readyz is the status with which the worker says whether it is ready.
func (w *worker) readyz(t *testing.T) int {
	t.Helper()
	res, err := http.Get("http://" + w.base.cfg.Listen.Ops + "/readyz")
	require.NoError(t, err)
	defer res.Body.Close()
	return res.StatusCode
}

package app

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/store/fleetdb"
)

func TestOverview(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a := f.start(t, Master, "a")
	f.start(t, Synchrotron, "s")
	f.owns(t, "a")
	status, user, _ := a.call(t, "POST", register, "", registration("alice"))
	require.Equal(t, 200, status, user)
	// One that died without a word, and a consumer that nobody runs.
	for _, sql := range []string{
		`INSERT INTO worker (instance, kind, address, version, protocol_min, protocol_max) VALUES ('ghost', 'master', 'g:1', 'v0', 1, 1)`,
		`INSERT INTO cursor (consumer, shard, pos) SELECT 'late', s, 0 FROM generate_series(0, 3) AS s`,
	} {
		_, err := f.db.Pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	var v *Overview
	require.Eventually(t, func() bool { // until the workers have said that they are ready
		var err error
		v, err = ReadOverview(t.Context(), f.cfg)
		require.NoError(t, err)
		return v.Workers[0].State == stateReady && v.Workers[2].State == stateReady
	}, patient, patient/100)

	require.Equal(t, "example.org", v.ServerName)
	require.Equal(t, 1, v.Incarnation.Count)
	require.NotZero(t, v.Incarnation.Number)
	require.Equal(t, "no", v.Database.Survives)
	require.Positive(t, v.Database.Bytes)

	require.Len(t, v.Workers, 3)
	m, ghost, s := v.Workers[0], v.Workers[1], v.Workers[2]
	require.Equal(t, []string{"a", "ghost", "s"}, []string{m.Instance, ghost.Instance, s.Instance})
	require.Equal(t, "master", m.Kind)
	require.Equal(t, "v1", m.Version)
	require.True(t, m.NATS)
	require.Positive(t, m.Memory)
	require.Len(t, m.Positions, 4)
	require.Equal(t, stateSilent, ghost.State)

	require.Len(t, v.Shards, 4)
	written := int64(0)
	for i, sh := range v.Shards {
		require.Equal(t, i, sh.Shard)
		require.Equal(t, "a", sh.Owner)
		require.EqualValues(t, 1, sh.Epoch)
		written += int64(sh.Head)
	}
	require.Positive(t, written)
	var late *ConsumerState
	for i := range v.Consumers {
		if v.Consumers[i].Consumer == "late" {
			late = &v.Consumers[i]
		}
	}
	require.NotNil(t, late)
	require.Equal(t, written, late.Lag)
	require.ElementsMatch(t, []string{"worker ghost is silent", "no federation-reader lives"}, v.Problems)

	b, err := json.Marshal(v)
	require.NoError(t, err)
	var back Overview
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, *v, back)
	var out bytes.Buffer
	require.NoError(t, v.Print(&out))
	for _, want := range []string{
		"no synchronous standby", "ghost   master ", "late", "PROBLEMS\nworker ghost is silent\n",
	} {
		require.Contains(t, out.String(), want)
	}
	t.Log("\n" + out.String())
}

func TestWhatSurvivesAFailover(t *testing.T) {
	t.Parallel()
	standby := func(sync string) []fleetdb.Standby { return []fleetdb.Standby{{Name: "b", Sync: sync}} }
	for _, c := range []struct {
		commit, names string
		standbys      []fleetdb.Standby
		want          string
	}{
		{"on", "", nil, "no"},
		{"on", "", standby("async"), "no"},
		{"off", "b", standby("sync"), "no"},
		{"local", "b", standby("sync"), "no"},
		{"on", "b", standby("sync"), "yes"},
		{"remote_apply", "ANY 1 (b, c)", standby("quorum"), "yes"},
		{"on", "b", nil, "yes"}, // commits wait
		{"on", "b", standby(""), "unknown"},
	} {
		require.Equal(t, c.want, survives(c.commit, c.names, c.standbys), "%+v", c)
	}
}

func TestOverviewOfNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.cfg.Database.DSN = ""
	f.cfg.DataDir = t.TempDir()
	_, err := ReadOverview(t.Context(), f.cfg)
	require.ErrorContains(t, err, "no server runs on")
}

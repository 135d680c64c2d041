package mxerr_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"errcode":"M_LIMIT_EXCEEDED","error":"slow down","retry_after_ms":7}`))
	f.Add([]byte(`{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","room_version":"12"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := mxerr.Parse(502, b)
		if !ok {
			return
		}
		require.LessOrEqual(t, len(e.Message), 1000)
		require.True(t, utf8.ValidString(e.Message))
		var back map[string]any
		require.NoError(t, json.Unmarshal(e.AppendJSON(nil), &back), "what we would answer is JSON")
		require.Equal(t, string(e.Code), back["errcode"])
	})
}

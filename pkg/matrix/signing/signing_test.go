package signing_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

const specSeed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"

func specKey(t testing.TB) signing.Key {
	key, err := signing.ParseKey("ed25519 1 " + specSeed)
	require.NoError(t, err)
	return key
}

func keyOf(t testing.TB, name string) signing.Key {
	seed := sha256.Sum256([]byte(name))
	key, err := signing.NewKey(id.NewKeyID("ed25519", name), seed[:])
	require.NoError(t, err)
	return key
}

// "JSON Signing" of the specification's test vectors.
func TestSpecVectors(t *testing.T) {
	for in, want := range map[string]string{
		`{}`: `{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}`,
		`{"two": "Two", "one": 1}`: `{"one":1,"signatures":{"domain":{"ed25519:1":` +
			`"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}`,
	} {
		got, err := signing.SignJSON([]byte(in), "domain", specKey(t))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
		require.NoError(t, signing.VerifyJSON(got, "domain", "ed25519:1", specKey(t).Public()))
	}
}

func TestSignKeepsWhatIsNotCovered(t *testing.T) {
	a, b := keyOf(t, "a"), keyOf(t, "b")
	one, err := signing.SignJSON([]byte(`{"x":1,"unsigned":{"age":1},"signatures":{"other":{"ed25519:z":"sig"}}}`), "me", a)
	require.NoError(t, err)
	two, err := signing.SignJSON(one, "me", b)
	require.NoError(t, err)
	require.NoError(t, signing.VerifyJSON(two, "me", a.ID(), a.Public()))
	require.NoError(t, signing.VerifyJSON(two, "me", b.ID(), b.Public()))
	require.Equal(t, []id.KeyID{"ed25519:a", "ed25519:b"}, signing.SignedBy(two, "me"))
	require.Contains(t, string(two), `"other":{"ed25519:z":"sig"}`)
	require.Contains(t, string(two), `"unsigned":{"age":1}`)
	require.NoError(t, signing.VerifyJSON(bytes.Replace(two, []byte(`"age":1`), []byte(`"age":2`), 1), "me", a.ID(), a.Public()))
	require.ErrorIs(t, signing.VerifyJSON(bytes.Replace(two, []byte(`"x":1`), []byte(`"x":2`), 1), "me", a.ID(), a.Public()), signing.ErrInvalid)
	require.ErrorIs(t, signing.VerifyJSON(two, "you", a.ID(), a.Public()), signing.ErrMissing)
	require.ErrorIs(t, signing.VerifyJSON(two, "me", a.ID(), b.Public()), signing.ErrInvalid)
	require.ErrorIs(t, signing.VerifyJSON(two, "other", "ed25519:z", a.Public()), signing.ErrMalformed)
	_, err = signing.SignJSON([]byte(`[]`), "me", a)
	require.Error(t, err)

	// Two signatures in a row of one key: the second replaces the first.
	again, err := signing.SignJSON(two, "me", b)
	require.NoError(t, err)
	require.Equal(t, string(two), string(again))
}

func TestOnlyOneEncodingOfASignature(t *testing.T) {
	key := specKey(t)
	sig := base64.RawStdEncoding.EncodeToString(key.Sign([]byte("message")))
	quote := func(s string) []byte { return []byte(`"` + s + `"`) }
	require.NoError(t, signing.VerifyBase64(key.Public(), []byte("message"), quote(sig)))
	last := sig[85]
	for _, other := range []string{
		sig + "==", sig[:85], sig[:85] + string(last+1), sig[:85] + "\n", strings.ReplaceAll(sig, "/", "_") + "x", "", sig[:40] + "\n" + sig[41:],
	} {
		require.Error(t, signing.VerifyBase64(key.Public(), []byte("message"), quote(other)), other)
	}
}

func TestKeyFile(t *testing.T) {
	keys, err := signing.ParseKeyFile("# current\ned25519 a_1 " + specSeed + "\n\n  ed25519\tb " + specSeed + "=\n")
	require.NoError(t, err)
	require.Len(t, keys, 2)
	require.EqualValues(t, "ed25519:a_1", keys[0].ID())
	// The specification's seed sets bits of its last character that no byte takes: they do not come back.
	require.Equal(t, "ed25519 a_1 "+specSeed[:42]+"0", keys[0].Format())
	require.NotContains(t, keys[0].String(), specSeed)
	for _, bad := range []string{
		"", "# nothing", "ed25519 a", "rsa a " + specSeed, "ed25519 a-b " + specSeed, "ed25519 a " + specSeed[:20], "ed25519 a !!!", "ed25519 a b c",
	} {
		_, err := signing.ParseKeyFile(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), specSeed[:20])
	}
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		key, err := signing.NewKey("ed25519:x", seed)
		require.NoError(t, err)
		back, err := signing.ParseKey(key.Format())
		require.NoError(t, err)
		require.Equal(t, key, back)
	})
}

func TestKeyDocument(t *testing.T) {
	a, b, old := keyOf(t, "a"), keyOf(t, "b"), keyOf(t, "old")
	data, err := signing.BuildKeyDocument("example.org", []signing.Key{a, b}, []signing.OldKey{{ID: old.ID(), Key: old.Public(), Expired: 500}}, 10_000)
	require.NoError(t, err)
	require.True(t, canonjson.IsCanonical(data, canonjson.Options{}))
	d, err := signing.ParseKeyDocument(data, "example.org")
	require.NoError(t, err)
	require.Equal(t, map[id.KeyID]ed25519.PublicKey{a.ID(): a.Public(), b.ID(): b.Public()}, d.Current)
	require.EqualValues(t, 10_000, d.ValidUntil)

	keys := d.Keys(0)
	require.EqualValues(t, 10_000, keys[a.ID()].ValidUntil)
	require.EqualValues(t, 500, keys[old.ID()].Expired)
	require.True(t, keys[old.ID()].ValidAt(500, true))
	require.False(t, keys[old.ID()].ValidAt(501, false))
	far, err := signing.BuildKeyDocument("example.org", []signing.Key{a}, nil, 1<<50)
	require.NoError(t, err)
	d, err = signing.ParseKeyDocument(far, "example.org")
	require.NoError(t, err)
	const week = 7 * 24 * 3600 * 1000
	require.EqualValues(t, 1000+week, d.Keys(1000)[a.ID()].ValidUntil)

	// A document under another name than was asked for is not that server's.
	_, err = signing.ParseKeyDocument(data, "evil.org")
	require.ErrorIs(t, err, signing.ErrDocument)
	for name, change := range map[string][2]string{
		"changed":        {`10000`, `10001`},
		"no signature":   {`"signatures":{"example.org"`, `"signatures":{"example.net"`},
		"no validity":    {`"valid_until_ts":10000,`, ``},
		"short key":      {`"key":"`, `"key":"AAAA`},
		"no expiry":      {`"expired_ts":500,`, ``},
		"keys no object": {`"verify_keys":{`, `"verify_keys":[],"x":{`},
	} {
		changed := strings.Replace(string(data), change[0], change[1], 1)
		require.NotEqual(t, string(data), changed, name)
		_, err := signing.ParseKeyDocument([]byte(changed), "example.org")
		require.Error(t, err, name)
	}
	_, err = signing.BuildKeyDocument("example.org", nil, nil, 1)
	require.Error(t, err)
}

func FuzzParseKeyDocument(f *testing.F) {
	seed := sha256.Sum256(nil)
	key, _ := signing.NewKey("ed25519:a", seed[:])
	data, _ := signing.BuildKeyDocument("a", []signing.Key{key}, []signing.OldKey{{ID: "ed25519:o", Key: key.Public(), Expired: 1}}, 1)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := signing.ParseKeyDocument(data, "a")
		if err == nil && len(d.Keys(0)) == 0 {
			t.Fatal("accepted without a key")
		}
	})
}

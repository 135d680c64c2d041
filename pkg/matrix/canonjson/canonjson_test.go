package canonjson_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

var (
	strict    = canonjson.Options{}
	lax       = canonjson.Options{Mode: canonjson.Lax}
	normalise = canonjson.Options{Mode: canonjson.Normalise}
)

// The examples of the specification's appendix.
func TestSpecExamples(t *testing.T) {
	for in, want := range map[string]string{
		"{}": "{}",
		"{\n    \"one\": 1,\n    \"two\": \"Two\"\n}": `{"one":1,"two":"Two"}`,
		"{\n    \"b\": \"2\",\n    \"a\": \"1\"\n}":   `{"a":"1","b":"2"}`,
		`{"b":"2","a":"1"}`:                           `{"a":"1","b":"2"}`,
		`{
    "auth": {
        "success": true,
        "mxid": "@john.doe:example.com",
        "profile": {
            "display_name": "John Doe",
            "three_pids": [
                {
                    "medium": "email",
                    "address": "john.doe@example.org"
                },
                {
                    "medium": "msisdn",
                    "address": "123456789"
                }
            ]
        }
    }
}`: `{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`,
		`{ "a": "日本語" }`:          `{"a":"日本語"}`,
		`{ "本": 2, "日": 1 }`:      `{"日":1,"本":2}`,
		`{ "a": "\u65E5" }`:       `{"a":"日"}`,
		`{ "a": null }`:           `{"a":null}`,
		`{ "a": -0, "b": 1e10 }`:  `{"a":0,"b":10000000000}`,
		`{"a":-0.0,"b":1.50E2}`:   `{"a":0,"b":150}`,
		`{"a":9007199254740991}`:  `{"a":9007199254740991}`,
		`{"a":-90071992.5e1}`:     `{"a":-900719925}`,
		`{"a":0e999999999999999}`: `{"a":0}`,
	} {
		got, err := canonjson.Canonical([]byte(in), normalise)
		require.NoError(t, err, in)
		require.Equal(t, want, string(got))
	}
}

func TestStrict(t *testing.T) {
	for in, want := range map[string]string{
		`  [ 1 , 2 , "x" , [ ] , { } ]  `:                     `[1,2,"x",[],{}]`,
		`{"a":-0}`:                                            `{"a":0}`,
		`[9007199254740991,-9007199254740991]`:                `[9007199254740991,-9007199254740991]`,
		`"\u0000\u0007\u001F\u001f\u000A\u0008\u000c\/"`:      "\"\\u0000\\u0007\\u001f\\u001f\\n\\b\\f/\"",
		`"\u0022\u005c\u005C\u002f\u007f"`:                    "\"\\\"\\\\\\\\/\u007f\"",
		`"\ud83d\ude00\uD83D\uDE00"`:                          `"😀😀"`,
		`"\u2028\u00e9\ufffd"`:                                "\"\u2028é\ufffd\"",
		`{"\u0061":1,"A":2,"":3}`:                             `{"":3,"A":2,"a":1}`,
		`{"\n":1,"\u0001":2,"\\":3,"[":4,"]":5,"\"":6}`:       `{"\u0001":2,"\n":1,"\"":6,"[":4,"\\":3,"]":5}`,
		`{"\uffff":1,"😀":2}`:                                  "{\"\uffff\":1,\"😀\":2}", // code points, not UTF-16 units
		`{"b":{"d":1,"c":{"z":1,"y":[{"b":1,"a":2}]}},"a":0}`: `{"a":0,"b":{"c":{"y":[{"a":2,"b":1}],"z":1},"d":1}}`,
		`{"aa":1,"a":2}`:                                      `{"a":2,"aa":1}`,
		`true`:                                                `true`,
		`{"origin_server_ts":1,"origin":2}`:                   `{"origin":2,"origin_server_ts":1}`,
	} {
		got, err := canonjson.Canonical([]byte(in), strict)
		require.NoError(t, err, in)
		require.Equal(t, want, string(got))
		again, err := canonjson.Append([]byte("prefix"), got, strict)
		require.NoError(t, err)
		require.Equal(t, "prefix"+want, string(again))
		require.True(t, canonjson.IsCanonical(got, strict), want)
		require.Equal(t, in == want, canonjson.IsCanonical([]byte(in), strict), in)
	}
}

func TestRefused(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for in, want := range map[string]error{
		``: canonjson.ErrSyntax, ` `: canonjson.ErrSyntax, `{`: canonjson.ErrSyntax, `[1,]`: canonjson.ErrSyntax,
		`{"a":1,}`: canonjson.ErrSyntax, `{"a"}`: canonjson.ErrSyntax, `{a:1}`: canonjson.ErrSyntax, `[1 2]`: canonjson.ErrSyntax,
		`nul`: canonjson.ErrSyntax, `nullx`: canonjson.ErrSyntax, `"a`: canonjson.ErrSyntax, "\"\t\"": canonjson.ErrSyntax,
		"\"\x00\"": canonjson.ErrSyntax, `"\x"`: canonjson.ErrSyntax, `"\u12"`: canonjson.ErrSyntax, `"\u12g4"`: canonjson.ErrSyntax,
		`01`: canonjson.ErrSyntax, `-`: canonjson.ErrSyntax, `+1`: canonjson.ErrSyntax, `.5`: canonjson.ErrSyntax, `1.`: canonjson.ErrSyntax,
		`1e`: canonjson.ErrSyntax, `1e+`: canonjson.ErrSyntax, `NaN`: canonjson.ErrSyntax, `Infinity`: canonjson.ErrSyntax,
		`{}{}`: canonjson.ErrSyntax, "\ufeff{}": canonjson.ErrSyntax, `{"a":1}x`: canonjson.ErrSyntax, "\v1": canonjson.ErrSyntax,

		`"\ud800"`: canonjson.ErrSurrogate, `"\udc00"`: canonjson.ErrSurrogate, `"\ud800\u0041"`: canonjson.ErrSurrogate,
		`"\ud800x"`: canonjson.ErrSurrogate, `{"\udfff":1}`: canonjson.ErrSurrogate, `"\ud800\ud800\udc00"`: canonjson.ErrSurrogate,

		"\"\xff\"": canonjson.ErrUTF8, "\"\xc0\x80\"": canonjson.ErrUTF8, "\"\xed\xa0\x80\"": canonjson.ErrUTF8,
		"\"\xf4\x90\x80\x80\"": canonjson.ErrUTF8, "\"\xe2\x82\"": canonjson.ErrUTF8, "{\"a\x80\":1}": canonjson.ErrUTF8,

		`1E3`: canonjson.ErrNumber, `0.0`: canonjson.ErrNumber, `1.5`: canonjson.ErrNumber, `-0.0`: canonjson.ErrNumber, `1e0`: canonjson.ErrNumber,
		`9007199254740992`: canonjson.ErrNumber, `-9007199254740992`: canonjson.ErrNumber, `18446744073709551616`: canonjson.ErrNumber,
		`{"a":{"b":[1.0]}}`: canonjson.ErrNumber,

		`{"a":1,"a":1}`: canonjson.ErrDuplicate, `{"a":1,"b":2,"a":3}`: canonjson.ErrDuplicate, `{"a":1,"\u0061":2}`: canonjson.ErrDuplicate,
		`{"x":{"\n":1,"\u000a":2}}`: canonjson.ErrDuplicate,

		deep(canonjson.DefaultMaxDepth + 1): canonjson.ErrDepth,
	} {
		dst, err := canonjson.Append([]byte("kept"), []byte(in), strict)
		require.ErrorIs(t, err, want, "%.40q", in)
		require.Equal(t, want, canonjson.Reason(err))
		require.Equal(t, "kept", string(dst))
		require.False(t, canonjson.IsCanonical([]byte(in), strict))
	}
	require.NoError(t, canonjson.Check([]byte(deep(canonjson.DefaultMaxDepth)), strict))
	require.ErrorIs(t, canonjson.Check([]byte(`[1,2,3]`), canonjson.Options{MaxSize: 6}), canonjson.ErrSize)
	require.NoError(t, canonjson.Check([]byte(`[1,2,3]`), canonjson.Options{MaxSize: 7}))
	for _, in := range []string{`1.5`, `9007199254740992`, `9007199254740991.5`, `1e16`, `1e-1`, `0.1e999999999999999999999`, `1e-99999999999999999999`} {
		require.ErrorIs(t, canonjson.Check([]byte(in), normalise), canonjson.ErrNumber, in)
	}
}

// Rooms of versions 1 to 5 hold numbers that canonical JSON forbids; their text is what was hashed.
func TestLax(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1.50, "a":1E3}`:               `{"a":1E3,"b":1.50}`,
		`[18446744073709551616, -0.0, -0]`:  `[18446744073709551616,-0.0,0]`,
		`{"a":1,"b":2,"a":3}`:               `{"a":3,"b":2}`,
		`{"a":{"x":1},"a":{"z":1,"y":2}}`:   `{"a":{"y":2,"z":1}}`,
		`{"z":{"b":1,"a":2},"z":1,"c":1.0}`: `{"c":1.0,"z":1}`,
	} {
		got, err := canonjson.Canonical([]byte(in), lax)
		require.NoError(t, err, in)
		require.Equal(t, want, string(got))
		require.True(t, canonjson.IsCanonical(got, lax), want)
	}
	for _, in := range []string{`01`, `1.`, `NaN`, `"\ud800"`, "\"\xff\""} {
		require.Error(t, canonjson.Check([]byte(in), lax), in)
	}
}

func TestAppendIndexed(t *testing.T) {
	for _, in := range []string{
		`{}`, `{"a":1}`, `{"a":1,"b":{"x":[1,2]},"c":"d"}`, `{ "c":1, "b":{"z":1,"y":2}, "a":"\u0041" }`, `{"k":{"z":1,"y":2},"l":1}`,
		`{"a":"\/\/","b":1}`, `{"\"":1,"\\":2}`,
	} {
		dst, members, err := canonjson.AppendIndexed([]byte("xyz"), []byte(in), strict, nil)
		require.NoError(t, err)
		object := dst[3:]
		require.Equal(t, canonjson.Index(object, nil), members, in)
		var parsed map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(object, &parsed))
		require.Len(t, members, len(parsed))
		it := canonjson.Walk(object)
		for _, m := range members {
			require.True(t, it.Next())
			require.Equal(t, string(it.Key()), string(object[m.KeyStart:m.KeyEnd]))
			require.Equal(t, string(it.Value()), string(object[m.ValueStart:m.ValueEnd]))
			require.Equal(t, string(parsed[it.KeyString()]), string(it.Value()))
		}
		require.False(t, it.Next())
	}
}

// value draws a JSON value of the forms that canonical JSON has.
func value(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 6
		if depth == 0 {
			kinds = 4
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return rapid.Int64Range(canonjson.MinInt, canonjson.MaxInt).Draw(t, "int")
		case 1:
			return rapid.String().Draw(t, "string")
		case 2:
			return rapid.Bool().Draw(t, "bool")
		case 3:
			return nil
		case 4:
			return rapid.SliceOfN(value(depth-1), 0, 6).Draw(t, "array")
		default:
			return rapid.MapOfN(rapid.String(), value(depth-1), 0, 8).Draw(t, "object")
		}
	})
}

// Whatever order, escapes and white space a value is written with, the canonical form is one; it says
// the same; and it is its own canonical form.
func TestOneCanonicalForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := value(4).Draw(t, "value")
		plain, err := json.Marshal(v) // sorted keys, HTML escapes
		require.NoError(t, err)
		var spaced bytes.Buffer
		require.NoError(t, json.Indent(&spaced, plain, " ", "\t"))
		shuffled := shuffle(t, v)

		a, err := canonjson.Canonical(plain, strict)
		require.NoError(t, err)
		for _, other := range [][]byte{spaced.Bytes(), shuffled, a} {
			b, err := canonjson.Canonical(other, strict)
			require.NoError(t, err)
			require.Equal(t, string(a), string(b))
		}
		require.True(t, canonjson.IsCanonical(a, strict))
		m, err := canonjson.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, string(a), string(m))

		decoder := json.NewDecoder(bytes.NewReader(a))
		var got, want any
		require.NoError(t, decoder.Decode(&got))
		require.NoError(t, json.Unmarshal(plain, &want))
		require.Equal(t, want, got)
	})
}

// shuffle writes a value with its keys in any order.
func shuffle(t *rapid.T, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		out := []byte("{")
		for i, k := range rapid.Permutation(keys).Draw(t, "keys") {
			if i > 0 {
				out = append(out, ',')
			}
			name, _ := json.Marshal(k)
			out = append(append(append(out, name...), ':'), shuffle(t, v[k])...)
		}
		return append(out, '}')
	case []any:
		out := []byte("[")
		for i, e := range v {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, shuffle(t, e)...)
		}
		return append(out, ']')
	default:
		out, _ := json.Marshal(v)
		return out
	}
}

func TestReaders(t *testing.T) {
	object, err := canonjson.Canonical([]byte(`{"s":"a\"\\\n\u0001é","i":-12,"big":9007199254740991,"t":true,"f":false,"n":null,"o":{"x":"}]"},"a":[1,"]",[2]]}`), strict)
	require.NoError(t, err)
	s, ok := canonjson.GetString(object, "s")
	require.True(t, ok)
	require.Equal(t, "a\"\\\n\x01é", s)
	i, ok := canonjson.GetInt(object, "i")
	require.True(t, ok)
	require.EqualValues(t, -12, i)
	i, ok = canonjson.GetInt(object, "big")
	require.True(t, ok)
	require.EqualValues(t, canonjson.MaxInt, i)
	b, ok := canonjson.GetBool(object, "t")
	require.True(t, ok && b)
	b, ok = canonjson.GetBool(object, "f")
	require.True(t, ok && !b)
	_, ok = canonjson.GetString(object, "i")
	require.False(t, ok)
	_, ok = canonjson.GetInt(object, "s")
	require.False(t, ok)
	_, ok = canonjson.Get(object, "missing")
	require.False(t, ok)
	v, ok := canonjson.Get(object, "a")
	require.True(t, ok && canonjson.IsArray(v))
	var elements []string
	for it := canonjson.Walk(v); it.Next(); {
		elements = append(elements, string(it.Value()))
	}
	require.Equal(t, []string{"1", `"]"`, "[2]"}, elements)
	v, ok = canonjson.Get(object, "o")
	require.True(t, ok && canonjson.IsObject(v))
	v, _ = canonjson.Get(object, "n")
	require.True(t, canonjson.IsNull(v))
	for _, text := range []string{"", "-", "1.0", "1e3", `"1"`, "99999999999999999999", "--1", "true"} {
		_, ok = canonjson.Int([]byte(text))
		require.False(t, ok, text)
	}
	i, ok = canonjson.Int([]byte("-9223372036854775808"))
	require.True(t, ok)
	require.EqualValues(t, -9223372036854775808, i)
}

func TestAppendString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		text := canonjson.AppendString(nil, s)
		require.True(t, canonjson.IsCanonical(text, strict), "%q", text)
		back, ok := canonjson.String(text)
		require.True(t, ok)
		require.Equal(t, s, back)
	})
	require.Equal(t, "\"\ufffd\"", string(canonjson.AppendString(nil, "\xff")))
}

// An adversary's objects, each level out of order, cost no more than their length. The count of
// allocations bounds the work that can be seen without a clock: nothing is copied once a level.
func TestNestedDisorderIsLinear(t *testing.T) {
	nested := func(depth int) []byte {
		return []byte(strings.Repeat(`{"b":`, depth) + `"` + strings.Repeat("x", 60000) + `"` + strings.Repeat(`,"a":1}`, depth))
	}
	in := nested(500)
	want := []byte(strings.Repeat(`{"a":1,"b":`, 500) + `"` + strings.Repeat("x", 60000) + `"` + strings.Repeat(`}`, 500))
	got, err := canonjson.Canonical(in, strict)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

func TestNoAllocations(t *testing.T) {
	for name, src := range documents() {
		buf := make([]byte, 0, 4*len(src))
		require.Zero(t, testing.AllocsPerRun(100, func() {
			var err error
			if buf, err = canonjson.Append(buf[:0], src, strict); err != nil {
				panic(err)
			}
		}), name)
		require.Zero(t, testing.AllocsPerRun(100, func() { canonjson.IsCanonical(src, strict) }), name)
	}
}

// Objects of more members than are noted without allocation, in order and not.
func TestManyMembers(t *testing.T) {
	for _, n := range []int{39, 40, 41, 42, 100, 1000} {
		for _, swap := range []int{-1, 0, 1, 38, 39, 40, n - 2} {
			if swap > n-2 {
				continue
			}
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprintf("%04d", i)
			}
			if swap >= 0 {
				keys[swap], keys[swap+1] = keys[swap+1], keys[swap]
			}
			in := []byte{'{'}
			want := map[string]any{}
			for i, k := range keys {
				in = fmt.Appendf(in, `%q:{"b":%d,"a":[{"d":1,"c":2}]},`, k, i)
				want[k] = map[string]any{"b": i, "a": []any{map[string]int{"d": 1, "c": 2}}}
			}
			in[len(in)-1] = '}'
			wanted, err := json.Marshal(want)
			require.NoError(t, err)
			got, members, err := canonjson.AppendIndexed([]byte("x"), in, strict, nil)
			require.NoError(t, err)
			require.Equal(t, string(wanted), string(got[1:]))
			require.Equal(t, canonjson.Index(wanted, nil), members)
			sorted, err := canonjson.Canonical(got[1:], strict)
			require.NoError(t, err)
			require.Equal(t, string(wanted), string(sorted))
		}
	}
}

func FuzzAppend(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"b":1,"a":{"d":[1,-0,1e3],"c":"\ud83d\ude00\u0000\/"}}`, `{"a":1,"a":2}`, "{\"\xff\":1}", `"\ud800"`, `[[[[]]]]`,
		` { "x" : [ 1.5 , 9007199254740992 ] } `, `{"\n":1,"\u000a":2,"\"":3,"[":4}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, o := range []canonjson.Options{strict, lax, normalise} {
			out, err := canonjson.Canonical(src, o)
			if err != nil {
				if canonjson.IsCanonical(src, o) {
					t.Fatalf("refused and canonical: %q", src)
				}
				continue
			}
			if !json.Valid(out) {
				t.Fatalf("%q became invalid %q", src, out)
			}
			again, err := canonjson.Canonical(out, o)
			if err != nil || !bytes.Equal(out, again) {
				t.Fatalf("%q became %q and then %q, %v", src, out, again, err)
			}
			if !canonjson.IsCanonical(out, o) {
				t.Fatalf("%q is not seen as canonical", out)
			}
			if canonjson.IsCanonical(src, o) != bytes.Equal(src, out) {
				t.Fatalf("%q: IsCanonical disagrees with Append", src)
			}
			walk(t, out)
		}
	})
}

// walk reads all of a canonical value.
func walk(t *testing.T, v []byte) {
	total := 0
	n := 0
	for it := canonjson.Walk(v); it.Next(); n++ {
		walk(t, it.Value())
		total += len(it.Value()) + len(it.Key())
		if it.Key() != nil {
			total++
			it.KeyString()
		}
	}
	if n > 0 && total+n+1 != len(v) {
		t.Fatalf("walked %d bytes of %q", total, v)
	}
	canonjson.String(v)
	canonjson.Int(v)
}

func documents() map[string][]byte {
	pdu := `{"auth_events":["$Vo6HH2DKfZOkpWGZTF7dXGPJ1Lfw2mGmCLjhJdTQbUg","$p1mXV6_TlCmlvZX5EWCXgDwG1dVHQvG6TkwVjrjlYnY","$sHhXjLE3ZTwq5jEyV_ls7Ho9Ybp1IpGdJmhDHeIXAhM"],` +
		`"content":{"body":"This is a message of the usual length, such as people write all day long, with a link https://example.org/","format":"org.matrix.custom.html",` +
		`"formatted_body":"This is a message of the <b>usual</b> length","m.mentions":{"user_ids":["@bob:example.org"]},"msgtype":"m.text"},"depth":123456,` +
		`"hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},"origin_server_ts":1715000000000,"prev_events":["$Zr0mP3wEwXqS1q7yZ4pUoR3Bf4mCt1d0tqS1q7yZ4pU"],` +
		`"room_id":"!jEsUZKDJdhlrceRyVU:example.org","sender":"@alice:example.org","signatures":{"example.org":{"ed25519:a_key":` +
		`"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}},"type":"m.room.message"}`
	var unsorted bytes.Buffer
	unsorted.WriteByte('{')
	members := canonjson.Index([]byte(pdu), nil)
	for i := len(members) - 1; i >= 0; i-- {
		unsorted.WriteString(pdu[members[i].KeyStart:members[i].ValueEnd])
		if i > 0 {
			unsorted.WriteByte(',')
		}
	}
	unsorted.WriteByte('}')
	var spaced bytes.Buffer
	_ = json.Indent(&spaced, []byte(pdu), "", "  ")
	large := `{"users":{`
	for i := range 1100 {
		large += fmt.Sprintf(`"@user_with_a_name_%04d:homeserver.example.org":%d,`, i, i%101)
	}
	large += `"@z:example.org":1},"users_default":0}`
	return map[string][]byte{"sorted 1 kB": []byte(pdu), "unsorted 1 kB": unsorted.Bytes(), "spaced 1 kB": spaced.Bytes(), "sorted 52 kB": []byte(large)}
}

func BenchmarkAppend(b *testing.B) {
	for name, src := range documents() {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 2*len(src))
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = canonjson.Append(buf[:0], src, strict); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIsCanonical(b *testing.B) {
	src := documents()["sorted 1 kB"]
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if !canonjson.IsCanonical(src, strict) {
			b.Fatal("not canonical")
		}
	}
}

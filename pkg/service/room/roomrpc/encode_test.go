package roomrpc

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/service/room"
)

// commands is every command.
func commands() []room.Command {
	return []room.Command{
		&room.CreateRoom{}, &room.Send{}, &room.SendState{}, &room.Redact{}, &room.SetMembership{}, &room.SetProfile{}, &room.Forget{},
		&room.Receipt{}, &room.Typing{}, &room.SetAlias{}, &room.DeleteAlias{}, &room.SetVisibility{},
		&room.Accept{}, &room.Outline{}, &room.Outliers{}, &room.Enter{}, &room.Backfill{}, &room.OutOfBand{}, &room.Template{}, &room.InviteDraft{},
	}
}

// fill sets every field to something, each time to something else.
func fill(t *testing.T, v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("s", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
		if v.Type() == reflect.TypeFor[time.Duration]() {
			v.SetInt(int64(time.Duration(*n) * time.Millisecond))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(fmt.Sprint("b", *n)))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), n)
		fill(t, v.Index(1), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	default:
		t.Fatalf("fill knows no %s", v.Type())
	}
}

// Every field of every command arrives.
func TestEveryFieldIsCarried(t *testing.T) {
	require.Len(t, decoders(), len(commands()))
	for _, c := range commands() {
		n := 0
		fill(t, reflect.ValueOf(c).Elem(), &n)
		m, err := encode(c)
		require.NoError(t, err)
		b, err := proto.Marshal(m)
		require.NoError(t, err)
		decode := decoders()[c.Method()]
		require.NotNil(t, decode, c.Method())
		got, err := decode(b)
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
}

func FuzzDecode(f *testing.F) {
	for i, c := range commands() {
		n := 0
		fill(nil, reflect.ValueOf(c).Elem(), &n)
		m, err := encode(c)
		require.NoError(f, err)
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(i, b)
	}
	all := commands()
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		if i < 0 {
			return
		}
		c, err := decoders()[all[i%len(all)].Method()](b)
		if err != nil {
			return
		}
		if _, err := encode(c); err != nil {
			t.Fatal(err)
		}
	})
}

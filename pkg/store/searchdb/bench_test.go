package searchdb

import (
	"strings"
	"testing"
)

// BenchmarkWords makes the words of a message of 80 words, as each that is sent is indexed.
func BenchmarkWords(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"ascii", strings.Repeat("The quick brown fox jumps over lazy dogs. ", 10)},
		{"latin", strings.Repeat("Zwölf Boxkämpfer jagen Viktor quer über den Deich. ", 10)},
		{"han", strings.Repeat("東京都千代田区、", 40)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.text)))
			e := Event{Nid: 1, Room: 2, Sender: "@alice:example.org", Key: KeyBody, Text: c.text}
			for b.Loop() {
				eventWords(&e)
			}
		})
	}
}

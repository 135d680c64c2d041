package searchdb

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/text/unicode/norm"
)

// Limits of what is taken of a text and of a query.
const (
	maxText  = 64 << 10 // bytes
	maxWords = 4096
	maxWord  = 64 // bytes
	// maxPlaces is how often one word counts; PostgreSQL keeps 255.
	maxPlaces = 200
	maxTerms  = 24
)

// fold makes letters that people take for the same the same: case, width, and the accents of Latin, Greek and Cyrillic.
func fold(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	if isASCII(s) {
		return strings.ToLower(s)
	}
	s = norm.NFKD.String(strings.ToValidUTF8(s, " "))
	s = strings.Map(func(r rune) rune {
		if r >= 0x300 && r <= 0x36f {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	return norm.NFC.String(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// unspaced tells of a letter of a script that is written without spaces.
func unspaced(r rune) bool {
	return r >= firstUnspaced && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// firstUnspaced is where Thai begins, the first of them.
const firstUnspaced = 0x0e00

func inWord(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z'
	}
	return unicode.In(r, unicode.L, unicode.M, unicode.N)
}

// runs gives the words of a text in their order, and of unspaced scripts whole runs.
func runs(s string, each func(word string, unspaced bool)) {
	s = fold(s)
	start, kind := -1, false
	end := func(i int) {
		if start >= 0 {
			each(s[start:i], kind)
		}
		start = -1
	}
	for i, r := range s {
		switch {
		case !inWord(r):
			end(i)
		case start < 0:
			start, kind = i, unspaced(r)
		case unspaced(r) != kind && !unicode.Is(unicode.M, r):
			end(i)
			start, kind = i, unspaced(r)
		}
	}
	end(len(s))
}

// pairs gives each two neighbours of a run, and its last alone, so that one letter is found as the beginning of a pair.
func pairs(run string, last bool, each func(string)) {
	letters := []rune(run)
	for i := range letters {
		switch {
		case i+1 < len(letters):
			each(string(letters[i : i+2]))
		case last || len(letters) == 1:
			each(string(letters[i]))
		}
	}
}

func cut(word string) string {
	if len(word) <= maxWord {
		return word
	}
	n := maxWord
	for !utf8.RuneStart(word[n]) {
		n--
	}
	return word[:n]
}

// Weight says how much a word counts: 'A' most, 'D' least.
type Weight = pgtype.TSVectorWeight

// Text is a part of what a row is found by.
type Text struct {
	Text   string
	Weight Weight
}

// Words makes the words of texts. labels are found as they are, and by nothing that a text can hold; no two are the same.
func Words(labels []string, texts ...Text) pgtype.TSVector {
	// The places of a word are a list within one slice: a text has many words, and most of them once.
	type place struct {
		at     uint16
		next   int // in places; -1: the last
		weight Weight
	}
	type entry struct {
		word              string
		first, last, many int
	}
	size := 0
	for _, t := range texts {
		size += min(len(t.Text), maxText)
	}
	about := size/6 + 1 // a word's length with the space after it
	at := make(map[string]int, 16)
	words := make([]entry, 0, min(about, 16))
	places := make([]place, 0, min(about, maxWords))
	n := uint16(0)
	var weight Weight
	add := func(w string) {
		if n >= maxWords {
			return
		}
		n++
		w = cut(w)
		i, ok := at[w]
		if !ok {
			i = len(words)
			at[w] = i
			words = append(words, entry{word: w, first: len(places)})
		}
		e := &words[i]
		if e.many == maxPlaces {
			return
		}
		if e.many > 0 {
			places[e.last].next = len(places)
		}
		e.last, e.many = len(places), e.many+1
		places = append(places, place{n, -1, weight})
	}
	for _, t := range texts {
		weight = t.Weight
		runs(t.Text, func(w string, whole bool) {
			if whole {
				pairs(w, true, add)
				return
			}
			add(w)
		})
	}
	lexemes := make([]pgtype.TSVectorLexeme, 0, len(labels)+len(words))
	for _, l := range labels {
		lexemes = append(lexemes, pgtype.TSVectorLexeme{Word: label(l)})
	}
	kept := make([]pgtype.TSVectorPosition, 0, len(places))
	for i := range words {
		first := len(kept)
		for p := words[i].first; p >= 0; p = places[p].next {
			kept = append(kept, pgtype.TSVectorPosition{Position: places[p].at, Weight: places[p].weight})
		}
		lexemes = append(lexemes, pgtype.TSVectorLexeme{Word: words[i].word, Positions: kept[first:len(kept):len(kept)]})
	}
	// As PostgreSQL has them: else it sorts them itself.
	slices.SortFunc(lexemes, func(a, b pgtype.TSVectorLexeme) int { return strings.Compare(a.Word, b.Word) })
	return pgtype.TSVector{Lexemes: lexemes, Valid: true}
}

// label marks a label, so that no word is the same.
func label(l string) string {
	l = l[:min(len(l), 512)]
	if strings.IndexByte(l, 0) >= 0 {
		l = strings.ReplaceAll(l, "\x00", "")
	}
	return "#" + l
}

// quoteLabel gives a label as a query names it.
func quoteLabel(l string) string {
	l = label(l)
	if strings.ContainsAny(l, `'\`) {
		l = strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(l)
	}
	return "'" + l + "'"
}

// Query is what is looked for.
type Query struct {
	// Terms are the words that a client may highlight.
	Terms []string
	words string
}

// ParseQuery reads a search term: all of its words must be there. Words of at least whole letters are found by their beginnings
// too. ok is false if it has no words.
func ParseQuery(term string, whole int) (q Query, ok bool) {
	var parts []string
	add := func(w string, beginning bool) {
		if len(parts) >= maxTerms {
			return
		}
		w = "'" + cut(w) + "'"
		if beginning {
			w += ":*"
		}
		parts = append(parts, w)
	}
	runs(term, func(w string, unspaced bool) {
		q.Terms = append(q.Terms, w)
		if !unspaced {
			add(w, utf8.RuneCountInString(w) >= whole)
			return
		}
		one := utf8.RuneCountInString(w) == 1
		pairs(w, false, func(p string) { add(p, one) })
	})
	q.Terms = q.Terms[:min(len(q.Terms), maxTerms)]
	q.words = strings.Join(parts, " & ")
	return q, len(parts) > 0
}

// AnyOf demands one of some labels, which may not be none.
func anyOf(labels []string) string {
	quoted := make([]string, len(labels))
	for i, l := range labels {
		quoted[i] = quoteLabel(l)
	}
	return "(" + strings.Join(quoted, " | ") + ")"
}

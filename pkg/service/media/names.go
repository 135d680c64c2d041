package media

import (
	"mime"
	"strings"
	"unicode/utf8"
)

// Bounds of what is kept beside a content.
const (
	maxTypeLength = 255
	maxNameLength = 1024
)

// unknownType is that of contents of which nobody said what they are.
const unknownType = "application/octet-stream"

// cleanType gives a content type that may be sent in a header, as it was given if it can be.
func cleanType(s string) string {
	if len(s) > maxTypeLength {
		return unknownType
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return unknownType
		}
	}
	if t, _, err := mime.ParseMediaType(s); err != nil || !strings.Contains(t, "/") {
		return unknownType
	}
	return s
}

// cleanName gives the name of a file as others told it, empty if it can be none.
func cleanName(s string) string {
	if len(s) > maxNameLength || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return ""
	}
	return s
}

// inline tells whether browsers may show a content of that type in place: they run nothing of what is in it.
func inline(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch t {
	case "text/css", "text/plain", "text/csv", "application/json", "application/ld+json", "image/jpeg", "image/gif", "image/png", "image/apng",
		"image/webp", "image/avif", "video/mp4", "video/webm", "video/ogg", "video/quicktime", "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg",
		"audio/ogg", "audio/wave", "audio/wav", "audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac":
		return true
	}
	return false
}

// Disposition gives the header that says what to do with a content of that type, and what it is called ("": nothing).
func Disposition(contentType, name string) string {
	how := "attachment"
	if inline(contentType) {
		how = "inline"
	}
	if name == "" {
		return how
	}
	if s := mime.FormatMediaType(how, map[string]string{"filename": name}); s != "" {
		return s
	}
	return how
}

// nameOf gives the name that such a header of another server has, empty if it has none.
func nameOf(disposition string) string {
	if len(disposition) > 4*maxNameLength {
		return ""
	}
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		return ""
	}
	return cleanName(params["filename"])
}

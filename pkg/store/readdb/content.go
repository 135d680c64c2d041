package readdb

import "github.com/heddle-im/heddle/pkg/matrix/canonjson"

// contentString gives a string of the content of a stored PDU.
func contentString(pdu []byte, key string) string {
	content, ok := canonjson.Get(pdu, "content")
	if !ok {
		return ""
	}
	s, _ := canonjson.GetString(content, key)
	return s
}

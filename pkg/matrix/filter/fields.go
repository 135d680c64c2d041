package filter

import (
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// fields are the members of an object that are wanted: nil stands for the whole of a value.
type fields map[string]fields

// parseFields reads dot-separated property paths (spec: "Dot-separated property paths"). No path wants everything: a server may tell more than it
// is asked for, and an event without members is of no use.
func parseFields(paths []string) fields {
	if len(paths) == 0 {
		return nil
	}
	root := make(fields)
	for _, p := range paths {
		at, names := root, splitPath(p)
		for i, name := range names {
			next, known := at[name]
			switch {
			case i == len(names)-1:
				at[name] = nil
			case !known:
				next = make(fields)
				at[name] = next
			}
			if known && next == nil { // the whole is wanted already
				break
			}
			at = next
		}
	}
	return root
}

// splitPath splits a path at its dots. A backslash makes a dot or a backslash after it part of a name, and is one itself before anything else.
func splitPath(p string) (names []string) {
	var name []byte
	for i := 0; i < len(p); i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p) && (p[i+1] == '.' || p[i+1] == '\\'):
			i++
			name = append(name, p[i])
		case p[i] == '.':
			names, name = append(names, string(name)), nil
		default:
			name = append(name, p[i])
		}
	}
	return append(names, string(name))
}

// Picks tells whether the filter wants some members of events only.
func (f *Filter) Picks() bool { return f.picked != nil }

// AppendPicked appends an event with those of its members that the filter wants.
func (f *Filter) AppendPicked(dst, event []byte) []byte {
	if f.picked == nil {
		return append(dst, event...)
	}
	return f.picked.append(dst, event)
}

func (w fields) append(dst, object []byte) []byte {
	dst = append(dst, '{')
	begin := len(dst)
	for it := canonjson.Walk(object); it.Next(); {
		inner, wanted := w[it.KeyString()]
		if !wanted || inner != nil && !canonjson.IsObject(it.Value()) {
			continue
		}
		mark := len(dst)
		if mark > begin {
			dst = append(dst, ',')
		}
		dst = append(append(dst, it.Key()...), ':')
		if inner == nil {
			dst = append(dst, it.Value()...)
			continue
		}
		value := len(dst)
		if dst = inner.append(dst, it.Value()); len(dst) == value+len(`{}`) { // it has none of what is wanted of it
			dst = dst[:mark]
		}
	}
	return append(dst, '}')
}

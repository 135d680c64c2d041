package route

import (
	"fmt"
	"slices"
	"strings"
)

// Param is a path variable as it stood in the request: still percent-encoded.
type Param struct{ Name, Value string }

// Match is what a path leads to.
type Match struct {
	// Row is the endpoint, nil if no endpoint has this path and method.
	Row *Row
	// Pattern is the spelling of the path that matched.
	Pattern string
	// Params are the path's variables, in the order of the path.
	Params []Param
	// Allowed are the methods of the endpoints at this path, sorted, when the path is known and the method is not.
	Allowed []string
}

// Index finds rows by method and path: a tree of segments, so that a look-up costs the length of the
// path and not the length of the table.
type Index struct {
	rows []Row
	root *node
}

type node struct {
	literals map[string]*node
	variable *node
	ends     []end
	tails    []end // {name...} here
}

type end struct {
	row     *Row
	pattern string
	names   []string
}

// NewIndex builds an index. It fails on a bad pattern, and when two rows claim the same request.
func NewIndex(rows []Row) (*Index, error) {
	ix := &Index{rows: slices.Clone(rows), root: &node{}}
	names := make(map[string]bool, len(rows))
	for i := range ix.rows {
		r := &ix.rows[i]
		if r.Name == "" || names[r.Name] {
			return nil, fmt.Errorf("route %q: name missing or used twice", r.Name)
		}
		names[r.Name] = true
		if len(r.Methods) == 0 || len(r.Paths) == 0 {
			return nil, fmt.Errorf("route %q: no method or no path", r.Name)
		}
		for _, p := range r.Paths {
			if err := ix.add(r, p); err != nil {
				return nil, fmt.Errorf("route %q: path %q: %w", r.Name, p, err)
			}
		}
	}
	return ix, nil
}

// Rows returns the rows in their order; not to be changed.
func (ix *Index) Rows() []Row { return ix.rows }

func (ix *Index) add(r *Row, pattern string) error {
	segs, err := ParsePattern(pattern)
	if err != nil {
		return err
	}
	n := ix.root
	e := end{row: r, pattern: pattern}
	tail := false
	for _, s := range segs {
		switch s.Type {
		case Literal:
			next := n.literals[s.Text]
			if next == nil {
				next = &node{}
				if n.literals == nil {
					n.literals = make(map[string]*node)
				}
				n.literals[s.Text] = next
			}
			n = next
		case Variable:
			if n.variable == nil {
				n.variable = &node{}
			}
			n = n.variable
			e.names = append(e.names, s.Text)
		case Tail:
			e.names = append(e.names, s.Text)
			tail = true
		}
	}
	list := &n.ends
	if tail {
		list = &n.tails
	}
	for _, other := range *list {
		for _, m := range r.Methods {
			if other.row.Allows(m) {
				return fmt.Errorf("conflicts with %s %s of %q", m, other.pattern, other.row.Name)
			}
		}
	}
	*list = append(*list, e)
	return nil
}

// maxParams is enough for every pattern; it only sizes a buffer.
const maxParams = 6

// Lookup finds the endpoint for a method and a path as it came over the wire (percent-encoded, without
// the query). Literals win over variables, longer literal prefixes over shorter, and a path whose most
// literal reading has not the method is read again with variables.
func (ix *Index) Lookup(method, escapedPath string) Match {
	if escapedPath == "" || escapedPath[0] != '/' {
		return Match{}
	}
	w := walk{method: method, values: make([]string, 0, maxParams)}
	e := w.visit(ix.root, escapedPath[1:], true)
	if e == nil {
		slices.Sort(w.allowed)
		return Match{Allowed: slices.Compact(w.allowed)}
	}
	m := Match{Row: e.row, Pattern: e.pattern}
	if len(e.names) > 0 {
		m.Params = make([]Param, len(e.names))
		for i, name := range e.names {
			m.Params[i] = Param{Name: name, Value: w.values[i]}
		}
	}
	return m
}

type walk struct {
	method  string
	values  []string
	allowed []string
}

// visit follows the rest of a path from a node; more says that a segment (perhaps empty) is still to come.
func (w *walk) visit(n *node, rest string, more bool) *end {
	if !more {
		if e := w.pick(n.ends); e != nil {
			return e
		}
		if e := w.pick(n.tails); e != nil {
			w.values = append(w.values, "")
			return e
		}
		return nil
	}
	seg, tail, found := strings.Cut(rest, "/")
	if next := n.literals[seg]; next != nil {
		if e := w.visit(next, tail, found); e != nil {
			return e
		}
	}
	if n.variable != nil && seg != "" {
		w.values = append(w.values, seg)
		if e := w.visit(n.variable, tail, found); e != nil {
			return e
		}
		w.values = w.values[:len(w.values)-1]
	}
	if e := w.pick(n.tails); e != nil {
		w.values = append(w.values, rest)
		return e
	}
	return nil
}

func (w *walk) pick(ends []end) *end {
	for i := range ends {
		if ends[i].row.Allows(w.method) {
			return &ends[i]
		}
	}
	for i := range ends {
		w.allowed = append(w.allowed, ends[i].row.Methods...)
	}
	return nil
}

// SegmentType tells the segments of a pattern apart.
type SegmentType int

// The types of segment.
const (
	Literal SegmentType = iota
	Variable
	Tail
)

// Segment is one part of a pattern between slashes: a literal's text or a variable's name.
type Segment struct {
	Type SegmentType
	Text string
}

// ParsePattern splits a path pattern into its segments. A trailing slash is an empty literal at the end.
func ParsePattern(pattern string) ([]Segment, error) {
	rest, ok := strings.CutPrefix(pattern, "/")
	if !ok {
		return nil, fmt.Errorf("does not begin with a slash")
	}
	parts := strings.Split(rest, "/")
	segs := make([]Segment, 0, len(parts))
	seen := make(map[string]bool)
	for i, p := range parts {
		if !strings.ContainsAny(p, "{}") {
			if p == "" && i != len(parts)-1 {
				return nil, fmt.Errorf("empty segment")
			}
			segs = append(segs, Segment{Literal, p})
			continue
		}
		name, ok := strings.CutPrefix(p, "{")
		if ok {
			name, ok = strings.CutSuffix(name, "}")
		}
		name, tail := strings.CutSuffix(name, "...")
		if !ok || name == "" || strings.ContainsAny(name, "{}.") || seen[name] {
			return nil, fmt.Errorf("bad variable %q", p)
		}
		if tail && i != len(parts)-1 {
			return nil, fmt.Errorf("%q is not last", p)
		}
		seen[name] = true
		t := Variable
		if tail {
			t = Tail
		}
		segs = append(segs, Segment{t, name})
	}
	return segs, nil
}

// Fill writes a path for a pattern: value gives each variable's text, percent-encoded as need be.
func Fill(pattern string, value func(name string) string) string {
	segs, err := ParsePattern(pattern)
	if err != nil {
		return pattern
	}
	var b strings.Builder
	for _, s := range segs {
		b.WriteByte('/')
		if s.Type == Literal {
			b.WriteString(s.Text)
		} else {
			b.WriteString(value(s.Text))
		}
	}
	return b.String()
}

// Package render writes the route table in the forms that people and proxies read: a text table, JSON,
// and configuration for nginx, HAProxy, Envoy and the Kubernetes Gateway API.
//
// It is pure: the table and the upstreams' addresses by kind go in, text comes out, the same text for
// the same input. What a proxy does by it is an optimisation: any worker answers any request, so a
// configuration that is a release old, or that sends an unknown path anywhere, is slower and not wrong.
//
// It may be imported by app and cmd/heddle. It imports route.
package render

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/heddle-im/heddle/pkg/route"
)

// Options are what a configuration needs beside the table. The zero value gives placeholders.
type Options struct {
	// Upstreams are host:port of the workers by kind.
	Upstreams map[route.Kind][]string
	// Listen is the address on which the proxy takes requests, ":8008" by default.
	Listen string
	// ServerName is the public host name, "matrix.example.org" by default.
	ServerName string
	// MaxUpload is the limit of a media upload in bytes, 100 MiB by default.
	MaxUpload int64
	// Namespace and Gateway name the Gateway API objects, "heddle" and "heddle" by default; the services
	// are called "heddle-" and the kind.
	Namespace, Gateway string
}

// Formats lists what Write can write.
func Formats() []string {
	return []string{"table", "json", "nginx", "haproxy", "envoy", "gateway-api"}
}

// Write writes the route table in a format.
func Write(w io.Writer, format string, opts Options) error {
	rows := route.Table()
	opts = opts.withDefaults()
	bw := bufio.NewWriter(w)
	var err error
	switch format {
	case "table":
		err = writeTable(bw, rows)
	case "json":
		err = writeJSON(bw, rows)
	case "nginx":
		writeNginx(bw, rows, opts)
	case "haproxy":
		writeHAProxy(bw, rows, opts)
	case "envoy":
		err = writeEnvoy(bw, rows, opts)
	case "gateway-api":
		writeGatewayAPI(bw, rows, opts)
	default:
		return fmt.Errorf("unknown format %q: one of %s", format, strings.Join(Formats(), ", "))
	}
	if err != nil {
		return fmt.Errorf("write routes as %s: %w", format, err)
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("write routes as %s: %w", format, err)
	}
	return nil
}

func (o Options) withDefaults() Options {
	up := make(map[route.Kind][]string, 3)
	for i, k := range route.Kinds() {
		up[k] = o.Upstreams[k]
		if len(up[k]) == 0 {
			up[k] = []string{fmt.Sprintf("127.0.0.1:80%d1", i+1)}
		}
	}
	o.Upstreams = up
	if o.Listen == "" {
		o.Listen = ":8008"
	}
	if o.ServerName == "" {
		o.ServerName = "matrix.example.org"
	}
	if o.MaxUpload == 0 {
		o.MaxUpload = 100 << 20
	}
	if o.Namespace == "" {
		o.Namespace = "heddle"
	}
	if o.Gateway == "" {
		o.Gateway = "heddle"
	}
	return o
}

func writeTable(w io.Writer, rows []route.Row) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tMETHODS\tPATH\tNAME\tSTICKY\tAUTH\tRATE\tBODY\tTIME")
	for _, r := range rows {
		for _, p := range r.Paths {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Kind, strings.Join(r.Methods, ","), p,
				r.Name, r.Sticky, r.Auth, r.Rate, bodyText(r.MaxBody), r.Timeout)
		}
	}
	return tw.Flush()
}

func bodyText(n int64) string {
	switch {
	case n == route.BodyUpload:
		return "upload"
	case n >= 1<<20:
		return fmt.Sprintf("%dMiB", n>>20)
	default:
		return fmt.Sprintf("%dKiB", n>>10)
	}
}

type jsonRow struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Methods []string `json:"methods"`
	Paths   []string `json:"paths"`
	Sticky  string   `json:"sticky"`
	Auth    string   `json:"auth"`
	Rate    string   `json:"rate_limit"`
	// MaxBody is in bytes, or -1 for the configured limit of uploads.
	MaxBody int64  `json:"max_body"`
	Timeout string `json:"timeout"`
}

func writeJSON(w io.Writer, rows []route.Row) error {
	out := make([]jsonRow, len(rows))
	for i, r := range rows {
		out[i] = jsonRow{
			r.Name, string(r.Kind), r.Methods, r.Paths, string(r.Sticky), string(r.Auth),
			string(r.Rate), r.MaxBody, string(r.Timeout),
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}

// class is what a proxy has to know of a request; rows of one class are treated alike.
type class struct {
	kind    route.Kind
	sticky  route.Sticky
	timeout route.Timeout
	maxBody int64
}

func classOf(r route.Row, o Options) class {
	c := class{r.Kind, r.Sticky, r.Timeout, r.MaxBody}
	if c.maxBody == route.BodyUpload {
		c.maxBody = o.MaxUpload
	}
	return c
}

// unknown is the class of paths that are not in the table: a worker of any kind answers them.
func unknown() class {
	return class{route.Synchrotron, route.ByNone, route.Normal, route.BodyJSON}
}

func (c class) String() string {
	return fmt.Sprintf("%s.%s.%s.%d", c.kind, c.sticky, c.timeout, c.maxBody)
}

// classes lists the classes of the rows in the order of their first row, and unknown.
func classes(rows []route.Row, o Options) []class {
	out := []class{unknown()}
	for _, r := range rows {
		if c := classOf(r, o); !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// hotFirst puts the rows that make up most of the traffic first, for proxies that try one pattern
// after the other; among the rest the order of the table stays, but for less literal patterns, which
// come after all that could win over them.
func hotFirst(rows []route.Row) []route.Row {
	hot := []string{
		"sync", "slidingSync", "sendMessage", "federation.sendTransaction", "postReceipt", "setTyping",
		"setReadMarker", "getRoomEvents", "queryKeys", "uploadKeys", "sendToDevice", "getContentThumbnailAuthed",
		"getContentAuthed", "getRoomStateWithKey", "getMembersByRoom", "getUserProfile", "getVersions",
	}
	rank := func(r route.Row) int {
		if i := slices.Index(hot, r.Name); i >= 0 {
			return i - len(hot)
		}
		for _, p := range r.Paths {
			if strings.HasSuffix(p, "...}") {
				return 1000
			}
		}
		return 0
	}
	out := slices.Clone(rows)
	slices.SortStableFunc(out, func(a, b route.Row) int { return rank(a) - rank(b) })
	// A literal row after a row with a variable in its place would never be reached.
	return literalFirst(out)
}

// literalFirst moves each row before the first row that has a pattern which also matches one of its own.
func literalFirst(rows []route.Row) []route.Row {
	var out []route.Row
	for _, r := range rows {
		at := len(out)
		for i, earlier := range out {
			if slices.ContainsFunc(earlier.Methods, r.Allows) && covers(earlier, r) {
				at = i
				break
			}
		}
		out = slices.Insert(out, at, r)
	}
	return out
}

// covers says whether a path of the narrow row can be read by a pattern of the wide one.
func covers(wide, narrow route.Row) bool {
	for _, w := range wide.Paths {
		ws, err := route.ParsePattern(w)
		if err != nil {
			continue
		}
		for _, n := range narrow.Paths {
			if ns, err := route.ParsePattern(n); err == nil && coversPattern(ws, ns) {
				return true
			}
		}
	}
	return false
}

func coversPattern(wide, narrow []route.Segment) bool {
	for i, w := range wide {
		if w.Type == route.Tail {
			return true
		}
		if i >= len(narrow) || narrow[i].Type == route.Tail {
			return false
		}
		n := narrow[i]
		if w.Type == route.Literal && (n.Type != route.Literal || n.Text != w.Text) ||
			w.Type == route.Variable && n.Type == route.Literal && n.Text == "" {
			return false
		}
	}
	return len(wide) == len(narrow)
}

// methodsRegexp is an alternation without parentheses.
func methodsRegexp(r route.Row) string {
	ms := slices.Clone(r.Methods)
	if slices.Contains(ms, "GET") {
		ms = append(ms, "HEAD")
	}
	return strings.Join(ms, "|")
}

func segmentsRegexp(segs []route.Segment, variable string) string {
	var b strings.Builder
	for _, s := range segs {
		b.WriteByte('/')
		switch s.Type {
		case route.Literal:
			b.WriteString(regexp.QuoteMeta(s.Text))
		case route.Variable:
			b.WriteString(variable)
		case route.Tail:
			b.WriteString(".*")
		}
	}
	return b.String()
}

// pathRegexp folds a row's spellings into one expression: what they share at the front and at the end
// is written once. group is how a group opens.
func pathRegexp(r route.Row, variable, group string) string {
	var all [][]route.Segment
	for _, p := range r.Paths {
		segs, err := route.ParsePattern(p)
		if err != nil {
			continue
		}
		all = append(all, segs)
	}
	if len(all) == 1 {
		return segmentsRegexp(all[0], variable)
	}
	front, back := 0, 0
	same := func(at func(segs []route.Segment) (route.Segment, bool)) bool {
		first, ok := at(all[0])
		for _, segs := range all[1:] {
			s, here := at(segs)
			// names of variables do not matter
			ok = ok && here && s.Type == first.Type && (s.Type != route.Literal || s.Text == first.Text)
		}
		return ok
	}
	shortest := len(all[0])
	for _, segs := range all {
		shortest = min(shortest, len(segs))
	}
	for front < shortest && same(func(s []route.Segment) (route.Segment, bool) { return s[front], true }) {
		front++
	}
	for back < shortest-front && same(func(s []route.Segment) (route.Segment, bool) { return s[len(s)-1-back], true }) {
		back++
	}
	middles := make([]string, len(all))
	for i, segs := range all {
		middles[i] = segmentsRegexp(segs[front:len(segs)-back], variable)
	}
	return segmentsRegexp(all[0][:front], variable) + group + strings.Join(middles, "|") + ")" +
		segmentsRegexp(all[0][len(all[0])-back:], variable)
}

// errorJSON is the body that a proxy gives when it answers itself.
func errorJSON(code, text string) string {
	return fmt.Sprintf(`{"errcode":"%s","error":"%s"}`, code, text)
}

// printer collects text; the bufio.Writer below it keeps the first error until it is flushed.
type printer struct{ w io.Writer }

func (p printer) f(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

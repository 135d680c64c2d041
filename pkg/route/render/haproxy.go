package render

import (
	"io"
	"strings"

	"github.com/heddle-im/heddle/pkg/route"
)

// writeHAProxy writes a whole configuration for HAProxy 2.6 or later. HAProxy's path is the raw one,
// so that encoded slashes stay in their segment.
func writeHAProxy(w io.Writer, rows []route.Row, o Options) {
	p := printer{w}
	p.f(`# Made by "heddle routes --format haproxy".`)
	p.f(`# Any worker answers any request: routing by kind and by hash only saves a hop and fills caches better.`)
	p.f("defaults")
	p.f("    mode http")
	p.f("    option forwardfor")
	p.f("    option redispatch")
	p.f("    retries 2")
	p.f("    timeout connect 5s")
	p.f("    timeout client %ds", int(route.LongPoll.Proxy().Seconds()))
	p.f("    timeout http-request 30s")
	p.f("    timeout http-keep-alive 60s")
	p.f("")
	p.f("frontend heddle")
	p.f("    bind %s", haproxyBind(o.Listen))
	p.f("    # Between workers only.")
	p.f("    http-request return status 404 if { path,url_dec -m beg /_heddle/ }")
	p.f(`    http-request set-header X-Forwarded-Proto https if { ssl_fc }`)
	p.f(`    http-request set-var-fmt(txn.call) '%%[method] %%[path]'`)
	p.f("")
	p.f("    # The class of a request: kind, what to hash, time, greatest body.")
	var order []class
	byClass := map[class][]route.Row{}
	for _, r := range hotFirst(rows) {
		c := classOf(r, o)
		if byClass[c] == nil {
			order = append(order, c)
		}
		byClass[c] = append(byClass[c], r)
	}
	// The table has rows whose pattern covers another's in another class; so the more literal is asked first
	// by name, and only the first class that is found counts.
	for _, r := range precedence(rows, o) {
		haproxyClass(p, r, classOf(r, o))
	}
	for _, c := range order {
		for _, r := range byClass[c] {
			p.f(`    acl %s var(txn.call) -m reg '%s'`, haproxyACL(c), haproxyRegexp(r))
		}
		p.f(`    http-request set-var(txn.class) str(%s) if !{ var(txn.class) -m found } %s`, c, haproxyACL(c))
	}
	p.f(`    http-request set-var(txn.class) str(%s) if !{ var(txn.class) -m found }`, unknown())
	p.f("")
	for _, n := range bodySizes(rows, o) {
		p.f(`    http-request return status 413 content-type application/json string '%s' hdr Access-Control-Allow-Origin * `+
			`if { var(txn.class) -m end .%d } { req.body_size gt %d }`,
			errorJSON("M_TOO_LARGE", "The request is too large."), n, n)
	}
	p.f("")
	p.f("    # (fhdr is the whole header: X-Matrix has commas in it.)")
	p.f("    # A user's tokens have the user's name before the first dot; so all devices of a user meet.")
	p.f(`    http-request set-var(txn.token) 'req.fhdr(authorization),regsub("^[Bb]earer +","")' if { req.fhdr(authorization) -m beg -i bearer }`)
	p.f(`    http-request set-var(txn.token) urlp(access_token) if !{ var(txn.token) -m found }`)
	p.f(`    http-request set-var(txn.as) urlp(user_id)`)
	p.f(`    http-request set-var-fmt(txn.user) '%%[var(txn.token)]%%[var(txn.as)]' if { var(txn.token) -m found }`)
	p.f(`    http-request set-var(txn.user) 'var(txn.token),field(1,.)' if { var(txn.token) -m beg hed_ }`)
	p.f(`    http-request set-var(txn.key) var(txn.user) if { var(txn.class) -m sub .user. }`)
	p.f("    # Clients encode ids differently; what stands before the colon is enough.")
	p.f(`    http-request set-var(txn.room) 'path,url_dec,regsub("^[^!#]*[!#]","")' if { path,url_dec -m reg '[!#]' }`)
	p.f(`    http-request set-var(txn.key) 'var(txn.room),field(1,:),field(1,/)' if { var(txn.class) -m sub .room. } { var(txn.room) -m found }`)
	p.f(`    http-request set-var(txn.key) 'req.fhdr(authorization),regsub("^.*origin=[^A-Za-z0-9]*",""),regsub("[^A-Za-z0-9.:_-].*$","")' ` +
		`if { var(txn.class) -m sub .origin. } { req.fhdr(authorization) -m sub origin= }`)
	p.f(`    http-request set-var(txn.key) uuid if !{ var(txn.key) -m found }`)
	p.f("")
	for _, k := range route.Kinds() {
		for _, t := range route.Timeouts() {
			if hasClass(rows, o, k, t) {
				p.f(`    use_backend heddle_%s_%s if { var(txn.class) -m beg %s. } { var(txn.class) -m sub .%s. }`, ident(k), t, k, t)
			}
		}
	}
	for _, k := range route.Kinds() {
		first := ""
		for _, t := range route.Timeouts() {
			if !hasClass(rows, o, k, t) {
				continue
			}
			name := "heddle_" + ident(k) + "_" + string(t)
			p.f("")
			p.f("backend %s", name)
			p.f("    balance hash var(txn.key)")
			p.f("    hash-type consistent")
			p.f("    timeout server %ds", int(t.Proxy().Seconds()))
			for i, u := range o.Upstreams[k] {
				if first == "" {
					p.f("    server w%d %s check", i+1, u)
				} else { // one check for each worker is enough
					p.f("    server w%d %s track %s/w%d", i+1, u, first, i+1)
				}
			}
			if first == "" {
				first = name
			}
		}
	}
}

func haproxyClass(p printer, r route.Row, c class) {
	p.f(`    http-request set-var(txn.class) str(%s) if !{ var(txn.class) -m found } { var(txn.call) -m reg '%s' }`, c, haproxyRegexp(r))
}

func haproxyRegexp(r route.Row) string {
	return "^(" + methodsRegexp(r) + ") " + pathRegexp(r, "[^/]+", "(") + "$"
}

func haproxyACL(c class) string { return "c." + c.String() }

func haproxyBind(listen string) string {
	if strings.HasPrefix(listen, ":") {
		return "*" + listen
	}
	return listen
}

// precedence lists the rows that another row of another class covers.
func precedence(rows []route.Row, o Options) []route.Row {
	var out []route.Row
	for _, narrow := range rows {
		for _, wide := range rows {
			if narrow.Name != wide.Name && classOf(narrow, o) != classOf(wide, o) &&
				allowsAny(wide, narrow.Methods) && covers(wide, narrow) {
				out = append(out, narrow)
				break
			}
		}
	}
	return out
}

func allowsAny(r route.Row, methods []string) bool {
	for _, m := range methods {
		if r.Allows(m) {
			return true
		}
	}
	return false
}

func bodySizes(rows []route.Row, o Options) []int64 {
	var out []int64
	seen := map[int64]bool{}
	for _, c := range classes(rows, o) {
		if !seen[c.maxBody] {
			seen[c.maxBody] = true
			out = append(out, c.maxBody)
		}
	}
	return out
}

func hasClass(rows []route.Row, o Options, k route.Kind, t route.Timeout) bool {
	for _, c := range classes(rows, o) {
		if c.kind == k && c.timeout == t {
			return true
		}
	}
	return false
}

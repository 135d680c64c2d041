package render

import (
	"io"
	"strings"

	"github.com/heddle-im/heddle/pkg/route"
)

// writeNginx writes a file for the http context of nginx.
//
// Requests are classified by method and raw URI ($request_uri), and not by location patterns: those see
// the decoded path, in which a room id with %2F looks like two segments. The class then selects an
// internal location, because nginx takes time and size limits from the location only.
func writeNginx(w io.Writer, rows []route.Row, o Options) {
	p := printer{w}
	p.f(`# Made by "heddle routes --format nginx"; include it in the http context.`)
	p.f(`# Any worker answers any request: routing by kind and by hash only saves a hop and fills caches better.`)
	p.f("")
	for _, k := range route.Kinds() {
		p.f("upstream heddle_%s {", ident(k))
		p.f("    hash $heddle_hash consistent;")
		for _, u := range o.Upstreams[k] {
			// A refused connection is tried at the next worker at once; a worker that came back is not avoided for a while,
			// and never are all of them.
			p.f("    server %s max_fails=0;", u)
		}
		p.f("    keepalive 64;")
		p.f("}")
	}
	p.f("")
	p.f("# The class of a request: kind, what to hash, time, greatest body.")
	p.f(`map "$request_method $request_uri" $heddle_class {`)
	p.f("    default %s;", unknown())
	for _, r := range hotFirst(rows) {
		p.f(`    "~^(?:%s) %s(?:\?|$)" %s;`, methodsRegexp(r), pathRegexp(r, "[^/?]+", "(?:"), classOf(r, o))
	}
	p.f("}")
	p.f("")
	p.f("# A user's tokens have the user's name before the first dot; so all devices of a user meet.")
	p.f(`map $http_authorization $heddle_token {`)
	p.f(`    default $arg_access_token;`)
	p.f(`    "~*^Bearer +(?<heddle_bearer>[^ ]+)" $heddle_bearer;`)
	p.f(`}`)
	p.f(`map "$heddle_token$arg_user_id" $heddle_user {`)
	p.f(`    default $heddle_token$arg_user_id;`)
	p.f(`    "~^(?<heddle_localpart>hed_[A-Za-z0-9_-]+)\." $heddle_localpart;`)
	p.f(`}`)
	p.f("# Clients encode ids differently; what stands before the colon is enough.")
	p.f(`map $request_uri $heddle_room {`)
	p.f(`    default "";`)
	p.f(`    "~^[^?]*?/(?:!|%%21|%%23)(?<heddle_id>[^/?:%%]+)" $heddle_id;`)
	p.f(`}`)
	p.f(`map $http_authorization $heddle_origin {`)
	p.f(`    default "";`)
	p.f(`    "~*^X-Matrix .*?origin=\"?(?<heddle_server>[^\",]+)" $heddle_server;`)
	p.f(`}`)
	p.f(`map $heddle_class $heddle_key {`)
	p.f(`    default "";`)
	p.f(`    "~\.user\." $heddle_user;`)
	p.f(`    "~\.room\." $heddle_room;`)
	p.f(`    "~\.origin\." $heddle_origin;`)
	p.f(`}`)
	p.f(`map $heddle_key $heddle_hash {`)
	p.f(`    default $heddle_key;`)
	p.f(`    "" $request_id;`)
	p.f(`}`)
	p.f("")
	p.f("server {")
	p.f("    listen %s;", strings.TrimPrefix(o.Listen, ":"))
	p.f("    server_name %s;", o.ServerName)
	p.f("")
	p.f("    client_max_body_size %d;", o.MaxUpload)
	p.f("    proxy_http_version 1.1;")
	p.f(`    proxy_set_header Connection "";`)
	p.f("    proxy_set_header Host $http_host;")
	p.f("    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;")
	p.f("    proxy_set_header X-Forwarded-Proto $scheme;")
	p.f("    proxy_connect_timeout 5s;")
	p.f("    proxy_next_upstream error;")
	p.f("    error_page 413 @heddle_too_large;")
	p.f("    error_page 502 504 @heddle_unavailable;")
	p.f("")
	p.f("    location / {")
	p.f("        rewrite ^ /_heddle_class/$heddle_class last;")
	p.f("    }")
	p.f("    # Between workers only.")
	p.f("    location ^~ /_heddle/ {")
	p.f("        return 404;")
	p.f("    }")
	for _, c := range classes(rows, o) {
		secs := int(c.timeout.Proxy().Seconds())
		p.f("    location = /_heddle_class/%s {", c)
		p.f("        internal;")
		p.f("        client_max_body_size %d;", c.maxBody)
		p.f("        proxy_read_timeout %ds;", secs)
		p.f("        proxy_send_timeout %ds;", secs)
		if c.timeout != route.Normal {
			p.f("        proxy_buffering off;")
		}
		if c.timeout == route.Stream {
			p.f("        proxy_request_buffering off;")
		}
		p.f("        proxy_pass http://heddle_%s$request_uri;", ident(c.kind))
		p.f("    }")
	}
	for _, e := range []struct {
		name         string
		status       int
		code, reason string
	}{
		{"too_large", 413, "M_TOO_LARGE", "The request is too large."},
		{"unavailable", 502, "M_UNKNOWN", "No worker could be reached."},
	} {
		p.f("    location @heddle_%s {", e.name)
		p.f("        default_type application/json;")
		p.f("        add_header Access-Control-Allow-Origin * always;")
		p.f("        return %d '%s';", e.status, errorJSON(e.code, e.reason))
		p.f("    }")
	}
	p.f("}")
}

// ident writes a kind as a name that every proxy's grammar takes.
func ident(k route.Kind) string { return strings.ReplaceAll(string(k), "-", "_") }

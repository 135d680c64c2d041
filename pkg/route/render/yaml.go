package render

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/heddle-im/heddle/pkg/route"
)

// writeEnvoy writes a static bootstrap configuration for Envoy. Its regular expressions are RE2 and match
// the whole path without the query; the path is not decoded.
func writeEnvoy(w io.Writer, rows []route.Row, o Options) error {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	p := printer{w}
	p.f(`# Made by "heddle routes --format envoy".`)
	p.f(`# Any worker answers any request: routing by kind and by hash only saves a hop and fills caches better.`)
	p.f("static_resources:")
	p.f("  listeners:")
	p.f("  - name: heddle")
	p.f("    address: { socket_address: { address: %q, port_value: %s } }", host, port)
	p.f("    filter_chains:")
	p.f("    - filters:")
	p.f("      - name: envoy.filters.network.http_connection_manager")
	p.f("        typed_config:")
	p.f(`          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`)
	p.f("          stat_prefix: heddle")
	p.f("          use_remote_address: true")
	p.f("          normalize_path: false")
	p.f("          merge_slashes: false")
	p.f("          path_with_escaped_slashes_action: KEEP_UNCHANGED")
	p.f("          stream_idle_timeout: %ds", int(route.LongPoll.Proxy().Seconds()))
	p.f("          http_filters:")
	p.f("          - name: envoy.filters.http.router")
	p.f("            typed_config:")
	p.f(`              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`)
	p.f("          route_config:")
	p.f("            virtual_hosts:")
	p.f("            - name: heddle")
	p.f(`              domains: ["*"]`)
	p.f("              routes:")
	p.f("              - match: { safe_regex: { regex: %s } }", yamlString(internalRegexp()+".*"))
	p.f("                direct_response: { status: 404 }")
	for _, r := range hotFirst(rows) {
		p.f("              - name: %s", r.Name)
		p.f("                match:")
		p.f("                  safe_regex: { regex: %s }", yamlString(pathRegexp(r, "[^/]+", "(?:")))
		p.f("                  headers: [{ name: \":method\", string_match: { safe_regex: { regex: %s } } }]", yamlString(methodsRegexp(r)))
		envoyAction(p, r.Kind, r.Sticky, r.Timeout)
	}
	u := unknown()
	p.f(`              - match: { prefix: "/" }`)
	envoyAction(p, u.kind, u.sticky, u.timeout)
	p.f("  clusters:")
	for _, k := range route.Kinds() {
		p.f("  - name: heddle_%s", ident(k))
		p.f("    type: STRICT_DNS")
		p.f("    connect_timeout: 5s")
		p.f("    lb_policy: MAGLEV")
		p.f("    load_assignment:")
		p.f("      cluster_name: heddle_%s", ident(k))
		p.f("      endpoints:")
		p.f("      - lb_endpoints:")
		for _, up := range o.Upstreams[k] {
			h, pt, err := net.SplitHostPort(up)
			if err != nil {
				return fmt.Errorf("upstream of kind %s: %w", k, err)
			}
			p.f("        - endpoint: { address: { socket_address: { address: %q, port_value: %s } } }", h, pt)
		}
	}
	return nil
}

func envoyAction(p printer, k route.Kind, s route.Sticky, t route.Timeout) {
	p.f("                route:")
	p.f("                  cluster: heddle_%s", ident(k))
	p.f("                  timeout: %ds", envoySeconds(t))
	var header, pattern string
	switch s {
	case route.ByUser:
		header, pattern = "authorization", `^[Bb]earer +((?:hed_[A-Za-z0-9_-]+)|[^ ]+).*$`
	case route.ByRoom:
		header, pattern = ":path", `^[^?]*?/(?:!|%21|%23)([^/?:%]+).*$`
	case route.ByOrigin:
		header, pattern = "authorization", `^.*origin="?([^",]+).*$`
	default:
		return
	}
	p.f("                  hash_policy:")
	p.f("                  - header:")
	p.f("                      header_name: %q", header)
	p.f("                      regex_rewrite: { pattern: { regex: %s }, substitution: '\\1' }", yamlString(pattern))
}

// internalPrefix is where workers ask each other; no proxy lets it through.
const internalPrefix = "/_heddle/"

// internalRegexp matches internalPrefix in all spellings, for proxies that do not decode a path.
func internalRegexp() string {
	var b strings.Builder
	for _, c := range []byte(strings.Trim(internalPrefix, "/")) {
		hex := ""
		for _, d := range fmt.Sprintf("%02x", c) {
			if d >= 'a' {
				hex += "[" + string(d) + strings.ToUpper(string(d)) + "]"
			} else {
				hex += string(d)
			}
		}
		fmt.Fprintf(&b, "(?:%c|%%%s)", c, hex)
	}
	return "/+" + b.String() + "(?:/|%2[fF])"
}

// envoySeconds: 0 switches the limit on the whole answer off, which streams need; idle time still counts.
func envoySeconds(t route.Timeout) int {
	if t == route.Stream {
		return 0
	}
	return int(t.Proxy().Seconds())
}

// The Gateway API's own limits on an HTTPRoute.
const (
	gatewayRules   = 16
	gatewayMatches = 8
	gatewayPathLen = 1024
)

// writeGatewayAPI writes HTTPRoute objects. The API knows neither hashing nor body limits as standard
// features, so they are left to the workers, and rows of one kind, method and time are folded into as
// few expressions as its limits of length allow.
func writeGatewayAPI(w io.Writer, rows []route.Row, o Options) {
	type key struct {
		kind    route.Kind
		timeout route.Timeout
		method  string
	}
	var order []key
	regexps := map[key][]string{}
	for _, r := range rows {
		for _, m := range append(r.Methods[:len(r.Methods):len(r.Methods)], headOf(r)...) {
			k := key{r.Kind, r.Timeout, m}
			if regexps[k] == nil {
				order = append(order, k)
			}
			regexps[k] = append(regexps[k], pathRegexp(r, "[^/]+", "(?:"))
		}
	}
	type rule struct {
		key
		paths []string
	}
	var rules []rule
	for _, k := range order {
		paths := fold(regexps[k])
		for len(paths) > 0 {
			n := min(len(paths), gatewayMatches)
			rules = append(rules, rule{k, paths[:n]})
			paths = paths[n:]
		}
	}
	p := printer{w}
	p.f(`# Made by "heddle routes --format gateway-api". Needs a Gateway whose implementation takes regular expressions.`)
	p.f(`# Any worker answers any request: routing by kind only saves a hop.`)
	number := 0
	head := func() {
		number++
		p.f("---")
		p.f("apiVersion: gateway.networking.k8s.io/v1")
		p.f("kind: HTTPRoute")
		p.f("metadata:")
		p.f("  name: heddle-%02d", number)
		p.f("  namespace: %s", o.Namespace)
		p.f("spec:")
		p.f("  parentRefs:")
		p.f("  - name: %s", o.Gateway)
		p.f("  hostnames:")
		p.f("  - %q", o.ServerName)
		p.f("  rules:")
	}
	for i, r := range rules {
		if i%gatewayRules == 0 {
			head()
		}
		p.f("  - matches:")
		for _, re := range r.paths {
			p.f("    - method: %s", r.method)
			p.f("      path: { type: RegularExpression, value: %s }", yamlString(re))
		}
		gatewayBackend(p, r.kind, r.timeout)
	}
	head()
	p.f("  # Between workers only: no backend, so that the Gateway answers with an error of its own.")
	p.f("  - matches:")
	p.f("    - path: { type: PathPrefix, value: %q }", internalPrefix)
	p.f("    - path: { type: RegularExpression, value: %s }", yamlString(internalRegexp()+".*"))
	u := unknown()
	p.f("  - matches:")
	p.f(`    - path: { type: PathPrefix, value: "/" }`)
	gatewayBackend(p, u.kind, u.timeout)
}

func gatewayBackend(p printer, k route.Kind, t route.Timeout) {
	p.f("    timeouts: { request: %ds }", envoySeconds(t))
	p.f("    backendRefs:")
	p.f("    - { name: heddle-%s, port: 8008 }", k)
}

func headOf(r route.Row) []string {
	if r.Allows("GET") {
		return []string{"HEAD"}
	}
	return nil
}

// fold joins expressions to alternations that are not longer than a path may be.
func fold(res []string) []string {
	var out []string
	for _, re := range res {
		if n := len(out); n > 0 && len(out[n-1])+1+len(re) <= gatewayPathLen {
			out[n-1] += "|" + re
		} else {
			out = append(out, re)
		}
	}
	return out
}

func yamlString(s string) string { return strconv.Quote(s) }

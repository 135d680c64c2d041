package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/heddle-im/heddle/pkg/route"
)

func render(t *testing.T, format string, o Options) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, format, o))
	return b.String()
}

func TestEveryFormatIsWrittenTheSameTwice(t *testing.T) {
	for _, f := range Formats() {
		a := render(t, f, Options{})
		require.NotEmpty(t, a, f)
		require.Equal(t, a, render(t, f, Options{}), f)
	}
	require.ErrorContains(t, Write(io.Discard, "apache", Options{}), "nginx")
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteReportsTheWritersError(t *testing.T) {
	for _, f := range Formats() {
		require.ErrorContains(t, Write(brokenWriter{}, f, Options{}), "disk full", f)
	}
}

func TestTableHasEveryPath(t *testing.T) {
	text := render(t, "table", Options{})
	lines := strings.Split(strings.TrimSpace(text), "\n")
	n := 0
	for _, r := range route.Table() {
		for _, p := range r.Paths {
			n++
			require.Regexp(t, `(?m)^`+string(r.Kind)+` +\S+ +`+regexp.QuoteMeta(p)+` +`+regexp.QuoteMeta(r.Name)+` `, text)
		}
	}
	require.Len(t, lines, n+1)
}

func TestJSONIsTheTable(t *testing.T) {
	var got []jsonRow
	require.NoError(t, json.Unmarshal([]byte(render(t, "json", Options{})), &got))
	rows := route.Table()
	require.Len(t, got, len(rows))
	for i, r := range rows {
		require.Equal(t, jsonRow{
			r.Name, string(r.Kind), r.Methods, r.Paths, string(r.Sticky), string(r.Auth), string(r.Rate),
			r.MaxBody, string(r.Timeout),
		}, got[i])
	}
}

// TestRegexpsPickTheRow walks the patterns as a proxy does, first match first.
func TestRegexpsPickTheRow(t *testing.T) {
	rows := hotFirst(route.Table())
	var res []*regexp.Regexp
	for _, r := range rows {
		res = append(res, regexp.MustCompile("^(?:"+methodsRegexp(r)+") (?:"+pathRegexp(r, "[^/]+", "(?:")+")$"))
	}
	for _, r := range rows {
		for _, p := range r.Paths {
			for _, m := range r.Methods {
				call := m + " " + sample(p)
				for i, re := range res {
					if re.MatchString(call) {
						require.Equal(t, r.Name, rows[i].Name, call)
						break
					}
					require.Less(t, i, len(res)-1, "%s matches nothing", call)
				}
			}
		}
	}
}

func sample(pattern string) string {
	return route.Fill(pattern, func(name string) string {
		switch name {
		case "roomId", "roomIdOrAlias":
			return "!a%2Fb:example.org"
		case "userId":
			return "@u:example.org"
		case "path":
			return "v2/users"
		default:
			return "x%2Fy"
		}
	})
}

func kindUpstreams() map[route.Kind][]string {
	return map[route.Kind][]string{
		route.Master:           {"10.0.0.1:8008", "10.0.0.2:8008"},
		route.Synchrotron:      {"10.0.1.1:8008"},
		route.FederationReader: {"10.0.2.1:8008"},
	}
}

type envoyRoute struct {
	Name  string
	Match struct {
		Prefix    string
		SafeRegex struct{ Regex string } `yaml:"safe_regex"`
		Headers   []struct {
			StringMatch struct {
				SafeRegex struct{ Regex string } `yaml:"safe_regex"`
			} `yaml:"string_match"`
		}
	}
	Route struct {
		Cluster    string
		Timeout    string
		HashPolicy []struct {
			Header struct {
				Name    string `yaml:"header_name"`
				Rewrite struct {
					Pattern      struct{ Regex string }
					Substitution string
				} `yaml:"regex_rewrite"`
			}
		} `yaml:"hash_policy"`
	}
	Direct *struct{ Status int } `yaml:"direct_response"`
}

func TestEnvoy(t *testing.T) {
	var doc struct {
		Static struct {
			Listeners []struct {
				FilterChains []struct {
					Filters []struct {
						Config struct {
							RouteConfig struct {
								VirtualHosts []struct{ Routes []envoyRoute } `yaml:"virtual_hosts"`
							} `yaml:"route_config"`
						} `yaml:"typed_config"`
					}
				} `yaml:"filter_chains"`
			}
			Clusters []struct {
				Name       string
				Assignment struct {
					Endpoints []struct {
						LB []struct {
							Endpoint struct {
								Address struct {
									Socket struct {
										Address string
										Port    int `yaml:"port_value"`
									} `yaml:"socket_address"`
								}
							}
						} `yaml:"lb_endpoints"`
					}
				} `yaml:"load_assignment"`
			}
		} `yaml:"static_resources"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(render(t, "envoy", Options{Upstreams: kindUpstreams()})), &doc))
	require.Len(t, doc.Static.Clusters, 3)
	require.Len(t, doc.Static.Clusters[0].Assignment.Endpoints[0].LB, 2)
	require.Equal(t, "10.0.0.2", doc.Static.Clusters[0].Assignment.Endpoints[0].LB[1].Endpoint.Address.Socket.Address)
	require.Equal(t, 8008, doc.Static.Clusters[0].Assignment.Endpoints[0].LB[1].Endpoint.Address.Socket.Port)

	routes := doc.Static.Listeners[0].FilterChains[0].Filters[0].Config.RouteConfig.VirtualHosts[0].Routes
	require.Equal(t, 404, routes[0].Direct.Status)
	find := func(method, path string) envoyRoute {
		for _, r := range routes[1:] {
			if r.Match.Prefix == "/" {
				return r
			}
			full := func(re string) *regexp.Regexp { return regexp.MustCompile("^(?:" + re + ")$") }
			if full(r.Match.SafeRegex.Regex).MatchString(path) &&
				full(r.Match.Headers[0].StringMatch.SafeRegex.Regex).MatchString(method) {
				return r
			}
		}
		t.Fatal("no default route")
		return envoyRoute{}
	}
	for _, r := range route.Table() {
		for _, p := range r.Paths {
			for _, m := range r.Methods {
				got := find(m, sample(p))
				require.Equal(t, r.Name, got.Name)
				require.Equal(t, "heddle_"+ident(r.Kind), got.Route.Cluster)
				require.Equal(t, r.Sticky == route.ByNone, len(got.Route.HashPolicy) == 0, r.Name)
			}
		}
	}
	require.Empty(t, find("GET", "/unknown").Name)

	key := func(r envoyRoute, value string) string {
		h := r.Route.HashPolicy[0].Header.Rewrite
		require.Equal(t, `\1`, h.Substitution)
		return regexp.MustCompile(h.Pattern.Regex).ReplaceAllString(value, "$1")
	}
	sync := find("GET", "/_matrix/client/v3/sync")
	require.Equal(t, "hed_YWxpY2U", key(sync, "Bearer hed_YWxpY2U.secret.sum"))
	require.Equal(t, "other.token", key(sync, "Bearer other.token"))
	send := find("PUT", "/_matrix/client/v3/rooms/!a:b/send/x/y")
	require.Equal(t, "abc", key(send, "/_matrix/client/v3/rooms/%21abc%3Ab/send/x/y?z=1"))
	fed := find("PUT", "/_matrix/federation/v1/send/x")
	require.Equal(t, "a.org", key(fed, `X-Matrix key="ed25519:1",origin="a.org",sig="x"`))
	require.Equal(t, "a.org", key(fed, `X-Matrix origin=a.org,key="ed25519:1"`))
}

func TestGatewayAPI(t *testing.T) {
	type rule struct {
		Matches []struct {
			Method string
			Path   struct{ Type, Value string }
		}
		Timeouts    struct{ Request string }
		BackendRefs []struct {
			Name string
			Port int
		} `yaml:"backendRefs"`
	}
	type object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name, Namespace string }
		Spec       struct {
			ParentRefs []struct{ Name string } `yaml:"parentRefs"`
			Hostnames  []string
			Rules      []rule
		}
	}
	var all []rule
	names := map[string]bool{}
	dec := yaml.NewDecoder(strings.NewReader(render(t, "gateway-api", Options{ServerName: "m.example.org", Namespace: "ns"})))
	for {
		var o object
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, "gateway.networking.k8s.io/v1", o.APIVersion)
		require.Equal(t, "HTTPRoute", o.Kind)
		require.Equal(t, "ns", o.Metadata.Namespace)
		require.False(t, names[o.Metadata.Name])
		names[o.Metadata.Name] = true
		require.Equal(t, []string{"m.example.org"}, o.Spec.Hostnames)
		require.LessOrEqual(t, len(o.Spec.Rules), 16)
		matches := 0
		for _, r := range o.Spec.Rules {
			matches += len(r.Matches)
			require.Equal(t, len(r.BackendRefs) == 0, r.Timeouts.Request == "")
			for _, m := range r.Matches {
				require.LessOrEqual(t, len(m.Path.Value), 1024)
			}
		}
		require.LessOrEqual(t, matches, 128)
		all = append(all, o.Spec.Rules...)
	}
	find := func(method, path string) string {
		for _, r := range all {
			for _, m := range r.Matches {
				if m.Method != "" && m.Method != method {
					continue
				}
				if m.Path.Type == "PathPrefix" && strings.HasPrefix(path, m.Path.Value) ||
					m.Path.Type == "RegularExpression" && regexp.MustCompile("^(?:"+m.Path.Value+")$").MatchString(path) {
					if len(r.BackendRefs) == 0 {
						return "nobody"
					}
					return r.BackendRefs[0].Name
				}
			}
		}
		return ""
	}
	for _, r := range route.Table() {
		for _, p := range r.Paths {
			for _, m := range r.Methods {
				require.Equal(t, "heddle-"+string(r.Kind), find(m, sample(p)), "%s %s", m, p)
			}
		}
	}
	for _, p := range internalSpellings() {
		require.Equal(t, "nobody", find("POST", p), p)
	}
	require.NotEqual(t, "nobody", find("GET", "/_heddles"))
}

// internalSpellings are ways to ask for what is between workers only.
func internalSpellings() []string {
	return []string{"/_heddle/rpc", "/_heddle/", "/%5Fheddle/rpc", "/%5f%68%65%64%64%6c%65/rpc", "/_heddl%65/x", "//_heddle/rpc", "/_heddle%2Frpc"}
}

func TestEnvoyKeepsWhatIsInternal(t *testing.T) {
	text := render(t, "envoy", Options{ServerName: "m.example.org"})
	first := regexp.MustCompile(`routes:\s+- match: \{ safe_regex: \{ regex: ("[^\n]*") \} \}\n\s+direct_response: \{ status: 404 \}`).FindStringSubmatch(text)
	require.NotNil(t, first, "the first of all routes")
	re, err := strconv.Unquote(first[1])
	require.NoError(t, err)
	for _, p := range internalSpellings() {
		require.Regexp(t, "^(?:"+re+")$", p)
	}
	require.NotRegexp(t, "^(?:"+re+")$", "/_matrix/client/v3/sync")
}

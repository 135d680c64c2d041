package render

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/route"
)

// worker is a stand-in that says who it is and what it was asked.
type answer struct{ Kind, Instance, Method, URI, ForwardedFor, Host string }

func workers(t *testing.T, each int) map[route.Kind][]string {
	t.Helper()
	out := map[route.Kind][]string{}
	for _, k := range route.Kinds() {
		for i := range each {
			instance := fmt.Sprintf("%s-%d", k, i)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("X-Kind", string(k))
				_ = json.NewEncoder(w).Encode(answer{string(k), instance, r.Method, r.RequestURI, r.Header.Get("X-Forwarded-For"), r.Host})
			}))
			t.Cleanup(s.Close)
			out[k] = append(out[k], strings.TrimPrefix(s.URL, "http://"))
		}
	}
	return out
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// program finds a proxy; CI has both, so that a missing one fails there.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// start runs a proxy until the test ends and returns when it listens.
func start(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Log(out.String())
		}
	})
	deadline := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("%s ended: %v\n%s", name, err, out.String())
		case <-deadline:
			t.Fatalf("%s does not listen", name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func startNginx(t *testing.T, up map[route.Kind][]string) string {
	nginx := program(t, "nginx")
	dir := t.TempDir()
	addr := freePort(t)
	conf := filepath.Join(dir, "nginx.conf")
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	text := user + "daemon off;\nmaster_process off;\npid " + dir + "/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, d := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		text += d + "_temp_path " + dir + "/" + d + ";\n"
	}
	text += render(t, "nginx", Options{Upstreams: up, Listen: addr, MaxUpload: 2 << 20}) + "}\n"
	require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
	out, err := exec.Command(nginx, "-t", "-e", "stderr", "-c", conf).CombinedOutput()
	require.NoError(t, err, "%s", out)
	start(t, addr, nginx, "-e", "stderr", "-c", conf)
	return addr
}

func startHAProxy(t *testing.T, up map[route.Kind][]string) string {
	haproxy := program(t, "haproxy")
	addr := freePort(t)
	conf := filepath.Join(t.TempDir(), "haproxy.cfg")
	require.NoError(t, os.WriteFile(conf, []byte(render(t, "haproxy", Options{Upstreams: up, Listen: addr, MaxUpload: 2 << 20})), 0o600))
	out, err := exec.Command(haproxy, "-c", "-f", conf).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "WARNING")
	start(t, addr, haproxy, "-db", "-f", conf)
	return addr
}

func TestPlaceholdersAreAccepted(t *testing.T) {
	t.Run("nginx", func(t *testing.T) {
		dir := t.TempDir()
		conf := filepath.Join(dir, "nginx.conf")
		require.NoError(t, os.WriteFile(conf, []byte("pid "+dir+"/pid;\nevents {}\nhttp {\n"+render(t, "nginx", Options{})+"}\n"), 0o600))
		out, err := exec.Command(program(t, "nginx"), "-t", "-e", "stderr", "-c", conf).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	t.Run("haproxy", func(t *testing.T) {
		conf := filepath.Join(t.TempDir(), "haproxy.cfg")
		require.NoError(t, os.WriteFile(conf, []byte(render(t, "haproxy", Options{})), 0o600))
		out, err := exec.Command(program(t, "haproxy"), "-c", "-f", conf).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
}

type proxyClient struct {
	t    *testing.T
	addr string
	http *http.Client
}

func (c proxyClient) raw(method, uri, auth string, body io.Reader, size int64) *http.Response {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+uri, body)
	require.NoError(c.t, err)
	if body != nil {
		req.ContentLength = size
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := c.http.Do(req)
	require.NoError(c.t, err, "%s %s", method, uri)
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (c proxyClient) ask(method, uri, auth string) answer {
	c.t.Helper()
	resp := c.raw(method, uri, auth, nil, 0)
	require.Equal(c.t, 200, resp.StatusCode, "%s %s", method, uri)
	var a answer
	if method == http.MethodHead {
		return answer{Kind: resp.Header.Get("X-Kind")}
	}
	require.NoError(c.t, json.NewDecoder(resp.Body).Decode(&a))
	_, _ = io.Copy(io.Discard, resp.Body)
	return a
}

func TestProxies(t *testing.T) {
	for name, startProxy := range map[string]func(*testing.T, map[route.Kind][]string) string{
		"nginx": startNginx, "haproxy": startHAProxy,
	} {
		t.Run(name, func(t *testing.T) {
			c := proxyClient{t, startProxy(t, workers(t, 4)), &http.Client{
				Transport: &http.Transport{MaxIdleConnsPerHost: 4},
			}}
			defer c.http.CloseIdleConnections()
			testEveryRow(t, c)
			testStickiness(t, c)
			testLimits(t, c)
		})
	}
}

func testEveryRow(t *testing.T, c proxyClient) {
	for _, r := range route.Table() {
		for _, p := range r.Paths {
			for _, m := range r.Methods {
				uri := sample(p) + "?q=%2Fx"
				a := c.ask(m, uri, "Bearer hed_YQ.x.y")
				require.Equal(t, string(r.Kind), a.Kind, "%s %s", m, uri)
				require.Equal(t, uri, a.URI, "passed on as it came")
				require.Equal(t, m, a.Method)
				require.Equal(t, "127.0.0.1", a.ForwardedFor)
				require.Equal(t, c.addr, a.Host)
			}
		}
		if r.Allows("GET") {
			require.Equal(t, string(r.Kind), c.ask("HEAD", sample(r.Paths[0]), "").Kind)
		}
	}
	for _, uri := range []string{"/", "/_matrix/client/v3/nonsense", "/_matrix/client/v3/rooms//state"} {
		require.NotEmpty(t, c.ask("GET", uri, "").Kind)
		require.NotEmpty(t, c.ask("OPTIONS", uri, "").Kind)
	}
	for _, internal := range []string{"/_heddle/rpc", "/%5Fheddle/rpc", "/%5f%68%65%64%64%6c%65/rpc", "/_heddl%65/"} {
		require.Equal(t, 404, c.raw("POST", internal, "", nil, 0).StatusCode, internal)
	}
}

func testStickiness(t *testing.T, c proxyClient) {
	spread := func(what string, ask func(i int) []answer) {
		t.Helper()
		seen := map[string]bool{}
		for i := range 24 {
			as := ask(i)
			for _, a := range as {
				require.Equal(t, as[0].Instance, a.Instance, "%s %d: one place for one %s", what, i, what)
			}
			seen[as[0].Instance] = true
		}
		require.Greater(t, len(seen), 1, "all on one worker by %s", what)
	}
	spread("user", func(i int) []answer {
		user := fmt.Sprintf("hed_dXNlc%d", i)
		return []answer{
			c.ask("GET", "/_matrix/client/v3/sync", "Bearer "+user+".secret1.sum"),
			c.ask("GET", "/_matrix/client/v3/joined_rooms", "Bearer "+user+".secret2.sum"),
			c.ask("GET", "/_matrix/client/v3/sync?access_token="+user+".secret3.sum", ""),
		}
	})
	spread("appservice user", func(i int) []answer {
		uri := fmt.Sprintf("/_matrix/client/v3/sync?user_id=@as_%d:x", i)
		return []answer{c.ask("GET", uri, "Bearer secret.token"), c.ask("GET", uri, "Bearer secret.token")}
	})
	spread("room", func(i int) []answer {
		return []answer{
			c.ask("PUT", fmt.Sprintf("/_matrix/client/v3/rooms/!room%d:example.org/send/m/1", i), "Bearer a"),
			c.ask("PUT", fmt.Sprintf("/_matrix/client/v3/rooms/%%21room%d%%3Aexample.org/send/m/2", i), "Bearer b"),
			c.ask("POST", fmt.Sprintf("/_matrix/client/v3/join/!room%d:example.org?via=x", i), "Bearer c"),
			c.ask("POST", fmt.Sprintf("/_matrix/client/v3/rooms/!room%d/join", i), "Bearer d"),
		}
	})
	spread("alias", func(i int) []answer {
		return []answer{
			c.ask("POST", fmt.Sprintf("/_matrix/client/v3/join/%%23room%d:example.org", i), "Bearer a"),
			c.ask("POST", fmt.Sprintf("/_matrix/client/v3/join/%%23room%d%%3Aexample.org", i), "Bearer b"),
		}
	})
	spread("origin", func(i int) []answer {
		return []answer{
			c.ask("PUT", "/_matrix/federation/v1/send/1", fmt.Sprintf(`X-Matrix origin="s%d.org:8448",key="ed25519:1",sig="a"`, i)),
			c.ask("PUT", "/_matrix/federation/v1/send/2", fmt.Sprintf(`X-Matrix key="ed25519:1",origin="s%d.org:8448",sig="b"`, i)),
			c.ask("PUT", "/_matrix/federation/v1/send/3", fmt.Sprintf(`X-Matrix origin=s%d.org:8448,key="ed25519:1"`, i)),
		}
	})
	seen := map[string]bool{}
	for range 24 {
		seen[c.ask("GET", "/_matrix/client/versions", "").Instance] = true
		seen[c.ask("PUT", "/_matrix/federation/v1/send/1", "").Instance] = true // no key at all
	}
	require.Greater(t, len(seen), 3, "what has no key is spread")
}

func testLimits(t *testing.T, c proxyClient) {
	for _, x := range []struct {
		method, uri string
		size        int64
		want        int
	}{
		{"PUT", "/_matrix/client/v3/rooms/!a:b/send/m/1", route.BodyEvent, 200},
		{"PUT", "/_matrix/client/v3/rooms/!a:b/send/m/1", route.BodyEvent + 1, 413},
		{"POST", "/_matrix/media/v3/upload", 2 << 20, 200},
		{"POST", "/_matrix/media/v3/upload", 2<<20 + 1, 413},
		{"POST", "/nonsense", 2<<20 + 1, 413},
	} {
		// What is refused is refused by its announced length, so that nothing need be sent.
		var body io.Reader = bytes.NewReader(make([]byte, x.size))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		req, err := http.NewRequestWithContext(ctx, x.method, "http://"+c.addr+x.uri, body)
		require.NoError(t, err)
		req.Header.Set("Expect", "100-continue")
		tr := &http.Transport{ExpectContinueTimeout: 10 * time.Second, DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		require.NoError(t, err)
		require.Equal(t, x.want, resp.StatusCode, "%s %d", x.uri, x.size)
		if x.want == 413 {
			var e struct{ Errcode string }
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&e))
			require.Equal(t, "M_TOO_LARGE", e.Errcode)
			require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
		}
		require.NoError(t, resp.Body.Close())
		cancel()
	}
}

// Package fleettest runs whole deployments as they are run for real: PostgreSQL, NATS, Redis, workers and a proxy, each a process of
// its own on the loopback address, that can be killed, stopped and started again. The end-to-end and robustness tests live here.
//
// A [Fleet] ends with its test, and its processes with the test binary, whatever becomes of it. Only _test files may import the
// package.
package fleettest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/route/render"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/redistest"
)

// patience is how long anything may take to come up.
const patience = 60 * time.Second

// Spec says what is deployed.
type Spec struct {
	Masters, Synchrotrons, FederationReaders int
	// Links puts a [Link] between each worker and whatever it reaches or is reached by.
	Links bool
	// Env is further settings of all workers: NAME=value.
	Env []string
	// Federation has other servers reach it; nil keeps it alone.
	Federation *Federation
}

// Federation is how other servers reach a deployment: by TLS, through nginx, at a name of this machine.
type Federation struct {
	// Host is the name by which it is called, localhost or an address of the loopback interface; a port is added to make the server's name.
	Host string
	// Link has other servers come through a [Link], "servers>nginx".
	Link bool
	// Cert and Key are files with a certificate for Host; CA is the authority that made it and those of the other servers.
	Cert, Key, CA string
}

// Split is the deployment of the end-to-end tests.
func Split() Spec { return Spec{Masters: 2, Synchrotrons: 2, FederationReaders: 1} }

// Fleet is one homeserver's deployment.
type Fleet struct {
	// URL is where clients reach it, through nginx with the generated configuration.
	URL string
	// Name is the server's name.
	Name string
	// Database and Redis can be killed and started by themselves.
	Database *pgtest.OwnServer
	Redis    *redistest.Server

	t    testing.TB
	dir  string
	bin  string
	conf string

	natsAddr string
	spec     Spec
	links    links

	mu    sync.Mutex // guards procs
	procs map[string]*Process
}

// Process is one process of a deployment.
type Process struct {
	Name string
	// Addr is host:port of what it serves; Ops of its ops listener, for workers.
	Addr, Ops string
	kind      route.Kind
	make      func() *exec.Cmd
	ready     func(ctx context.Context) error

	tmp  string
	cmd  *exec.Cmd
	done chan struct{}
	log  *bytes.Buffer // written by the process only; read when it has ended or the test failed
	t    testing.TB
}

// Start deploys a homeserver with the programs in bin, called "fleet.test" if other servers do not reach it. nats is the command line of a NATS server with
// JetStream that listens at the address it is given.
func Start(t testing.TB, bin string, nats func(addr string) *exec.Cmd, spec Spec) *Fleet {
	t.Helper()
	f := &Fleet{t: t, dir: t.TempDir(), bin: bin, spec: spec, procs: map[string]*Process{}}
	f.Database = pgtest.Server(t, pgtest.Empty())
	f.Redis = redistest.New(t)
	natsAddr := FreeAddr(t)
	f.natsAddr = natsAddr
	f.add(&Process{Name: "nats", Addr: natsAddr, make: func() *exec.Cmd { return nats(natsAddr) }, ready: dials(natsAddr)})
	f.conf, f.Name = filepath.Join(f.dir, "heddle.yml"), "fleet.test"
	federation, tlsAddr := "", ""
	if spec.Federation != nil {
		tlsAddr = FreeAddr(t)
		called := tlsAddr
		if spec.Federation.Link {
			called = f.link("servers", "nginx", dialer("tcp", tlsAddr)).Addr
		}
		_, port, err := net.SplitHostPort(called)
		require.NoError(t, err)
		f.Name = net.JoinHostPort(spec.Federation.Host, port)
		federation = fmt.Sprintf("federation: { ca_file: %q, allow_networks: [127.0.0.0/8, \"::1/128\"] }\n", spec.Federation.CA)
	}
	require.NoError(t, os.WriteFile(f.conf, fmt.Appendf(nil, `server_name: %q
signing_key_path: %s/signing.key
database: { dsn: %q, max_conns: 12 }
nats: { url: "nats://%s" }
redis: { url: %q }
registration: { enabled: true, shared_secret: fleet }
rate_limits: { enabled: false }
log: { format: text }
%s`, f.Name, f.dir, f.Database.DSN, natsAddr, f.Redis.URL, federation), 0o600))
	f.run("heddle", "keygen", "--config", f.conf)
	up := map[route.Kind][]string{}
	for _, w := range []struct {
		kind route.Kind
		n    int
	}{{route.Master, spec.Masters}, {route.Synchrotron, spec.Synchrotrons}, {route.FederationReader, spec.FederationReaders}} {
		for i := range w.n {
			p := f.worker(w.kind, fmt.Sprintf("%s-%d", w.kind, i+1))
			addr := p.Addr
			if spec.Links {
				addr = f.link("nginx", p.Name, dialer("tcp", addr)).Addr
			}
			up[w.kind] = append(up[w.kind], addr)
		}
	}
	for _, p := range f.Workers() {
		p.AwaitReady()
	}
	f.URL = "http://" + f.nginx(up, tlsAddr)
	return f
}

// Use has workers that are started from now on be programs of another directory.
func (f *Fleet) Use(bin string) { f.bin = bin }

func (f *Fleet) run(name string, args ...string) {
	f.t.Helper()
	out, err := exec.Command(filepath.Join(f.bin, name), args...).CombinedOutput()
	require.NoError(f.t, err, "%s", out)
}

// worker starts a worker without waiting for it.
func (f *Fleet) worker(kind route.Kind, name string) *Process {
	f.t.Helper()
	p := &Process{Name: name, kind: kind, Addr: FreeAddr(f.t), Ops: FreeAddr(f.t)}
	env := []string{"HEDDLE_INSTANCE=" + name, "HEDDLE_LISTEN_HTTP=" + p.Addr, "HEDDLE_LISTEN_OPS=" + p.Ops}
	env = append(env, f.spec.Env...)
	if f.spec.Links {
		env = append(env, f.behindLinks(p)...)
	}
	p.make = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(f.bin, string(kind)), "--config", f.conf)
		cmd.Env = append(os.Environ(), env...)
		return cmd
	}
	p.ready = answers("http://" + p.Ops + "/readyz")
	f.register(p)
	p.start()
	return p
}

// nginx starts a real nginx with the generated configuration, and with TLS before it for other servers if tlsAddr is not empty.
func (f *Fleet) nginx(up map[route.Kind][]string, tlsAddr string) string {
	f.t.Helper()
	program, err := exec.LookPath("nginx")
	require.NoError(f.t, err, "install nginx (Debian, Ubuntu: apt install nginx-light)")
	addr := FreeAddr(f.t)
	var routes bytes.Buffer
	require.NoError(f.t, render.Write(&routes, "nginx", render.Options{Upstreams: up, Listen: addr}))
	text := "daemon off;\nmaster_process off;\npid " + f.dir + "/nginx.pid;\nerror_log stderr;\nworker_rlimit_nofile 65536;\n" +
		"events { worker_connections 16384; }\nhttp {\naccess_log off;\n"
	if os.Getuid() == 0 {
		text = "user root;\n" + text
	}
	for _, d := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		text += d + "_temp_path " + f.dir + "/nginx_" + d + ";\n"
	}
	if tlsAddr != "" {
		_, port, err := net.SplitHostPort(tlsAddr)
		require.NoError(f.t, err)
		fmt.Fprintf(&routes, "server {\nlisten 127.0.0.1:%s ssl;\nlisten [::1]:%s ssl;\nssl_certificate %s;\nssl_certificate_key %s;\n"+
			"client_max_body_size 64m;\nlocation / {\nproxy_pass http://%s$request_uri;\nproxy_set_header Host $http_host;\nproxy_read_timeout 300s;\n}\n}\n",
			port, port, f.spec.Federation.Cert, f.spec.Federation.Key, addr)
	}
	conf := filepath.Join(f.dir, "nginx.conf")
	require.NoError(f.t, os.WriteFile(conf, append([]byte(text), routes.String()+"}\n"...), 0o600))
	f.add(&Process{
		Name: "nginx", Addr: addr, ready: dials(addr),
		make: func() *exec.Cmd { return exec.Command(program, "-e", "stderr", "-c", conf) },
	})
	return addr
}

func (f *Fleet) register(p *Process) {
	p.t, p.tmp = f.t, f.dir
	f.mu.Lock()
	f.procs[p.Name] = p
	f.mu.Unlock()
	f.t.Cleanup(func() {
		p.Kill()
		if f.t.Failed() {
			f.t.Logf("--- %s\n%s", p.Name, tail(p.log.String(), 60))
		}
	})
}

func (f *Fleet) add(p *Process) {
	f.t.Helper()
	f.register(p)
	p.start()
	p.AwaitReady()
}

// Process gives a process by its name: nats, nginx, master-1, synchrotron-2, …
func (f *Fleet) Process(name string) *Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Contains(f.t, f.procs, name)
	return f.procs[name]
}

// Workers gives the workers.
func (f *Fleet) Workers() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*Process
	for _, p := range f.procs {
		if p.kind != "" {
			out = append(out, p)
		}
	}
	return out
}

// Processes gives all processes of the deployment, by name.
func (f *Fleet) Processes() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.procs), func(a, b *Process) int { return strings.Compare(a.Name, b.Name) })
}

// AnyWorker starts a front that sends each request to a worker at random, of whatever kind, and gives its URL.
func (f *Fleet) AnyWorker() string {
	workers := f.Workers()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			w := workers[rand.IntN(len(workers))]
			r.SetURL(&url.URL{Scheme: "http", Host: w.Addr})
			r.Out.URL.RawPath, r.Out.Host = r.In.URL.RawPath, r.In.Host
		},
		FlushInterval: -1,
	}
	s := httptest.NewServer(proxy)
	f.t.Cleanup(s.Close)
	return s.URL
}

func (p *Process) start() {
	p.t.Helper()
	cmd := p.make()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+p.tmp) // what a killed process leaves behind goes with the test
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The parent-death signal comes when the thread that forked ends, so one is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	require.NoError(p.t, <-started, p.Name)
	p.cmd, p.done, p.log = cmd, done, log
}

// AwaitReady waits until the process does its work.
func (p *Process) AwaitReady() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !p.await(ctx) {
		require.FailNow(p.t, p.Name+" has ended", "%s", tail(p.log.String(), 30))
	}
}

// Revive does what a supervisor does: a process that has ended is started again, until it does its work.
func (p *Process) Revive() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !p.await(ctx) {
		p.start()
	}
}

// await waits until the process does its work; false if it has ended.
func (p *Process) await(ctx context.Context) bool {
	p.t.Helper()
	for {
		err := p.ready(ctx)
		if err == nil {
			return true
		}
		select {
		case <-p.done:
			return false
		case <-ctx.Done():
			require.FailNow(p.t, p.Name+" does not get ready", "%v", err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// Kill kills the process, if it runs, and waits for its end.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the process to stop in order, and waits for its end.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

func (p *Process) end(sig syscall.Signal) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
		p.t.Errorf("%s did not end on %s", p.Name, sig)
	}
}

// Pause freezes the process, as a debugger or a machine without memory does. Resume undoes it; so does its end.
func (p *Process) Pause() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Process) Resume() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ExitCode is what the process ended with, -1 if it was killed or runs.
func (p *Process) ExitCode() int {
	if !p.Ended() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Begin starts the process again after Kill or Stop, and does not wait until it does its work.
func (p *Process) Begin() {
	p.t.Helper()
	p.start()
}

// Restart starts the process again after Kill or Stop, and waits until it does its work.
func (p *Process) Restart() {
	p.t.Helper()
	p.start()
	p.AwaitReady()
}

// FreeAddr gives an address on the loopback interface that nobody listens at.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func dials(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	}
}

func answers(u string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Timeout: patience}).Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", u, resp.Status)
		}
		return nil
	}
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// StartProcess starts a process of the caller's making that answers /readyz at ops, and waits until it is ready.
func StartProcess(t testing.TB, name, ops string, run func() *exec.Cmd) *Process {
	t.Helper()
	f := &Fleet{t: t, dir: t.TempDir(), procs: map[string]*Process{}}
	p := &Process{Name: name, Ops: ops, make: run, ready: answers("http://" + ops + "/readyz")}
	f.add(p)
	return p
}

// PID gives the number of the running process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

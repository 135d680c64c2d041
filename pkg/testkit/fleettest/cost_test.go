package fleettest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// costs tells what each part of a deployment spends on a measured section: processor time by process, and, when the environment
// variable BENCH_PROFILES names a directory, a profile of each worker over the section.
type costs struct {
	f        *fleettest.Fleet
	prefix   string // of the names of what is reported
	postgres int
	began    map[string]time.Duration
	profiles sync.WaitGroup
}

// startCosts begins the section. profile is how long the profiles take; the section should last at least as long.
func startCosts(b *testing.B, f *fleettest.Fleet, profile time.Duration) *costs {
	b.Helper()
	return startCostsOf(b, f, "", profile)
}

// startCostsOf is startCosts of one of several deployments.
func startCostsOf(b *testing.B, f *fleettest.Fleet, prefix string, profile time.Duration) *costs {
	b.Helper()
	var session int
	require.NoError(b, f.Database.Open().Pool.QueryRow(b.Context(), `SELECT pg_backend_pid()`).Scan(&session))
	c := &costs{f: f, prefix: prefix, postgres: parent(session)}
	if to := os.Getenv("BENCH_PROFILES"); to != "" {
		for _, p := range f.Workers() {
			c.profiles.Go(func() {
				url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.Ops, int(profile.Seconds()))
				name := strings.ReplaceAll(b.Name(), "/", "_") + "." + prefix + p.Name + ".pprof"
				if resp, err := http.Get(url); err == nil {
					defer resp.Body.Close()
					raw, _ := io.ReadAll(resp.Body)
					_ = os.WriteFile(filepath.Join(to, name), raw, 0o600)
				}
			})
		}
	}
	c.began = c.now()
	return c
}

// report ends the section and reports what each part spent, in microseconds of processor time for each of n operations.
func (c *costs) report(b *testing.B, n int) {
	b.Helper()
	for name, t := range c.now() {
		b.ReportMetric(float64((t-c.began[name]).Microseconds())/float64(n), c.prefix+name+"-µs/op")
	}
	c.profiles.Wait()
}

func (c *costs) now() map[string]time.Duration {
	m := map[string]time.Duration{}
	for _, p := range c.f.Processes() {
		if t := spent(p.PID(), true); t > 0 {
			m[p.Name] = t
		}
	}
	// Each session of PostgreSQL is a process of its own, a child of the first.
	m["postgres"] = spent(c.postgres, true)
	for _, dir := range must(filepath.Glob("/proc/[0-9]*")) {
		if pid := must(strconv.Atoi(filepath.Base(dir))); parent(pid) == c.postgres {
			m["postgres"] += spent(pid, false)
		}
	}
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	m["load"] = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return m
}

// spent is the processor time of a process, with its dead children's if those are wanted; 0 if there is none such.
func spent(pid int, withDead bool) time.Duration {
	fields := stat(pid)
	if fields == nil {
		return 0
	}
	const utime, cutime, ticks = 11, 13, 100 // proc(5), counted from the state; a tick is 10 ms wherever Linux runs
	n := must(strconv.Atoi(string(fields[utime]))) + must(strconv.Atoi(string(fields[utime+1])))
	if withDead {
		n += must(strconv.Atoi(string(fields[cutime]))) + must(strconv.Atoi(string(fields[cutime+1])))
	}
	return time.Duration(n) * time.Second / ticks
}

// parent is the process that started pid; 0 if there is none such.
func parent(pid int) int {
	if fields := stat(pid); fields != nil {
		return must(strconv.Atoi(string(fields[1])))
	}
	return 0
}

// stat gives the fields of /proc/pid/stat from the state on, nil for a process that is gone.
func stat(pid int) [][]byte {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

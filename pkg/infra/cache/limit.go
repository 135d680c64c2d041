package cache

import (
	"bytes"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// A process may use nine tenths of its cgroup's limit; the rest is for what
	// the Go runtime does not count.
	memoryTenths = 9
	// Without a cgroup limit, a worker takes this part of the machine's memory,
	// for it is seldom alone there.
	machinePart = 4
	// fallbackMemory is assumed where nothing can be learnt.
	fallbackMemory = 1 << 30
)

// MemoryLimit is how much memory this process may use: nine tenths of its
// cgroup's limit (v2 or v1), or of a quarter of the machine's memory. root is
// the root file system, os.DirFS("/").
func MemoryLimit(root fs.FS) int64 {
	total := machineMemory(root)
	limit := min(cgroupV2(root), cgroupV1(root))
	switch {
	case limit < total || (total == 0 && limit < math.MaxInt64):
	case total > 0:
		limit = total / machinePart
	default:
		limit = fallbackMemory
	}
	return limit / 10 * memoryTenths
}

// SetProcessLimit makes the garbage collector keep the process within limit.
// It is for the process as a whole: main calls it, once.
func SetProcessLimit(limit int64) { debug.SetMemoryLimit(limit) }

// cgroupV2 is the smallest memory.max from the process's group to the root.
func cgroupV2(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	group := cgroupPath(root, "")
	for dir := path.Join("sys/fs/cgroup", group); strings.HasPrefix(dir, "sys/fs/cgroup"); dir = path.Dir(dir) {
		limit = min(limit, readLimit(root, dir+"/memory.max"))
	}
	return limit
}

// cgroupV1 is the same for the first version. A container sees its own group
// as the root of the hierarchy, whatever path the process's group has outside.
func cgroupV1(root fs.FS) int64 {
	const base = "sys/fs/cgroup/memory"
	limit := int64(math.MaxInt64)
	group := cgroupPath(root, "memory")
	for dir := path.Join(base, group); strings.HasPrefix(dir, base); dir = path.Dir(dir) {
		limit = min(limit, readLimit(root, dir+"/memory.limit_in_bytes"))
	}
	return limit
}

// cgroupPath is the process's group in the hierarchy of a v1 controller, or of
// v2 if controller is empty.
func cgroupPath(root fs.FS, controller string) string {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // id:controllers:path
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			if c == controller {
				return path.Clean("/" + f[2])
			}
		}
	}
	return ""
}

func readLimit(root fs.FS, name string) int64 {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil || n <= 0 { // "max"
		return math.MaxInt64
	}
	return n
}

func machineMemory(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // MemTotal: 24576 kB
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil || kb < 0 || kb > math.MaxInt64>>10 {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}

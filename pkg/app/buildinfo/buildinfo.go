// Package buildinfo says what was built: version, commit and date, which the linker sets (see the Makefile) or, without
// it, what the Go toolchain noted.
//
// It is read-only and safe for concurrent use. Only app and cmd may import it; whoever else needs an Info is handed one.
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker.
var version, commit, date string //nolint:gochecknoglobals // the linker has no other way in

// Info is what was built.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Go      string `json:"go"`
}

// Read returns what this binary was built from.
func Read() Info {
	info := Info{Version: version, Commit: commit, Date: date, Go: runtime.Version()}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			switch {
			case s.Key == "vcs.revision" && info.Commit == "":
				info.Commit = s.Value
			case s.Key == "vcs.time" && info.Date == "":
				info.Date = s.Value
			}
		}
	}
	for _, field := range []*string{&info.Version, &info.Commit, &info.Date} {
		if *field == "" {
			*field = "unknown"
		}
	}
	return info
}

// String gives all of it on one line.
func (i Info) String() string {
	return fmt.Sprintf("heddle %s (commit %s, %s, %s)", i.Version, i.Commit, i.Date, i.Go)
}

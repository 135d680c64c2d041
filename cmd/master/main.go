// Command master is the worker that serves the endpoints that change something, owns shards and writes their events, and does the work behind them.
package main

import (
	"os"

	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/app"
)

func main() {
	os.Exit(cli.Worker(cli.OS(), app.Master, "The worker that serves the endpoints that change something, owns shards and writes their events, and does the work behind them."))
}

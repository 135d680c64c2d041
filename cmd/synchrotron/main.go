// Command synchrotron is the worker that answers /sync and every client endpoint that only reads.
package main

import (
	"os"

	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/app"
)

func main() {
	os.Exit(cli.Worker(cli.OS(), app.Synchrotron, "The worker that answers /sync and every client endpoint that only reads."))
}

// Command federation-reader is the worker that takes what other homeservers send.
package main

import (
	"os"

	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/app"
)

func main() {
	os.Exit(cli.Worker(cli.OS(), app.FederationReader, "The worker that takes what other homeservers send."))
}

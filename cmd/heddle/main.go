// Command heddle is all kinds of worker in one process, and the operator's command line.
package main

import (
	"os"

	"github.com/heddle-im/heddle/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Main(cli.OS(), "heddle", "A Matrix homeserver: everything in one process, and its operator's tools.", &commands{}))
}

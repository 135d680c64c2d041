// Command pgo reads a CPU profile from standard input and writes it to standard output without the paths of the machine on which it
// was taken: what the compiler reads of it are the names of functions and the weights of calls.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protowire"
)

func main() {
	if err := clean(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "pgo:", err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

// stringTable is the field of a profile's message that has all texts (profile.proto).
const stringTable = 6

func clean(to io.Writer, from io.Reader) error {
	zipped, err := gzip.NewReader(from)
	if err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	in, err := io.ReadAll(zipped)
	if err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	var out []byte
	for len(in) > 0 {
		num, typ, head := protowire.ConsumeTag(in)
		if head < 0 {
			return fmt.Errorf("read profile: %w", protowire.ParseError(head))
		}
		n := protowire.ConsumeFieldValue(num, typ, in[head:])
		if n < 0 {
			return fmt.Errorf("read profile: %w", protowire.ParseError(n))
		}
		field := in[:head+n]
		if num == stringTable {
			if text, _ := protowire.ConsumeBytes(in[head:]); bytes.HasPrefix(text, []byte("/")) {
				field = protowire.AppendBytes(protowire.AppendTag(nil, num, typ), nil)
			}
		}
		out, in = append(out, field...), in[head+n:]
	}
	w := gzip.NewWriter(to)
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	return w.Close()
}

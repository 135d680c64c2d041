package app

import (
	"crypto/rand"
	"io"
)

func randomSource() io.Reader { return rand.Reader }

// Command grantor is the issuer and its tools: one binary.
package main

import (
	"os"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

func main() { os.Exit(cli.Main(newCommand().ExecuteContext, os.Stderr)) }

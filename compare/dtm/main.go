// The parts around a DTM server that are measured: a participant that does nothing but count, and
// a client that keeps N transactions under way. compare.py starts them as processes of their own.
//
// Must never decide anything: what is committed is what DTM's own client library says.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] == "client" && len(os.Args) < 4 {
		fail(fmt.Errorf("usage: dtm-parts participant|client [addresses]"))
	}
	var err error
	switch os.Args[1] {
	case "participant":
		err = participant()
	case "client":
		err = client(os.Args[2:])
	default:
		err = fmt.Errorf("%q is neither participant nor client", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

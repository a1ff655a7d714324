// The parts around a NATS server that are measured: a publisher that keeps N events under way, and a
// consumer that checks what comes. compare.py starts them as processes of their own.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	stream  = "events"
	first   = "events.first"
	second  = "events.second"
	bytes   = 300
	timeout = 30 * time.Second
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: nats-parts publisher URL | consumer URL GROUP"))
	}
	connection, err := nats.Connect(os.Args[2], nats.MaxReconnects(0))
	if err != nil {
		fail(err)
	}
	js, err := jetstream.New(connection, jetstream.WithPublishAsyncMaxPending(1<<16))
	if err != nil {
		fail(err)
	}
	switch {
	case os.Args[1] == "publisher":
		err = publisher(connection, js)
	case os.Args[1] == "consumer" && len(os.Args) == 4:
		err = consumer(js, os.Args[3])
	default:
		err = fmt.Errorf("%q is neither publisher nor consumer", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

// message is 300 bytes: which caller of which run, and its number there.
func message(run, caller uint32, number uint64) []byte {
	data := make([]byte, bytes)
	binary.BigEndian.PutUint32(data, run)
	binary.BigEndian.PutUint32(data[4:], caller)
	binary.BigEndian.PutUint64(data[8:], number)
	return data
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

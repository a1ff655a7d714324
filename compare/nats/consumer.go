package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// One acknowledgement is for all before it; so often it is sent at least.
	acknowledgeEach  = 500
	acknowledgeAfter = 100 * time.Millisecond
)

// Counts is what a consumer has seen, as compare.py reads it.
type Counts struct {
	Events int64 `json:"events"`
	Wrong  int64 `json:"wrong"`
}

// group checks that events come once and in the order of their caller.
type group struct {
	mutex  sync.Mutex
	counts Counts
	last   map[string]uint64
	// unacknowledged is the last message that was counted and not acknowledged yet.
	unacknowledged jetstream.Msg
}

// consumer is a durable consumer that reads along; each line on stdin is answered with its counts.
func consumer(js jetstream.JetStream, name string) error {
	durable, err := js.CreateConsumer(context.Background(), stream, jetstream.ConsumerConfig{
		Durable:       name,
		AckPolicy:     jetstream.AckAllPolicy,
		AckWait:       time.Minute,
		MaxAckPending: 100_000,
	})
	if err != nil {
		return err
	}
	own := &group{last: map[string]uint64{}}
	_, err = durable.Consume(own.handle, jetstream.PullMaxMessages(5000))
	if err != nil {
		return err
	}
	go func() {
		for range time.Tick(acknowledgeAfter) {
			own.mutex.Lock()
			own.acknowledge()
			own.mutex.Unlock()
		}
	}()
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		own.mutex.Lock()
		counts := own.counts
		own.mutex.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(counts); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) handle(msg jetstream.Msg) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	data := msg.Data()
	source := msg.Subject() + string(data[:8])
	number := binary.BigEndian.Uint64(data[8:])
	if number <= g.last[source] {
		g.counts.Wrong++
	}
	g.last[source] = number
	g.counts.Events++
	g.unacknowledged = msg
	if g.counts.Events%acknowledgeEach == 0 {
		g.acknowledge()
	}
}

func (g *group) acknowledge() {
	if g.unacknowledged == nil {
		return
	}
	if err := g.unacknowledged.Ack(); err != nil {
		fail(err)
	}
	g.unacknowledged = nil
}

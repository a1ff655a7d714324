package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Report is one level, as compare.py reads it. The totals include the warm-up, so that they can be
// compared with what the consumers counted.
type Report struct {
	Counted     int64   `json:"counted"`
	Seconds     float64 `json:"seconds"`
	P50Ms       float64 `json:"p50_ms"`
	P99Ms       float64 `json:"p99_ms"`
	Total       int64   `json:"total"`
	TotalErrors int64   `json:"total_errors"`
	FirstError  string  `json:"first_error,omitempty"`
}

// publish is one event, or one transaction, of a caller; it returns when the server has acknowledged.
type publish func(run, caller uint32, number uint64) error

// publisher makes the stream and serves lines "events|transactions at-once warm-up seconds", each
// with one level and a line of JSON.
func publisher(connection *nats.Conn, js jetstream.JetStream) error {
	_, err := js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name:               stream,
		Subjects:           []string{first, second},
		Storage:            jetstream.FileStorage,
		AllowAtomicPublish: true,
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	kinds := map[string]publish{"events": event(js), "transactions": transaction(connection)}
	lines := bufio.NewScanner(os.Stdin)
	for run := uint32(1); lines.Scan(); run++ {
		var kind string
		var atOnce int
		var warmup, seconds float64
		if _, err := fmt.Sscan(lines.Text(), &kind, &atOnce, &warmup, &seconds); err != nil {
			return err
		}
		from := time.Now().Add(time.Duration(warmup * float64(time.Second)))
		until := from.Add(time.Duration(seconds * float64(time.Second)))
		report := level(kinds[kind], run, atOnce, from, until)
		report.Seconds = seconds
		if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
			return err
		}
	}
	return nil
}

func event(js jetstream.JetStream) publish {
	return func(run, caller uint32, number uint64) error {
		answer, err := js.PublishAsync(first, message(run, caller, number))
		if err != nil {
			return err
		}
		select {
		case <-answer.Ok():
			return nil
		case err := <-answer.Err():
			return err
		case <-time.After(timeout):
			return fmt.Errorf("no acknowledgement")
		}
	}
}

// transaction is an atomic batch of JetStream: its first message is sent without waiting, and the
// answer to the second one says that both are stored.
func transaction(connection *nats.Conn) publish {
	return func(run, caller uint32, number uint64) error {
		id := fmt.Sprintf("%d-%d-%d", run, caller, number)
		one := &nats.Msg{Subject: first, Data: message(run, caller, number), Header: nats.Header{
			"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {"1"},
		}}
		two := &nats.Msg{Subject: second, Data: message(run, caller, number), Header: nats.Header{
			"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {"2"}, "Nats-Batch-Commit": {"1"},
		}}
		if err := connection.PublishMsg(one); err != nil {
			return err
		}
		answer, err := connection.RequestMsg(two, timeout)
		if err != nil {
			return err
		}
		var acknowledged struct {
			Sequence uint64          `json:"seq"`
			Error    json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(answer.Data, &acknowledged); err != nil {
			return err
		}
		if acknowledged.Error != nil || acknowledged.Sequence == 0 {
			return fmt.Errorf("refused: %s", answer.Data)
		}
		return nil
	}
}

// level runs callers that each publish again as soon as they were answered.
func level(publish publish, run uint32, atOnce int, from, until time.Time) Report {
	latencies := hdrhistogram.New(1, 60_000_000, 3)
	report := Report{}
	var mutex sync.Mutex
	var group sync.WaitGroup
	for caller := range atOnce {
		group.Add(1)
		go func() {
			defer group.Done()
			for number := uint64(1); time.Now().Before(until); number++ {
				began := time.Now()
				err := publish(run, uint32(caller), number)
				ended := time.Now()
				mutex.Lock()
				if err != nil {
					report.TotalErrors++
					report.FirstError = err.Error()
				} else {
					report.Total++
					if ended.After(from) && ended.Before(until) {
						_ = latencies.RecordValue(ended.Sub(began).Microseconds())
					}
				}
				mutex.Unlock()
			}
		}()
	}
	group.Wait()
	report.Counted = latencies.TotalCount()
	report.P50Ms = float64(latencies.ValueAtQuantile(50)) / 1000
	report.P99Ms = float64(latencies.ValueAtQuantile(99)) / 1000
	return report
}

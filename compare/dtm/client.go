package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/dtm-labs/dtm/client/dtmcli/dtmimp"
	"github.com/dtm-labs/dtm/client/dtmgrpc"
	"github.com/dtm-labs/logger"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Report is one level of concurrency, as compare.py reads it. The totals include the warm-up, so
// that they can be compared with what the participants counted.
type Report struct {
	Committed      int64   `json:"committed"`
	Seconds        float64 `json:"seconds"`
	P50Ms          float64 `json:"p50_ms"`
	P99Ms          float64 `json:"p99_ms"`
	TotalCommitted int64   `json:"total_committed"`
	TotalErrors    int64   `json:"total_errors"`
	FirstError     string  `json:"first_error,omitempty"`
}

type settings struct {
	dtm          string
	participants []string
	run          string
	wait         bool
	from, until  time.Time
}

// caller is one closed loop: begin, ask both to prepare, commit, again.
type caller struct {
	latencies  *hdrhistogram.Histogram
	committed  int64
	errors     int64
	firstError error
}

// client serves lines "concurrency warm-up seconds decided|finished", each with one level and a line
// of JSON. Its arguments are DTM's gRPC address and those of the participants.
func client(args []string) error {
	logger.InitLog("fatal") // DTM's library would write a line for each call
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var concurrency int
		var warmup, seconds float64
		var wait string
		if _, err := fmt.Sscan(lines.Text(), &concurrency, &warmup, &seconds, &wait); err != nil {
			return err
		}
		start := time.Now()
		from := start.Add(time.Duration(warmup * float64(time.Second)))
		report := level(concurrency, settings{
			dtm:          args[0],
			participants: args[1:],
			run:          fmt.Sprintf("%x-", start.UnixNano()),
			wait:         wait == "finished",
			from:         from,
			until:        from.Add(time.Duration(seconds * float64(time.Second))),
		})
		report.Seconds = seconds
		if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
			return err
		}
	}
	return nil
}

func level(concurrency int, with settings) Report {
	callers := make([]caller, concurrency)
	var group sync.WaitGroup
	for i := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			callers[i].loop(with, i)
		}()
	}
	group.Wait()
	return summary(callers)
}

func (c *caller) loop(with settings, number int) {
	c.latencies = hdrhistogram.New(1, 60_000_000, 3)
	for count := 0; ; count++ {
		began := time.Now()
		if began.After(with.until) {
			return
		}
		// All ids have one length: DTM's bolt store takes one that another begins with for that other.
		err := transaction(with, fmt.Sprintf("%s%05d-%09d", with.run, number, count))
		ended := time.Now()
		if err != nil {
			c.errors++
			if c.firstError == nil {
				c.firstError = err
			}
			continue
		}
		c.committed++
		if ended.After(with.from) && ended.Before(with.until) {
			_ = c.latencies.RecordValue(ended.Sub(began).Microseconds())
		}
	}
}

// transaction is a TCC of two branches. Both are registered and tried at the same time, which
// DTM's library leaves to its user; each has a branch id of its own to number from.
func transaction(with settings, gid string) error {
	custom := func(tcc *dtmgrpc.TccGrpc) { tcc.WaitResult = with.wait }
	return dtmgrpc.TccGlobalTransaction2(with.dtm, gid, custom, func(tcc *dtmgrpc.TccGrpc) error {
		results := make(chan error, len(with.participants))
		for i, address := range with.participants {
			branch := *tcc
			branch.BranchIDGen = dtmimp.BranchIDGen{BranchID: fmt.Sprintf("%02d", i+1)}
			go func() {
				at := address + "/" + service + "/"
				results <- branch.CallBranch(
					&emptypb.Empty{}, at+"Try", at+"Confirm", at+"Cancel", &emptypb.Empty{})
			}()
		}
		var first error
		for range with.participants {
			if err := <-results; err != nil && first == nil {
				first = err
			}
		}
		return first
	})
}

func summary(callers []caller) Report {
	all := hdrhistogram.New(1, 60_000_000, 3)
	report := Report{}
	for i := range callers {
		all.Merge(callers[i].latencies)
		report.TotalCommitted += callers[i].committed
		report.TotalErrors += callers[i].errors
		if callers[i].firstError != nil {
			report.FirstError = callers[i].firstError.Error()
		}
	}
	report.Committed = all.TotalCount()
	report.P50Ms = float64(all.ValueAtQuantile(50)) / 1000
	report.P99Ms = float64(all.ValueAtQuantile(99)) / 1000
	return report
}

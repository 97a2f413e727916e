package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
)

// IdleTable compares what streams cost on which nothing happens.
type IdleTable struct {
	Name, Title string
	Notes       []string
	Streams     int
	Contenders  []Contender // the first one is the reference

	// Subject is the contender with a goal: bytes for each stream that it may
	// need more than the reference.
	Subject   string
	Must, Aim float64
}

// idleCost is what one idle stream costs, both sides together.
type idleCost struct{ heap, stack, goroutines float64 }

func (c idleCost) memory() float64 { return c.heap + c.stack }

const idleStreams = 10_000

// idleSettings is how contenders serve idle streams. By default a client of net/http
// keeps half a mebibyte for each open request body, because that is the frame size which
// servers of net/http announce. It would hide everything else, and need 5 GiB.
func idleSettings() HTTPSettings {
	return HTTPSettings{Server: http.HTTP2Config{
		MaxReadFrameSize:     16 * kib,
		MaxConcurrentStreams: 2 * idleStreams,
	}}
}

func idleTable() IdleTable {
	settings := idleSettings()
	chained := []connect.Interceptor{quiet()}
	return IdleTable{
		Name:  "idle",
		Title: fmt.Sprintf("Memory of %d idle bidi streams on one connection", idleStreams),
		Notes: []string{
			"Each stream has carried a message in both directions, and waits in Receive on both sides. Bytes and " +
				"goroutines per stream after garbage collection, client and server together, including the " +
				"goroutine that waits in the client's Receive. The chain is one streamwrap interceptor with " +
				"all hooks, on both sides. Servers accept frames of 16 KiB, as grpc-go's do: with net/http's " +
				"default, 1 MiB, its client keeps a buffer of 512 KiB for every open stream.",
		},
		Streams: idleStreams,
		Contenders: []Contender{
			Connect(bareName, ConnectSettings{HTTP: settings}),
			Connect(engineName, ConnectSettings{HTTP: settings, Engine: true}),
			Connect(engineName+" + chain", ConnectSettings{HTTP: settings, Engine: true, Interceptors: chained}),
			GRPC(grpcName, GRPCSettings{Server: []grpc.ServerOption{grpc.MaxConcurrentStreams(2 * idleStreams)}}),
		},
		Subject: engineName + " + chain",
		Must:    2 * kib,
		Aim:     kib,
	}
}

// Report implements [Section].
func (t IdleTable) Report(ctx context.Context, w io.Writer, o Options) error {
	if !o.selects(t.Name, t.Name) {
		return nil
	}
	costs := make(map[string][]idleCost)
	// Memory does not depend on what else the machine does.
	for range min(o.Rounds, 5) {
		for _, c := range t.Contenders {
			cost, err := measureIdle(ctx, c, t.Streams)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", t.Name, c.Name, err)
			}
			costs[c.Name] = append(costs[c.Name], cost)
		}
	}

	reference := t.Contenders[0].Name
	fmt.Fprintf(w, "### %s\n\n", t.Title)
	for _, note := range t.Notes {
		fmt.Fprintf(w, "%s\n\n", note)
	}
	header := []string{"", "heap", "stacks", "goroutines", "memory vs " + reference, "budget"}
	writeCells(w, header)
	writeRule(w, len(header))
	over := func(name string, what func(idleCost) float64) Spread {
		var values []float64
		for _, cost := range costs[name] {
			values = append(values, what(cost))
		}
		return spread(values)
	}
	for _, c := range t.Contenders {
		var more []float64
		for round, cost := range costs[c.Name] {
			more = append(more, cost.memory()-costs[reference][round].memory())
		}
		difference := spread(more)
		cells := []string{
			c.Name,
			digits(over(c.Name, func(c idleCost) float64 { return c.heap }).Median),
			digits(over(c.Name, func(c idleCost) float64 { return c.stack }).Median),
			fmt.Sprintf("%.2f", over(c.Name, func(c idleCost) float64 { return c.goroutines }).Median),
			"", "",
		}
		if c.Name != reference {
			cells[4] = fmt.Sprintf("**%+.0f B** (%+.0f–%+.0f)", difference.Median, difference.Min, difference.Max)
		}
		if c.Name == t.Subject {
			cells[5] = fmt.Sprintf("must %+.0f %s, aim %+.0f %s",
				t.Must, met(difference.Median <= t.Must), t.Aim, met(difference.Median <= t.Aim))
		}
		writeCells(w, cells)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// measureIdle opens streams and measures what they cost while they do nothing.
func measureIdle(ctx context.Context, c Contender, streams int) (_ idleCost, err error) {
	client, stop, err := c.Start()
	if err != nil {
		return idleCost{}, err
	}
	defer stop()
	ping := payload(64)

	// The first stream pays for the connection.
	if _, err := pingPong(64)(ctx, client, 10); err != nil {
		return idleCost{}, err
	}
	before, goroutinesBefore := settle()

	open := make([]Stream, streams)
	ended := make(chan error, streams)
	for i := range open {
		stream, err := client.Echo(ctx)
		if err != nil {
			return idleCost{}, err
		}
		if err := stream.Send(ping); err != nil {
			return idleCost{}, err
		}
		if _, err := stream.Receive(); err != nil {
			return idleCost{}, err
		}
		open[i] = stream
		go func() {
			_, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				err = stream.Close()
			}
			ended <- err
		}()
	}
	after, goroutinesAfter := settle()

	for _, stream := range open {
		err = errors.Join(err, stream.CloseSend())
	}
	for range open {
		err = errors.Join(err, <-ended)
	}
	if err != nil {
		return idleCost{}, err
	}
	n := float64(streams)
	return idleCost{
		heap:       (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / n,
		stack:      (float64(after.StackInuse) - float64(before.StackInuse)) / n,
		goroutines: float64(goroutinesAfter-goroutinesBefore) / n,
	}, nil
}

// settle waits until everything that has nothing to do has gone to sleep, and
// collects garbage; stacks shrink, and pools empty, by one step each time.
func settle() (runtime.MemStats, int) {
	for range 4 {
		<-time.After(20 * time.Millisecond)
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats, runtime.NumGoroutine()
}

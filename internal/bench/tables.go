package bench

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/interconnect-go/interconnect/streamwrap"
	"google.golang.org/grpc"
)

// The names that tables call their contenders by.
const (
	bareName   = "connect"
	engineName = "Engine"
	grpcName   = "grpc-go"
)

// Sizes of payloads and settings.
const (
	kib = 1 << 10
	mib = 1 << 20
)

// Section is a part of the report.
type Section interface {
	// Report measures what the options select, and writes it to w. It writes
	// nothing if nothing is selected.
	Report(ctx context.Context, w io.Writer, o Options) error
}

// Sections returns the report: every table, in the order of the README.
func Sections() []Section {
	return []Section{
		streamsTable(),
		concurrencyTable(),
		latencyTable(),
		idleTable(),
		chainTable(),
		chainIdleTable(),
		gzipTable(),
		protocolTable(),
		tunedTable(),
		retryTable(),
		authTable(),
		tracingTable(),
		tracingCostTable(),
		adaptiveTable(),
		ratelimitTable(),
		loggingTable(),
	}
}

// Experiments returns the tables that helped to choose settings.
func Experiments() []Section {
	return []Section{tuningTable("tuning", false), tuningTable("tuning-engine", true)}
}

func engineVsBare() Comparison { return Comparison{engineName, bareName} }
func engineVsGRPC() Comparison { return Comparison{engineName, grpcName} }

// contenders returns bare connect, the same with the engine, and grpc-go.
func contenders(bare ConnectSettings, other GRPCSettings) []Contender {
	engine := bare
	engine.Engine = true
	return []Contender{Connect(bareName, bare), Connect(engineName, engine), GRPC(grpcName, other)}
}

func streamsTable() Table {
	return Table{
		Name:        "streams",
		Title:       "Throughput, compression off, nothing tuned",
		Contenders:  contenders(ConnectSettings{}, GRPCSettings{}),
		Comparisons: []Comparison{engineVsBare(), engineVsGRPC()},
		Rows:        streamRows(true),
	}
}

// streamRows are all kinds of RPC in three sizes.
func streamRows(withGoals bool) []Row {
	goals := func(bareMust, bareAim, grpcMust, grpcAim float64) []Goal {
		if !withGoals {
			return nil
		}
		return []Goal{
			{Comparison: engineVsBare(), Must: bareMust, Aim: bareAim},
			{Comparison: engineVsGRPC(), Must: grpcMust, Aim: grpcAim},
		}
	}
	return []Row{
		{Name: "server stream, 16 B", Do: download(16), Goals: goals(10, 20, 1.3, 2)},
		{Name: "server stream, 1 KiB", Do: download(kib), Goals: goals(5, 8, 1.05, 1.5)},
		{Name: "server stream, 64 KiB", Do: download(64 * kib), Goals: goals(1.2, 1.5, 0.85, 1)},
		{Name: "client stream, 16 B", Do: upload(16), Goals: goals(10, 24, 1.3, 2)},
		{Name: "client stream, 1 KiB", Do: upload(kib), Goals: goals(5, 8, 1.05, 1.5)},
		{Name: "client stream, 64 KiB", Do: upload(64 * kib), Goals: goals(1.2, 1.5, 0.85, 1)},
		{Name: "bidi ping-pong, 16 B", Do: pingPong(16), Goals: goals(1, 0, 0, 1)},
		{Name: "unary, 16 B", Do: unary(16), Goals: goals(0.97, 1, 0, 0)},
		{Name: "unary, 1 KiB", Do: unary(kib), Goals: goals(0.97, 1, 0, 0)},
		{Name: "unary, 64 KiB", Do: unary(64 * kib), Goals: goals(0.97, 1, 0, 0)},
	}
}

func concurrencyTable() Table {
	t := Table{
		Name:  "concurrency",
		Title: "Throughput of concurrent RPCs on one connection, compression off, nothing tuned",
		Notes: []string{"Time and allocations per message of all streams together."},
	}
	t.Contenders = contenders(ConnectSettings{}, GRPCSettings{})
	t.Comparisons = []Comparison{engineVsBare(), engineVsGRPC()}
	for _, streams := range []struct {
		name  string
		count int
	}{{"1 stream", 1}, {"8 streams", 8}, {"64 streams", 64}} {
		t.Rows = append(t.Rows,
			Row{Name: "server stream, 1 KiB, " + streams.name, Do: concurrently(streams.count, download(kib))},
			Row{Name: "client stream, 1 KiB, " + streams.name, Do: concurrently(streams.count, upload(kib))},
			Row{Name: "bidi ping-pong, 16 B, " + streams.name, Do: concurrently(streams.count, pingPong(16))},
			Row{Name: "unary, 16 B, " + streams.name, Do: concurrently(streams.count, unary(16))},
		)
	}
	return t
}

func latencyTable() Table {
	const pace = 100 * time.Microsecond
	values := []string{"p50", "p90", "p99"}
	var goals []Goal
	for value := range values {
		goals = append(goals,
			Goal{Comparison: engineVsBare(), Value: value, Must: 1},
			Goal{Comparison: engineVsGRPC(), Value: value, Aim: 1},
		)
	}
	return Table{
		Name:  "latency",
		Title: "Latency of one stream with a message of 64 B every 100 µs, compression off, nothing tuned",
		Notes: []string{
			"From the moment a message was due until its receiver has it, one way. The sender is woken by " +
				"a timer of the kernel, as it would be by a packet; what that takes is part of the latency.",
		},
		Contenders:  contenders(ConnectSettings{}, GRPCSettings{}),
		Comparisons: []Comparison{engineVsBare(), engineVsGRPC()},
		Rows: []Row{
			{Name: "server stream", Do: pacedDownload(64, pace), Values: values, Goals: goals, Longer: 3},
			{Name: "client stream", Do: pacedUpload(64, pace), Values: values, Goals: goals, Longer: 3},
		},
	}
}

func gzipTable() Table {
	const from = "Engine, gzip from 1 KiB"
	t := Table{
		Name:  "gzip",
		Title: "Throughput, gzip in both directions, nothing tuned",
		Notes: []string{
			"Every message is compressed at the default level, even the smallest, as connect's handlers do by " +
				"default for clients that accept gzip, which connect's do. The last contender has streamwrap's " +
				"settings for compression: messages from 1 KiB on, at the fastest level. The payload looks like " +
				"log lines: 64 KiB shrink to a fifth, or at the fastest level to a quarter.",
		},
		Comparisons: []Comparison{engineVsBare(), engineVsGRPC(), {from, bareName}, {from, grpcName}},
		Rows:        streamRows(false),
	}
	t.Contenders = append(contenders(ConnectSettings{Gzip: true}, GRPCSettings{Gzip: true}),
		Connect(from, ConnectSettings{GzipFrom: kib, Engine: true}))
	return t
}

func protocolTable() Table {
	return Table{
		Name:        "grpc-protocol",
		Title:       "Throughput over the gRPC protocol, compression off, nothing tuned",
		Contenders:  contenders(ConnectSettings{GRPC: true}, GRPCSettings{}),
		Comparisons: []Comparison{engineVsBare(), engineVsGRPC()},
		Rows: []Row{
			{Name: "server stream, 16 B", Do: download(16)},
			{Name: "client stream, 16 B", Do: upload(16)},
			{Name: "bidi ping-pong, 16 B", Do: pingPong(16)},
			{Name: "unary, 16 B", Do: unary(16)},
		},
	}
}

// tunedTable compares what everybody can do if tuned for large messages.
func tunedTable() Table {
	const (
		tunedBare   = "tuned connect"
		tunedEngine = "tuned Engine"
		tunedGRPC   = "tuned grpc-go"
	)
	settings := HTTPSettings{Tuned: true}
	other := GRPCSettings{
		Server: []grpc.ServerOption{
			grpc.StaticStreamWindowSize(mib), grpc.StaticConnWindowSize(mib),
			grpc.WriteBufferSize(128 * kib), grpc.ReadBufferSize(128 * kib),
		},
		Dial: []grpc.DialOption{
			grpc.WithStaticStreamWindowSize(4 * mib), grpc.WithStaticConnWindowSize(4 * mib),
			grpc.WithWriteBufferSize(128 * kib), grpc.WithReadBufferSize(128 * kib),
		},
	}
	vsDefault := Comparison{tunedEngine, bareName}
	vsGRPC := Comparison{tunedEngine, tunedGRPC}
	goals := []Goal{{Comparison: vsDefault, Must: 1.2, Aim: 1.5}, {Comparison: vsGRPC, Must: 0.85, Aim: 1}}
	return Table{
		Name:  "tuned",
		Title: "Throughput of large messages, compression off, tuned",
		Notes: []string{
			"Tuned means streamwrap.NewTransport and TuneServer: frames of 256 KiB. Other settings of net/http " +
				"help nobody. grpc-go gets fixed windows of the size of net/http's, and buffers of 128 KiB.",
		},
		Contenders: []Contender{
			Connect(bareName, ConnectSettings{}),
			Connect(tunedBare, ConnectSettings{HTTP: settings}),
			Connect(tunedEngine, ConnectSettings{HTTP: settings, Engine: true}),
			GRPC(tunedGRPC, other),
		},
		Comparisons: []Comparison{vsDefault, {tunedEngine, tunedBare}, vsGRPC},
		Rows: []Row{
			{Name: "server stream, 16 B", Do: download(16)},
			{Name: "server stream, 1 KiB", Do: download(kib)},
			{Name: "server stream, 64 KiB", Do: download(64 * kib), Goals: goals},
			{Name: "server stream, 1 MiB", Do: download(mib)},
			{Name: "client stream, 64 KiB", Do: upload(64 * kib), Goals: goals},
			{Name: "client stream, 1 MiB", Do: upload(mib)},
			{Name: "unary, 64 KiB", Do: unary(64 * kib)},
			{Name: "unary, 1 MiB", Do: unary(mib)},
		},
	}
}

// quiet is an interceptor with every hook, which do nothing: what a chain of
// interceptors has to carry for a stream.
func quiet() *streamwrap.Interceptor {
	type stream struct{ call *streamwrap.Call }
	return streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
			return ctx, &stream{call}, nil
		},
		Header:   func(*stream, context.Context, http.Header) error { return nil },
		Send:     func(*stream, context.Context, any) error { return nil },
		Sent:     func(*stream, context.Context, *streamwrap.Message) {},
		Receive:  func(*stream, context.Context) error { return nil },
		Received: func(*stream, context.Context, *streamwrap.Message) error { return nil },
		Return:   func(_ *stream, _ context.Context, err error) error { return err },
		End:      func(*stream, context.Context, *streamwrap.End) {},
	})
}

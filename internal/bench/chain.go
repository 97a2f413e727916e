package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/tracing"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// The chain with a telemetry as most programs have it, and with all of it.
const (
	chainName     = "all seven"
	chainFullName = "all seven, all spans"
)

// sparse is a telemetry of one trace in a hundred, and no metrics.
func sparse() telemetryMode {
	noMetrics := telemetryModes()[0]
	return telemetryMode{name: "1 %", meters: noMetrics.meters, tracers: func() trace.TracerProvider {
		sampler := sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.01))
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSyncer(discard{}))
	}}
}

func chainTable() Table {
	all := []Comparison{{chainName, bareName}, {chainName, grpcName}, {chainName, engineName}, {chainFullName, chainName}}
	goals := []Goal{{Comparison: all[1], Aim: 1}}
	modes := telemetryModes()
	t := Table{
		Name:  "chain",
		Title: "All seven on both sides, with the Engine, against bare connect and bare grpc-go",
		Notes: []string{
			"The chain is the manual's: tracing, logging (JSON, to nobody), deadline (with timers for idle streams, " +
				"stalled clients and slow readers), ratelimit (on RPCs by address and by caller, and on messages of " +
				"both directions), auth (an ES256 token that is remembered, at a gate) on handlers, and tracing, " +
				"logging, deadline, retry, ratelimit, auth and the Engine on clients. One trace in a hundred is " +
				"sampled, and with all spans all are, with metrics. The Engine alone tells what the chain costs.",
		},
		Contenders: []Contender{
			Connect(bareName, ConnectSettings{}),
			Connect(engineName, ConnectSettings{Engine: true}),
			chainContender(chainName, sparse(), HTTPSettings{}),
			chainContender(chainFullName, modes[len(modes)-1], HTTPSettings{}),
			GRPC(grpcName, GRPCSettings{}),
		},
		Comparisons: all,
		Rows: []Row{
			{Name: "server stream, 16 B", Do: download(16)},
			{Name: "server stream, 1 KiB", Do: download(kib)},
			{Name: "server stream, 64 KiB", Do: download(64 * kib)},
			{Name: "client stream, 16 B", Do: upload(16)},
			{Name: "client stream, 1 KiB", Do: upload(kib)},
			{Name: "client stream, 64 KiB", Do: upload(64 * kib)},
			{Name: "bidi ping-pong, 16 B", Do: pingPong(16)},
			{Name: "unary, 16 B", Do: unary(16)},
			{Name: "bidi stream with one message each way, 16 B", Do: shortStreams(16)},
		},
	}
	for i := range t.Rows {
		t.Rows[i].Goals = goals
	}
	return t
}

func chainIdleTable() IdleTable {
	settings := idleSettings()
	return IdleTable{
		Name:  "chain-idle",
		Title: fmt.Sprintf("Memory of %d idle bidi streams with all seven on both sides", idleStreams),
		Notes: []string{
			"As in the other table of idle streams. The chain is that of the table before, with one trace in a " +
				"hundred sampled: it keeps the state of seven interceptors on the client, six on the handler, " +
				"and an armed timer on each side. It also sends a traceparent, of which each differs: then " +
				"net/http's client must evict headers from HPACK's table, and the stack of the goroutine that " +
				"does grows. What that alone takes has a line of its own.",
		},
		Streams: idleStreams,
		Contenders: []Contender{
			Connect(bareName, ConnectSettings{HTTP: settings}),
			Connect(bareName+", a traceparent", ConnectSettings{HTTP: settings, Interceptors: []connect.Interceptor{parented{}}}),
			chainContender(chainName, sparse(), settings),
			GRPC(grpcName, GRPCSettings{Server: []grpc.ServerOption{grpc.MaxConcurrentStreams(2 * idleStreams)}}),
		},
		Subject: chainName,
		Must:    2 * kib,
		Aim:     kib,
	}
}

// parented sends a traceparent with each stream, and does nothing else.
type parented struct{}

func (parented) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (parented) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (parented) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		var id [24]byte
		_, _ = rand.Read(id[:])
		conn.RequestHeader().Set("Traceparent", fmt.Sprintf("00-%x-%x-01", id[:16], id[16:]))
		return conn
	}
}

// chainContender is connect with the chain of the manual.
func chainContender(name string, mode telemetryMode, settings HTTPSettings) Contender {
	return Contender{Name: name, Start: func() (Client, func(), error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		token, err := newToken(key)
		if err != nil {
			return nil, nil, err
		}
		tokens, err := newVerifier(&key.PublicKey, 0)
		if err != nil {
			return nil, nil, err
		}
		return Connect(name, chained(settings, mode.interceptor(), tokens, token)).Start()
	}}
}

// chained is the settings of a contender with the chain of the manual.
func chained(settings HTTPSettings, telemetry *tracing.Interceptor, tokens auth.Authenticator, token string) ConnectSettings {
	logs := logging.NewInterceptor(slog.New(slog.NewJSONHandler(io.Discard, nil)))
	const long = 10 * time.Minute
	deadlines := deadline.NewInterceptor(deadline.Policy{Max: time.Hour, Idle: long, ReceiveIdle: long, SendStall: long})
	addresses := ratelimit.NewInterceptor(ratelimit.Rule{Name: "address", Key: ratelimit.ByPeerIP(), Limiter: plenty()})
	callers := ratelimit.NewInterceptor(
		ratelimit.Rule{Name: "caller", Key: ratelimit.ByIdentity(caller), Limiter: plenty()},
		ratelimit.Rule{Name: "received", On: ratelimit.ReceivedMessages, Key: ratelimit.ByIdentity(caller), Limiter: plenty()},
		ratelimit.Rule{Name: "sent", On: ratelimit.SentMessages, Key: ratelimit.ByIdentity(caller), Limiter: plenty()},
	)
	return ConnectSettings{
		HTTP:   settings,
		Engine: true,
		Around: deadlines.Handler,
		Handler: []connect.HandlerOption{
			telemetry.HandlerOption(), logs.HandlerOption(), deadlines.HandlerOption(),
			addresses.HandlerOption(), auth.NewServerInterceptor(tokens).HandlerOption(), callers.HandlerOption(),
		},
		Client: []connect.ClientOption{connect.WithInterceptors(
			telemetry,
			logs,
			deadline.NewInterceptor(deadline.Policy{Default: time.Hour, Idle: long, ReceiveIdle: long, SendStall: long}),
			retry.NewInterceptor(retry.Policy{}),
			ratelimit.NewInterceptor(
				ratelimit.Rule{Name: "calls", Limiter: plenty()},
				ratelimit.Rule{Name: "sent", On: ratelimit.SentMessages, Limiter: plenty()},
			),
			auth.NewClientInterceptor(auth.Cached(auth.TokenFunc(func(context.Context) (auth.Token, error) {
				return auth.Token{Value: token, Expiry: time.Now().Add(time.Hour)}, nil
			}))),
		)},
	}
}

// plenty is a limit for each key that nobody reaches.
func plenty() ratelimit.Limiter {
	return ratelimit.NewKeyed(ratelimit.Per(1_000_000_000, time.Second), ratelimit.WithMaxKeys(1024))
}

// caller is who an RPC counts for.
func caller(ctx context.Context) (string, bool) {
	id, ok := auth.FromContext(ctx)
	if !ok {
		return "", false
	}
	return id.Subject, true
}

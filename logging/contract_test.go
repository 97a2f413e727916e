package logging_test

import (
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// everything is all options that add to what is logged.
func everything() []logging.Option {
	return []logging.Option{
		logging.WithStart(slog.LevelInfo),
		logging.WithMessages(slog.LevelInfo),
		logging.WithPayloads(logging.Payloads{Every: 1}),
		logging.WithSlow(time.Hour),
		logging.WithProgress(time.Hour),
		logging.WithRequestMetadata("*"),
		logging.WithResponseMetadata("*"),
	}
}

// TestContract: the interceptor keeps what interceptors must, whatever it logs.
func TestContract(t *testing.T) {
	t.Parallel()
	off := slog.New(slog.DiscardHandler)
	on := slog.New(discard{slog.LevelDebug})
	for name, tt := range map[string]struct {
		make func() connect.Interceptor
		opts []streamwraptest.Option
	}{
		"off":       {make: func() connect.Interceptor { return logging.NewInterceptor(off) }},
		"on":        {make: func() connect.Interceptor { return logging.NewInterceptor(on) }},
		"grpc":      {make: func() connect.Interceptor { return logging.NewInterceptor(on, logging.WithGRPCKeys()) }},
		"panicking": {make: func() connect.Interceptor { return logging.NewInterceptor(slog.New(panicking{})) }},
		"everything": {
			make: func() connect.Interceptor { return logging.NewInterceptor(on, everything()...) },
			opts: []streamwraptest.Option{streamwraptest.Without("allocations", "each message has a record")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamwraptest.Run(t, tt.make, tt.opts...)
		})
	}
}

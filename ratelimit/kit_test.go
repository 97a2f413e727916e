package ratelimit_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// web is what most tests run over: both versions of HTTP.
var web = []conntest.Transport{conntest.H2C, conntest.H1}

// behind returns a server's config with the interceptor, its gate and an Engine.
func behind(i *ratelimit.Interceptor, config conntest.Config) conntest.Config {
	config.HandlerOptions = append(config.HandlerOptions, i.HandlerOption())
	engine := streamwrap.NewEngine()
	config.Wrap = func(next http.Handler) http.Handler { return engine.Handler(next) }
	return config
}

func wantCode(tb testing.TB, err error, code connect.Code) {
	tb.Helper()
	if connect.CodeOf(err) != code || err == nil {
		tb.Errorf("got %v, want %v", err, code)
	}
}

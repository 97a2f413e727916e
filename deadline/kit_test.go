package deadline_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// web is what most tests run over: both versions of HTTP.
var web = []conntest.Transport{conntest.H2C, conntest.H1}

// limited returns a server's config with the interceptor in its three places: an
// Engine around its Handler, and the gate.
func limited(i *deadline.Interceptor, config conntest.Config) conntest.Config {
	config.HandlerOptions = append(config.HandlerOptions, i.HandlerOption())
	wrap := config.Wrap
	engine := streamwrap.NewEngine()
	config.Wrap = func(next http.Handler) http.Handler {
		if wrap != nil {
			next = wrap(next)
		}
		return engine.Handler(i.Handler(next))
	}
	return config
}

// open opens a stream of any kind and sends its first message. A server stream's
// request is complete then, the others' are not.
func open(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	var conn connect.StreamingClientConn
	switch kind {
	case connect.StreamTypeClient:
		stream := clients.Client.CallClientStream(ctx)
		c, err := stream.Conn()
		if err != nil {
			t.Fatal(err)
		}
		conn = c
	case connect.StreamTypeServer:
		stream, err := clients.Server.CallServerStream(ctx, connect.NewRequest(conntest.Text("first")))
		if err != nil {
			t.Fatal(err)
		}
		c, err := stream.Conn()
		if err != nil {
			t.Fatal(err)
		}
		return c
	default:
		c, err := clients.Bidi.CallBidiStream(ctx).Conn()
		if err != nil {
			t.Fatal(err)
		}
		conn = c
	}
	if err := conn.Send(conntest.Text("first")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// wantReason checks an error's reason and code.
func wantReason(tb testing.TB, err error, reason deadline.Reason, code connect.Code) {
	tb.Helper()
	if got, _ := deadline.ReasonOf(err); got != reason || connect.CodeOf(err) != code {
		tb.Errorf("got %q, %v: %v; want %q, %v", got, connect.CodeOf(err), err, reason, code)
	}
}

// wantElapsed checks that something took a time, which is exact in a bubble.
func wantElapsed(tb testing.TB, start time.Time, want time.Duration) {
	tb.Helper()
	if took := time.Since(start); took != want {
		tb.Errorf("took %v, want %v", took, want)
	}
}

// results collects what handlers return and when.
type results struct {
	mu   sync.Mutex
	errs []error
	at   []time.Time
}

func (r *results) add(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs, r.at = append(r.errs, err), append(r.at, time.Now())
	return err
}

func (r *results) last(tb testing.TB) (at time.Time, err error) {
	tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) == 0 {
		tb.Fatal("no handler has returned")
	}
	return r.at[len(r.at)-1], r.errs[len(r.errs)-1]
}

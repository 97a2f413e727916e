package retry_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// once makes an RPC that is tried once, and returns its error and what the observer
// was told of the attempt.
func once(t *testing.T, clients func(...connect.ClientOption) *conntest.Clients, kind connect.StreamType, do func(context.Context, *conntest.Clients) error) (retry.Attempt, error) {
	t.Helper()
	var last retry.Attempt
	observe := func(_ context.Context, e retry.Event) {
		if e.Kind == retry.Ended {
			last = e.Attempt
		}
	}
	p := retry.Policy{MaxAttempts: 1, MaxTransportRetries: 3}
	i := retry.NewInterceptor(p, retry.WithObserver(observe))
	err := do(t.Context(), clients(connect.WithInterceptors(i)))
	_ = kind
	return last, err
}

// TestClassOfNetworkFaults: what net/http and connect make of them.
func TestClassOfNetworkFaults(t *testing.T) {
	t.Parallel()
	plain := func(c conntest.Case) func(context.Context, *conntest.Clients) error {
		return func(ctx context.Context, clients *conntest.Clients) error {
			return clients.Do(ctx, c.Kind, nil, "one", "two").Err
		}
	}
	for name, test := range map[string]struct {
		faults []conntest.Fault
		during func(*conntest.Server) // after a second
		tune   func(*http.Transport)
		change func(*conntest.Server)
		opts   []connect.ClientOption
		want   retry.Class
	}{
		"reset before the response":  {faults: []conntest.Fault{conntest.Block()}, during: (*conntest.Server).CutConnections, want: retry.Transport},
		"reset in the response":      {faults: []conntest.Fault{conntest.Block().After(1)}, during: (*conntest.Server).CutConnections, want: retry.Transport},
		"the server ends":            {faults: []conntest.Fault{conntest.Block()}, during: func(s *conntest.Server) { _ = s.HTTP.Close() }, want: retry.Transport},
		"the server's error":         {faults: []conntest.Fault{notNow}, want: retry.Wire},
		"the server says deadline":   {faults: []conntest.Fault{conntest.Fail(connect.CodeDeadlineExceeded, "")}, want: retry.Wire},
		"the server says canceled":   {faults: []conntest.Fault{conntest.Fail(connect.CodeCanceled, "")}, want: retry.Wire},
		"http.Client.Timeout":        {faults: []conntest.Fault{conntest.Block()}, change: func(s *conntest.Server) { s.Client().Timeout = 3 * time.Second }, want: retry.AttemptTimeout},
		"a message that is too long": {opts: []connect.ClientOption{connect.WithSendMaxBytes(1)}, want: retry.Local},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				if name == "a message that is too long" && c.Kind != connect.StreamTypeUnary {
					return // of a stream this message fails, and no attempt does
				}
				srv := c.Start(t, conntest.Config{TuneClient: test.tune})
				srv.Inject(test.faults...)
				if test.change != nil {
					test.change(srv)
				}
				if test.during != nil {
					time.AfterFunc(time.Second, func() { test.during(srv) })
				}
				clients := func(opts ...connect.ClientOption) *conntest.Clients {
					return c.Clients(srv, append(opts, test.opts...)...)
				}
				got, err := once(t, clients, c.Kind, plain(c))
				if got.Class != test.want || err == nil {
					t.Errorf("%v, want %v: %v", got.Class, test.want, err)
				}
			})
		})
	}
}

// TestClassOfNoListener: nothing was sent, so that anything may be tried again.
func TestClassOfNoListener(t *testing.T) {
	t.Parallel()
	conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.RefuseDials(true)
		reply := retrying(c, srv, retry.Policy{}).Do(t.Context(), c.Kind, nil, "text")
		want := strings.TrimSuffix(strings.Repeat("never_sent ", 6), " ")
		if got := classesOf(reply.Err); got != want || connect.CodeOf(reply.Err) != connect.CodeUnavailable {
			t.Errorf("%q: %v", got, reply.Err)
		}
	})
}

// TestClassOfTheEnd: the caller's own deadline and cancellation are never a reason to
// try again, whoever notices first.
func TestClassOfTheEnd(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, deadline := range []bool{true, false} {
			srv := c.Start(t, conntest.Config{})
			srv.Inject(conntest.Block(), conntest.Block())
			ctx, cancel := context.WithCancel(t.Context())
			want := connect.CodeCanceled
			if deadline {
				want = connect.CodeDeadlineExceeded
				ctx, cancel = context.WithTimeout(t.Context(), 1500*time.Microsecond)
			} else {
				time.AfterFunc(time.Second, cancel)
			}
			reply := retrying(c, srv, eager()).Do(ctx, c.Kind, nil, "text")
			cancel()
			if connect.CodeOf(reply.Err) != want || len(srv.Calls()) != 1 || retry.HistoryOf(reply.Err) != nil {
				t.Errorf("%d calls: %v", len(srv.Calls()), reply.Err)
			}
		}
	})
}

// TestLostConnection: a cable is pulled; HTTP/2's pings find out.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{TuneClient: func(tr *http.Transport) {
			tr.HTTP2.SendPingTimeout, tr.HTTP2.PingTimeout = time.Second, time.Second
		}})
		srv.Inject(conntest.Block())
		time.AfterFunc(time.Second, func() { srv.BlackHole(true) })
		time.AfterFunc(time.Minute, func() { srv.BlackHole(false) })
		p := eager()
		p.Backoff = retry.Constant(5 * time.Minute)
		var log events
		reply := retrying(c, srv, p, retry.WithObserver(log.observe)).Do(t.Context(), c.Kind, nil, "text")
		if reply.Err != nil || !strings.HasPrefix(log.String(), "1 transport 2 ") {
			t.Errorf("%v: %v", &log, reply.Err)
		}
	})
}

// TestWarmConnections: net/http asks twice for a connection that HTTP/2 already has.
// That is no repetition of the request.
func TestWarmConnections(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := retrying(c, srv, retry.Policy{})
		for n := range 3 {
			if reply := clients.Do(retry.Disable(t.Context()), c.Kind, nil, "text"); reply.Err != nil {
				t.Errorf("RPC %d: %v", n, reply.Err)
			}
		}
	})
}

// TestProxies: the answers of whoever is between, which connect cannot read.
func TestProxies(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, test := range map[string]struct {
		status int
		after  string
		wraps  bool
		class  string // of the first attempt
		waits  time.Duration
		most   time.Duration
		fails  bool
	}{
		"429":                      {429, "", true, "wire", 9 * s, 9 * s, false},
		"502":                      {502, "", true, "wire", 9 * s, 9 * s, false},
		"503":                      {503, "", true, "wire", 9 * s, 9 * s, false},
		"504":                      {504, "", true, "wire", 9 * s, 9 * s, false},
		"503, in 4 s":              {503, "4", true, "wire", 4 * s, 6 * s, false},
		"503, at a date":           {503, time.Date(2000, 1, 1, 0, 0, 4, 0, time.UTC).Format(http.TimeFormat), true, "wire", 4 * s, 6 * s, false},
		"503, nonsense":            {503, "soon", true, "wire", 9 * s, 9 * s, false},
		"503, in an hour":          {503, "3600", true, "wire", 0, 0, true},
		"429, in 4 s, not wrapped": {429, "4", false, "transport", 9 * s, 9 * s, false},
		"503, not wrapped":         {503, "", false, "transport", 9 * s, 9 * s, false},
		"500":                      {500, "", true, "local", 0, 0, true},
		"404":                      {404, "", true, "local", 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var requests atomic.Int32
				srv := c.Start(t, conntest.Config{Wrap: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if requests.Add(1) > 1 {
							next.ServeHTTP(w, r)
							return
						}
						_, _ = io.Copy(io.Discard, r.Body)
						if test.after != "" {
							w.Header().Set("Retry-After", test.after)
						}
						w.Header().Set("Content-Type", "text/html")
						w.WriteHeader(test.status)
						_, _ = io.WriteString(w, "<html>no</html>")
					})
				}})
				client := connect.HTTPClient(srv.Client())
				if test.wraps {
					client = retry.HTTPClient(client)
				}
				var log events
				p := eager()
				p.Backoff = retry.Constant(9 * s)
				clients := conntest.NewClients(client, srv.URL, c.Option(), connect.WithInterceptors(retry.NewInterceptor(p, retry.WithObserver(log.observe))))
				start := time.Now()
				reply := clientDo(t, clients, c.Kind)
				took := time.Since(start)
				if (reply != nil) != test.fails || !strings.HasPrefix(log.String(), "1 "+test.class) || took < test.waits || took > test.most {
					t.Errorf("%v after %v: %v", &log, took, reply)
				}
			})
		})
	}
}

// clientDo makes an RPC whose client closes before it receives, as HTTP/1.1 and a
// proxy that reads all of a request need it.
func clientDo(t *testing.T, clients *conntest.Clients, kind connect.StreamType) error {
	t.Helper()
	if kind != connect.StreamTypeBidi {
		return clients.Do(t.Context(), kind, nil, "text").Err
	}
	stream := clients.Bidi.CallBidiStream(t.Context())
	_ = stream.Send(conntest.Text("text"))
	_ = stream.CloseRequest()
	_, err := stream.Receive()
	_ = stream.CloseResponse()
	return err
}

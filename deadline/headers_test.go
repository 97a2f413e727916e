package deadline_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// timeoutKey returns the name of the header with a protocol's timeout.
func timeoutKey(p conntest.Protocol) string {
	if p == conntest.Connect {
		return "Connect-Timeout-Ms"
	}
	return "Grpc-Timeout"
}

// saying returns clients whose requests say something about their timeouts, and
// that do not end by themselves.
func saying(srv *conntest.Server, c conntest.Case, values ...string) *conntest.Clients {
	return conntest.NewClients(&sayer{srv.Client(), timeoutKey(c.Protocol), values}, srv.URL, c.Option())
}

type sayer struct {
	connect.HTTPClient

	key    string
	values []string
}

func (s *sayer) Do(req *http.Request) (*http.Response, error) {
	req.Header[s.key] = s.values
	return s.HTTPClient.Do(req)
}

// timed is what a handler knows of its time.
type timed struct {
	ran    bool
	info   deadline.Info
	left   time.Duration // of its context, -1 for ever
	length time.Duration // as Info has it, -1 for ever
	header []string      // what connect was told
}

// watching returns handlers of all kinds that note what they see, and answer.
func watching(s *timed) conntest.Service {
	look := func(ctx context.Context, h http.Header) {
		*s = timed{ran: true, left: -1, length: -1}
		s.info, _ = deadline.FromContext(ctx)
		if left, ok := deadline.Remaining(ctx); ok {
			s.left = left
		}
		if !s.info.Deadline.IsZero() {
			s.length = time.Until(s.info.Deadline)
		}
		s.header = slices.Concat(h["Connect-Timeout-Ms"], h["Grpc-Timeout"])
	}
	service := conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		look(ctx, conn.RequestHeader())
		return nil
	})
	service.Unary = func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
		look(ctx, req.Header())
		return connect.NewResponse(req.Msg), nil
	}
	return service
}

// header is what a client says about its timeout.
type header struct {
	name          string
	connect, grpc []string
	asked         time.Duration // 0: nothing
	malformed     bool          // connect refuses it
}

const hour = time.Hour

var headers = []header{
	{name: "absent"},
	{name: "empty", connect: []string{""}, grpc: []string{""}},
	{name: "low", connect: []string{"1500"}, grpc: []string{"1500m"}, asked: 1500 * time.Millisecond},
	{name: "mid", connect: []string{"10000"}, grpc: []string{"10S"}, asked: 10 * time.Second},
	{name: "high", connect: []string{"7200000"}, grpc: []string{"2H"}, asked: 2 * hour},
	{name: "microseconds", connect: []string{"10000"}, grpc: []string{"10000000u"}, asked: 10 * time.Second},
	{name: "minutes", connect: []string{"60000"}, grpc: []string{"1M"}, asked: time.Minute},
	{name: "plus", connect: []string{"+5000"}, grpc: []string{"+5000m"}, asked: 5 * time.Second},
	{name: "leading zeros", connect: []string{"0000005000"}, grpc: []string{"00005000m"}, asked: 5 * time.Second},
	{name: "two values", connect: []string{"5000", "7000"}, grpc: []string{"5S", "7S"}, asked: 5 * time.Second},
	{name: "longest", connect: []string{"9999999999"}, grpc: []string{"99999999M"}, asked: longest},
	// More hours than a Duration has are as good as no timeout.
	{name: "huge", connect: nil, grpc: []string{"2562048H"}},
	{name: "too many digits", connect: []string{"10000000000"}, grpc: []string{"100000000m"}, malformed: true},
	{name: "negative", connect: []string{"-1"}, grpc: []string{"-1S"}, malformed: true},
	{name: "word", connect: []string{"soon"}, grpc: []string{"soon"}, malformed: true},
	{name: "fraction", connect: []string{"1.5"}, grpc: []string{"1.5S"}, malformed: true},
	{name: "unit", connect: []string{"5S"}, grpc: []string{"5000"}, malformed: true},
	{name: "unit alone", connect: []string{"S"}, grpc: []string{"S"}, malformed: true},
	{name: "malformed first", connect: []string{"x", "5000"}, grpc: []string{"x", "5S"}, malformed: true},
}

// longest stands for the longest timeout that a protocol's header can say.
const longest time.Duration = -1

func (h header) of(p conntest.Protocol) (values []string, asked time.Duration) {
	values, asked = h.grpc, h.asked
	if p == conntest.Connect {
		values = h.connect
	}
	if asked != longest {
		return values, asked
	}
	if p == conntest.Connect {
		return values, 9_999_999_999 * time.Millisecond
	}
	return values, 99_999_999 * time.Minute
}

// TestHandlerReadsTimeouts: what a policy makes of every timeout that a client may
// ask for, in every protocol. The deadline that the handler has is connect's own,
// so that nothing between them disagrees.
func TestHandlerReadsTimeouts(t *testing.T) {
	t.Parallel()
	const lowest, normal, highest = 3 * time.Second, 20 * time.Second, 40 * time.Second
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		// want returns what an RPC gets that asks for a time, or for none: 0.
		want func(asked time.Duration) (time.Duration, deadline.Source)
	}{
		{"no policy", deadline.Policy{}, func(asked time.Duration) (time.Duration, deadline.Source) {
			if asked == 0 {
				return -1, deadline.FromNobody
			}
			return asked, deadline.FromCaller
		}},
		{
			"Default, Min and Max",
			deadline.Policy{Default: normal, Min: lowest, Max: highest},
			func(asked time.Duration) (time.Duration, deadline.Source) {
				switch {
				case asked == 0:
					return normal, deadline.FromDefault
				case asked < lowest:
					return lowest, deadline.FromMin
				case asked > highest:
					return highest, deadline.FromMax
				default:
					return asked, deadline.FromCaller
				}
			},
		},
		{
			"Max",
			deadline.Policy{Max: highest},
			func(asked time.Duration) (time.Duration, deadline.Source) {
				if asked == 0 || asked > highest {
					return highest, deadline.FromMax
				}
				return asked, deadline.FromCaller
			},
		},
		{
			"Min",
			deadline.Policy{Min: lowest},
			func(asked time.Duration) (time.Duration, deadline.Source) {
				switch {
				case asked == 0:
					return -1, deadline.FromNobody
				case asked < lowest:
					return lowest, deadline.FromMin
				default:
					return asked, deadline.FromCaller
				}
			},
		},
		{
			// Default is for those who say nothing: Min and Max do not change it.
			"Default beyond Max",
			deadline.Policy{Default: hour, Max: highest},
			func(asked time.Duration) (time.Duration, deadline.Source) {
				switch {
				case asked == 0:
					return hour, deadline.FromDefault
				case asked > highest:
					return highest, deadline.FromMax
				default:
					return asked, deadline.FromCaller
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var got timed
				srv := c.Start(t, limited(deadline.NewInterceptor(tt.policy), conntest.Config{Service: watching(&got)}))
				for _, h := range headers {
					got = timed{}
					values, asked := h.of(c.Protocol)
					reply := saying(srv, c, values...).Do(t.Context(), c.Kind, nil, "x")
					if h.malformed {
						if got.ran || connect.CodeOf(reply.Err) != connect.CodeInvalidArgument {
							t.Errorf("%s: ran: %v, %v; want invalid_argument", h.name, got.ran, reply.Err)
						}
						continue
					}
					if !got.ran {
						t.Errorf("%s: the handler did not run: %v", h.name, reply.Err)
						continue
					}
					want, source := tt.want(asked)
					if got.left != want || got.length != want {
						t.Errorf("%s: the handler has %v, in the Info %v; want %v", h.name, got.left, got.length, want)
					}
					if got.info.Source != source || got.info.Asked != asked {
						t.Errorf("%s: %v asked for %v, want %v and %v", h.name, got.info.Source, got.info.Asked, source, asked)
					}
					if source != deadline.FromCaller && source != deadline.FromNobody && len(got.header) != 1 {
						t.Errorf("%s: connect was told %q", h.name, got.header)
					}
				}
			})
		})
	}
}

// TestHandlerReadsTimeoutsWithSpaces: HTTP/1.1 takes away the spaces around a
// value. HTTP/2 does not, so that connect refuses it, and Handler must not make a
// good one of it.
func TestHandlerReadsTimeoutsWithSpaces(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		value := " 5000 "
		if c.Protocol != conntest.Connect {
			value = " 5S "
		}
		for _, policy := range []deadline.Policy{{}, {Min: 10 * time.Second}} {
			var with, without timed
			srv := c.Start(t, limited(deadline.NewInterceptor(policy), conntest.Config{Service: watching(&with)}))
			reply := saying(srv, c, value).Do(t.Context(), c.Kind, nil, "x")
			bare := c.Start(t, conntest.Config{Service: watching(&without)})
			wanted := saying(bare, c, value).Do(t.Context(), c.Kind, nil, "x")
			if connect.CodeOf(reply.Err) != connect.CodeOf(wanted.Err) || with.ran != without.ran {
				t.Errorf("got %v, without the interceptor %v", reply.Err, wanted.Err)
			}
			if want := max(policy.Min, 5*time.Second); with.ran && with.left != want {
				t.Errorf("the handler has %v, want %v", with.left, want)
			}
		}
	})
}

// TestHandlerReadsTimeoutOfGET: a unary RPC without side effects may be a GET. Its
// timeout is in the same header.
func TestHandlerReadsTimeoutOfGET(t *testing.T) {
	t.Parallel()
	matrix := conntest.Matrix{
		Transports: web, Protocols: []conntest.Protocol{conntest.Connect}, Kinds: []connect.StreamType{connect.StreamTypeUnary},
	}
	matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const procedure = "/conntest.v1.Echo/Get"
		var got timed
		var method string
		i := deadline.NewInterceptor(deadline.Policy{Default: 20 * time.Second, Min: 3 * time.Second, Max: 40 * time.Second})
		srv := c.Start(t, limited(i, conntest.Config{
			Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
				opts = append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))
				look := watching(&got).Unary
				mux.Handle(procedure, connect.NewUnaryHandler(procedure,
					func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
						method = req.HTTPMethod()
						return look(ctx, req)
					}, opts...))
			},
		}))
		for _, tt := range []struct {
			value  []string
			want   time.Duration
			source deadline.Source
		}{
			{nil, 20 * time.Second, deadline.FromDefault},
			{[]string{"0"}, 3 * time.Second, deadline.FromMin},
			{[]string{"10000"}, 10 * time.Second, deadline.FromCaller},
			{[]string{"90000"}, 40 * time.Second, deadline.FromMax},
		} {
			client := connect.NewClient[conntest.Message, conntest.Message](
				&sayer{srv.Client(), timeoutKey(c.Protocol), tt.value}, srv.URL+procedure,
				connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects))
			if _, err := client.CallUnary(t.Context(), connect.NewRequest(conntest.Text("x"))); err != nil {
				t.Errorf("%q: %v", tt.value, err)
			}
			if method != http.MethodGet {
				t.Errorf("the method was %s", method)
			}
			if got.left != tt.want || got.info.Source != tt.source {
				t.Errorf("%q: the handler has %v of %v, want %v of %v", tt.value, got.left, got.info.Source, tt.want, tt.source)
			}
		}
	})
}

// TestExpiredOnArrival: an RPC whose time is up when it arrives reaches no handler
// of any kind, with a gate and without one. connect would run those of streams.
func TestExpiredOnArrival(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		install func(*deadline.Interceptor, conntest.Config) conntest.Config
	}{
		{"everything", limited},
		{"no Handler", behindEngine},
		{"neither", alone},
		{"no gate", func(i *deadline.Interceptor, config conntest.Config) conntest.Config {
			config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(i))
			return config
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, policy := range []deadline.Policy{
					{},
					{Default: time.Minute, Max: time.Hour},
					{Min: time.Second, UnderMin: deadline.Reject},
				} {
					var got timed
					srv := c.Start(t, tt.install(deadline.NewInterceptor(policy), conntest.Config{Service: watching(&got)}))
					value := "0"
					if c.Protocol != conntest.Connect {
						value = "0n"
					}
					start := time.Now()
					reply := saying(srv, c, value).Do(t.Context(), c.Kind, nil, "x")
					want := deadline.ReasonDeadline
					if policy.UnderMin == deadline.Reject {
						want = deadline.ReasonTooShort
					}
					wantReason(t, reply.Err, want, connect.CodeDeadlineExceeded)
					wantElapsed(t, start, 0)
					if got.ran {
						t.Error("a handler ran")
					}
				}
			})
		})
	}
}

// TestHandlerRaisesTimeouts: Min gives an RPC more time than it asked for, which
// takes Handler: connect's context cannot be lengthened from within. Without it
// the Info does not claim that it was.
func TestHandlerRaisesTimeouts(t *testing.T) {
	t.Parallel()
	const asked, lowest, work = time.Second, 10 * time.Second, 5 * time.Second
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, tt := range []struct {
			name    string
			install func(*deadline.Interceptor, conntest.Config) conntest.Config
			raised  bool
		}{
			{name: "Handler", install: limited, raised: true},
			{name: "no Handler", install: behindEngine},
		} {
			var infos []deadline.Info
			serve := func(ctx context.Context) error {
				info, _ := deadline.FromContext(ctx)
				infos = append(infos, info)
				select {
				case <-time.After(work):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			service := conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error { return serve(ctx) })
			service.Unary = func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				return connect.NewResponse(req.Msg), serve(ctx)
			}
			srv := c.Start(t, tt.install(deadline.NewInterceptor(deadline.Policy{Min: lowest}), conntest.Config{Service: service}))
			value := "1000"
			if c.Protocol != conntest.Connect {
				value = "1S"
			}
			start := time.Now()
			reply := saying(srv, c, value).Do(t.Context(), c.Kind, nil)
			if len(infos) != 1 {
				t.Fatalf("%s: %d handlers ran: %v", tt.name, len(infos), reply.Err)
			}
			info := infos[0]
			if !tt.raised {
				wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				wantElapsed(t, start, asked)
				if info.Source != deadline.FromCaller || !info.Deadline.Equal(start.Add(asked)) {
					t.Errorf("%s: %+v", tt.name, info)
				}
				continue
			}
			if reply.Err != nil {
				t.Errorf("%s: %v", tt.name, reply.Err)
			}
			wantElapsed(t, start, work)
			if info.Source != deadline.FromMin || info.Asked != asked || !info.Deadline.Equal(start.Add(lowest)) {
				t.Errorf("%s: %+v", tt.name, info)
			}
		}
	})
}

// TestHandlerTellsNobodyElse: requests that are no RPCs pass as they are, and the
// request that middleware outside has is not changed.
func TestHandlerTellsNobodyElse(t *testing.T) {
	t.Parallel()
	conntest.Matrix{
		Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}, Protocols: []conntest.Protocol{conntest.Connect},
	}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Default: time.Second, Max: time.Second})
		var inside, outside []string
		config := conntest.Config{
			Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
				mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
					inside = r.Header["Connect-Timeout-Ms"]
					_, _ = io.WriteString(w, "ok")
				})
			},
			Wrap: func(next http.Handler) http.Handler {
				bounds := i.Handler(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					bounds.ServeHTTP(w, r)
					outside = r.Header["Connect-Timeout-Ms"]
				})
			},
		}
		srv := c.Start(t, config)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connect-Timeout-Ms", "5000")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if strings.Join(inside, " ") != "5000" {
			t.Errorf("a request that is no RPC has the timeout %q", inside)
		}
		if reply := saying(srv, c, "5000").Do(t.Context(), c.Kind, nil, "x"); reply.Err != nil {
			t.Error(reply.Err)
		}
		if strings.Join(outside, " ") != "5000" {
			t.Errorf("middleware outside sees the timeout %q", outside)
		}
	})
}

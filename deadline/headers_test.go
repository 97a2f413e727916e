package deadline_test

import (
	"context"
	"net/http"
	"slices"
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

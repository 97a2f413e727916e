package ratelimit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// deaths are ways in which an RPC can end, by a client that makes one.
var deaths = map[string]func(ctx context.Context, d *dying){
	"well":          func(ctx context.Context, d *dying) { d.do(ctx, nil) },
	"fails":         func(ctx context.Context, d *dying) { d.do(ctx, conntest.Fail(connect.CodeInternal, "boom")) },
	"fails late":    func(ctx context.Context, d *dying) { d.do(ctx, conntest.Fail(connect.CodeInternal, "boom").After(1)) },
	"panics":        func(ctx context.Context, d *dying) { d.do(ctx, conntest.Panic("boom")) },
	"panics late":   func(ctx context.Context, d *dying) { d.do(ctx, conntest.Panic("boom").After(1)) },
	"returns early": func(ctx context.Context, d *dying) { d.do(ctx, conntest.ReturnEarly()) },
	"returns EOF":   func(ctx context.Context, d *dying) { d.do(ctx, conntest.ReturnEOF()) },
	"canceled": func(ctx context.Context, d *dying) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(d.delay(), cancel)
		if !d.c.Transport.HTTP2() { // net/http does not notice while it does not read
			d.do(ctx, conntest.Delay(time.Second))
			return
		}
		d.do(ctx, conntest.Block())
	},
	"out of time": func(ctx context.Context, d *dying) {
		ctx, cancel := context.WithTimeout(ctx, d.delay())
		defer cancel()
		d.do(ctx, conntest.Block().After(1))
	},
	"refused by a gate": func(ctx context.Context, d *dying) { d.do(ctx, nil, "Refuse-Gate", "1") },
	"refused by a rule": func(ctx context.Context, d *dying) { d.do(ctx, nil, "Refuse-Rule", "1") },
	"not decodable": func(ctx context.Context, d *dying) { // a varint, where bytes belong
		if d.c.Kind == connect.StreamTypeUnary {
			_, _ = d.odd.CallUnary(ctx, connect.NewRequest(wrapperspb.Int64(1<<62)))
			return
		}
		stream := d.oddStream.CallBidiStream(ctx)
		_ = stream.Send(wrapperspb.Int64(1 << 62))
		_ = stream.CloseRequest()
		_, _ = stream.Receive()
		_ = stream.CloseResponse()
	},
	"closed at once": func(ctx context.Context, d *dying) {
		if d.c.Kind == connect.StreamTypeBidi {
			stream := d.clients.Bidi.CallBidiStream(ctx)
			_ = stream.Send(conntest.Text("one"))
			_ = stream.CloseResponse()
			_ = stream.CloseRequest()
		}
	},
	"never sent": func(ctx context.Context, d *dying) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if d.c.Kind == connect.StreamTypeBidi {
			d.clients.Bidi.CallBidiStream(ctx)
		}
	},
}

// dying makes RPCs that end somehow.
type dying struct {
	c         conntest.Case
	clients   *conntest.Clients
	odd       *connect.Client[wrapperspb.Int64Value, conntest.Message]
	oddStream *connect.Client[wrapperspb.Int64Value, conntest.Message]
	random    *rand.Rand
}

func (d *dying) delay() time.Duration { return time.Duration(d.random.IntN(20)) * time.Millisecond }

func (d *dying) do(ctx context.Context, fault any, header ...string) {
	h := conntest.WithFaults()
	if f, ok := fault.(conntest.Fault); ok {
		h = conntest.WithFaults(f)
	}
	for n := 0; n < len(header); n += 2 {
		h.Set(header[n], header[n+1])
	}
	h.Set("X-User", strconv.Itoa(d.random.IntN(4)))
	_ = d.clients.Do(ctx, d.c.Kind, h, words...)
}

// refuseByHeader is a gate.
func refuseByHeader(ctx context.Context, _ connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
	if h.Get("Refuse-Gate") != "" {
		return nil, connect.NewError(connect.CodeUnauthenticated, errTest)
	}
	return ctx, nil
}

// TestSlotsAfterRandomDeaths: after 10 000 RPCs that have ended in all ways there are,
// on connections that were cut now and then, no slot is taken and no key takes memory.
func TestSlotsAfterRandomDeaths(t *testing.T) {
	t.Parallel()
	cases := conntest.Matrix{Transports: web}.Cases()
	runs := 10_000/len(cases)/len(places) + 1
	var names []string
	for name := range deaths {
		names = append(names, name)
	}
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		limits := ratelimit.NewInterceptor(
			ratelimit.Rule{Name: "slots", On: ratelimit.Concurrent, Key: ratelimit.ByHeader("X-User"), Max: 8, Mode: ratelimit.Wait},
			ratelimit.Rule{Name: "few", On: ratelimit.Concurrent, Max: 12, Mode: ratelimit.Reject},
			ratelimit.Rule{Name: "refuses", Key: ratelimit.ByHeader("Refuse-Rule"), OnMissing: ratelimit.Skip, Limiter: never{time.Hour}},
		)
		config := quiet(conntest.Config{})
		srv, clients := p.start(t, c, limits, config, connect.WithRequestGate(refuseByHeader))
		options := []connect.ClientOption{c.Option()}
		if p.client {
			options = append(options, connect.WithInterceptors(limits))
		}
		odd := func(procedure string) *connect.Client[wrapperspb.Int64Value, conntest.Message] {
			return connect.NewClient[wrapperspb.Int64Value, conntest.Message](srv.Client(), srv.URL+procedure, options...)
		}
		var workers sync.WaitGroup
		for w := range 16 {
			d := &dying{
				c: c, clients: clients, random: rand.New(rand.NewPCG(1, uint64(w))), //nolint:gosec // deaths by a seed, to be repeatable, and no secret
				odd:       odd(conntest.UnaryProcedure),
				oddStream: odd(map[bool]string{true: conntest.BidiProcedure, false: conntest.ClientProcedure}[c.Transport.HTTP2()]),
			}
			workers.Go(func() {
				for range runs/16 + 1 {
					deaths[names[d.random.IntN(len(names))]](t.Context(), d)
					if d.random.IntN(50) == 0 {
						srv.CutConnections()
					}
				}
			})
		}
		workers.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if taken, waiting, keys := limits.Slots(); taken != 0 || waiting != 0 || keys != 0 {
			t.Errorf("%d slots taken, %d wait, %d keys", taken, waiting, keys)
		}
		if n := limits.Waiters(); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

// TestSlotsOfAbandonedStreams: a client's stream that nobody has any more is over when
// garbage is collected.
func TestSlotsOfAbandonedStreams(t *testing.T) {
	for _, protocol := range conntest.AllProtocols() {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: 10})
		srv := conntest.Start(t, conntest.Config{})
		clients := srv.Clients(protocol.Option(), connect.WithInterceptors(limits))
		for range 10 {
			func() {
				stream := clients.Bidi.CallBidiStream(t.Context())
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Error(err)
				}
			}()
		}
		for range 100 {
			runtime.GC()
			if taken, _, _ := limits.Slots(); taken == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if taken, _, _ := limits.Slots(); taken != 0 {
			t.Errorf("%v: %d slots taken", protocol, taken)
		}
	}
}

// TestSlotsOfGoexit: a handler may end its goroutine.
func TestSlotsOfGoexit(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: 1})
		config := quiet(conntest.Config{})
		config.Service.Server = func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
			runtime.Goexit()
			return nil
		}
		srv := c.Start(t, behind(limits, config))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = c.Clients(srv).Do(ctx, c.Kind, nil, "one")
		time.Sleep(time.Minute)
		if taken, _, _ := limits.Slots(); taken != 0 {
			t.Errorf("%d slots taken", taken)
		}
	})
}

// TestRefusedMessagesEndTheirStream: whatever the handler does with the error, the client
// learns that a message was refused, once, and no other passes.
func TestRefusedMessagesEndTheirStream(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeBidi}
	for _, unit := range []ratelimit.Unit{ratelimit.SentMessages, ratelimit.ReceivedMessages} {
		conntest.Matrix{Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				Name: "messages", On: unit, Mode: ratelimit.Reject, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1}),
			})
			config := conntest.Config{}
			config.Service.Bidi = func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
				for {
					msg, err := stream.Receive()
					switch {
					case connect.CodeOf(err) == connect.CodeResourceExhausted:
						time.Sleep(2 * time.Second)
						if _, err := stream.Receive(); err == nil {
							t.Error("a message was received after one that was refused")
						}
						return nil
					case err != nil:
						return err
					}
					if err := stream.Send(msg); err != nil {
						time.Sleep(2 * time.Second)
						if err := stream.Send(msg); err == nil {
							t.Error("a message was sent after one that was refused")
						}
						return nil
					}
				}
			}
			clients := c.Clients(c.Start(t, behind(limits, config)))
			reply := clients.Do(t.Context(), c.Kind, nil, "one", "two", "three")
			wantCode(t, reply.Err, connect.CodeResourceExhausted)
			if len(reply.Messages) != 1 {
				t.Errorf("%v: received %q", unit, reply.Messages)
			}
		})
	}
}

// TestRefusedRPCsStayRefused: a client whose RPC was refused when its headers were to
// leave sends nothing, however often it tries.
func TestRefusedRPCsStayRefused(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeBidi, connect.StreamTypeClient}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{Mode: ratelimit.Reject, Limiter: never{time.Second}})
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(limits))
		switch c.Kind {
		case connect.StreamTypeClient:
			stream := clients.Client.CallClientStream(t.Context())
			for range 3 {
				if err := stream.Send(conntest.Text("one")); err == nil {
					t.Error("sent")
				}
			}
			_, err := stream.CloseAndReceive()
			wantCode(t, err, connect.CodeResourceExhausted)
		default:
			stream := clients.Bidi.CallBidiStream(t.Context())
			for range 3 {
				if err := stream.Send(conntest.Text("one")); err == nil {
					t.Error("sent")
				}
			}
			_, err := stream.Receive()
			wantCode(t, err, connect.CodeResourceExhausted)
			err = errors.Join(stream.CloseRequest(), stream.CloseResponse())
			_ = err
		}
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

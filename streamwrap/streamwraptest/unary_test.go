package streamwraptest_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

func unaryRPC(protocol string) streamwraptest.RPC {
	return streamwraptest.RPC{
		Spec: connect.Spec{
			Procedure: "/acme.v1.Users/Get", Schema: "schema", IdempotencyLevel: connect.IdempotencyNoSideEffects,
		},
		Peer:   connect.Peer{Addr: "192.0.2.7:99", Protocol: protocol},
		Header: http.Header{"A": {"1"}},
	}
}

var protocols = []string{connect.ProtocolConnect, connect.ProtocolGRPC, connect.ProtocolGRPCWeb}

func TestCallUnary(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			recorder := streamwraptest.NewRecorder()
			res, err := streamwraptest.CallUnary(t.Context(), recorder, unaryRPC(protocol), wrapperspb.String("id"),
				func(_ context.Context, req *connect.Request[text]) (*connect.Response[wrapperspb.Int64Value], error) {
					checkUnary(t, req, protocol)
					return connect.NewResponse(wrapperspb.Int64(42)), nil
				})
			if err != nil || res.Msg.GetValue() != 42 {
				t.Errorf("CallUnary() = %v, %v", res, err)
			}
			if call := recorder.Calls()[0]; !call.IsClient() || call.StreamType() != connect.StreamTypeUnary {
				t.Errorf("the interceptor saw %+v", call.Spec())
			}
			failure := connect.NewError(connect.CodeNotFound, errors.New("no such user"))
			_, err = streamwraptest.CallUnary(t.Context(), recorder, unaryRPC(protocol), wrapperspb.String("id"),
				func(context.Context, *connect.Request[text]) (*connect.Response[text], error) { return nil, failure })
			if err != failure {
				t.Errorf("CallUnary() = %v, want next's error", err)
			}
		})
	}
}

func checkUnary(t *testing.T, req *connect.Request[text], protocol string) {
	t.Helper()
	spec, peer := req.Spec(), req.Peer()
	if spec.Procedure != "/acme.v1.Users/Get" || spec.Schema != "schema" || spec.IdempotencyLevel != connect.IdempotencyNoSideEffects {
		t.Errorf("Spec() = %+v", spec)
	}
	if peer.Addr != "192.0.2.7:99" || peer.Protocol != protocol {
		t.Errorf("Peer() = %+v", peer)
	}
	if req.Header().Get("A") != "1" || req.Msg.GetValue() != "id" {
		t.Errorf("request %v with header %v", req.Msg, req.Header())
	}
}

func TestServeUnary(t *testing.T) {
	t.Parallel()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			recorder := streamwraptest.NewRecorder()
			rpc := unaryRPC(protocol)
			rpc.Peer.Query = url.Values{"q": {"1"}}
			served := streamwraptest.ServeUnary(t.Context(), recorder, rpc, wrapperspb.String("id"),
				func(ctx context.Context, req *connect.Request[text]) (*connect.Response[wrapperspb.Int64Value], error) {
					checkUnary(t, req, protocol)
					if got := req.Peer().Query.Get("q"); got != "1" && protocol == connect.ProtocolConnect {
						t.Errorf("query is %q", got)
					}
					info, _ := connect.CallInfoForHandlerContext(ctx)
					info.ResponseHeader().Set("B", "info")
					res := connect.NewResponse(wrapperspb.Int64(42))
					res.Header().Set("C", "response")
					res.Trailer().Set("D", "trailer")
					return res, nil
				})
			if served.Err != nil || served.Response.Msg.GetValue() != 42 {
				t.Errorf("ServeUnary() = %+v", served)
			}
			if served.Header.Get("B") != "info" || served.Header.Get("C") != "response" || served.Trailer.Get("D") != "trailer" {
				t.Errorf("header %v, trailer %v", served.Header, served.Trailer)
			}
			if got, want := streamwraptest.Format(recorder.Events(nil)),
				"open receive received:1 send sent:1 header return end:completed(1/1)"; got != want {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

func TestServeUnaryRefusal(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodeUnauthenticated, errors.New("no token"))
	type state struct{}
	guard := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *state, error) {
			if !call.SetResponseHeader("WWW-Authenticate", "Bearer") {
				t.Error("no way to set a response header")
			}
			return nil, nil, refusal
		},
	})
	served := streamwraptest.ServeUnary(t.Context(), guard, streamwraptest.RPC{}, &text{},
		func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
			t.Error("the handler ran")
			return nil, nil //nolint:nilnil // not reached: the interceptor refuses before
		})
	if served.Response != nil || served.Err != refusal || served.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("ServeUnary() = %+v", served)
	}
}

func TestServeUnaryContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "value")
		rpc := streamwraptest.RPC{Header: http.Header{"Connect-Timeout-Ms": {"5000"}}}
		served := streamwraptest.ServeUnary(ctx, pass, rpc, &text{},
			func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
				if ctx.Value(key{}) != "value" {
					t.Error("the context lost its value")
				}
				start := time.Now()
				<-ctx.Done()
				if time.Since(start) != 5*time.Second {
					t.Errorf("the deadline came after %v", time.Since(start))
				}
				return nil, ctx.Err()
			})
		if !errors.Is(served.Err, context.DeadlineExceeded) {
			t.Errorf("Err = %v", served.Err)
		}
	})
}

func TestServeUnaryPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if p := recover(); p != "on purpose" {
			t.Errorf("recovered %v", p)
		}
	}()
	streamwraptest.ServeUnary(t.Context(), pass, streamwraptest.RPC{}, &text{},
		func(context.Context, *connect.Request[text]) (*connect.Response[text], error) { panic("on purpose") })
}

func TestServeUnaryBadRequest(t *testing.T) {
	t.Parallel()
	rpc := streamwraptest.RPC{Header: http.Header{"Connect-Timeout-Ms": {"soon"}}}
	served := streamwraptest.ServeUnary(t.Context(), pass, rpc, &text{},
		func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
			return connect.NewResponse(&text{}), nil
		})
	if connect.CodeOf(served.Err) != connect.CodeInternal {
		t.Errorf("Err = %v, want an internal error that says that connect refused", served.Err)
	}
}

func TestUnaryWithoutProtobuf(t *testing.T) {
	t.Parallel()
	type question struct{ Text string }
	type answer struct{ N int }
	callee := func(_ context.Context, req *connect.Request[question]) (*connect.Response[answer], error) {
		return connect.NewResponse(&answer{len(req.Msg.Text)}), nil
	}
	served := streamwraptest.ServeUnary(t.Context(), pass, streamwraptest.RPC{}, &question{"four"}, callee)
	res, err := streamwraptest.CallUnary(t.Context(), pass, streamwraptest.RPC{}, &question{"four"}, callee)
	if served.Err != nil || err != nil || served.Response.Msg.N != 4 || res.Msg.N != 4 {
		t.Errorf("got %v and %v, %v", served, res, err)
	}
}

func BenchmarkCallUnary(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = streamwraptest.CallUnary(b.Context(), pass, streamwraptest.RPC{}, &text{},
			func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
				return connect.NewResponse(&text{}), nil
			})
	}
}

func BenchmarkServeUnary(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = streamwraptest.ServeUnary(b.Context(), pass, streamwraptest.RPC{}, &text{},
			func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
				return connect.NewResponse(&text{}), nil
			})
	}
}

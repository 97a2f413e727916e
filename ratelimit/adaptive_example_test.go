package ratelimit_test

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// A server limits each of its clients, and itself. What takes long for other reasons
// than load is left out.
func ExampleNewAdaptive() {
	overload := ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{
		MinLimit: 2,
		Match:    streamwrap.Not(streamwrap.Procedures("/chat.v1.ChatService/Subscribe")),
	})
	limits := ratelimit.NewInterceptor(
		ratelimit.Rule{Name: "per-ip", Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ratelimit.Per(100, time.Second))},
		overload,
	)
	handler := connect.NewUnaryHandler("/chat.v1.ChatService/Say",
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return connect.NewResponse(&emptypb.Empty{}), nil
		}, limits.HandlerOption())
	_ = handler

	fmt.Println(overload.Limit(), "at once to begin with,", overload.InFlight(), "at the moment")
	// Output: 20 at once to begin with, 0 at the moment
}

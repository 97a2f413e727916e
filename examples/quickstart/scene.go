package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// scene is something that happens to an RPC, and what must come of it over any
// protocol.
type scene struct {
	name, asks string
	scope      string        // of the caller's token
	life       time.Duration // of the caller's token, 0 for an hour
	alien      bool          // the caller has no token
	rpcs       int           // how many it makes, 0 for one
	play       play
	want       outcome
}

// play makes the RPCs of a scene, and returns what the caller gets.
type play func(context.Context, greetv1connect.GreetServiceClient) string

// outcome is what comes of a scene: for the caller, and by the records of the client's
// and of the server's log.
type outcome struct{ caller, client, server string }

// matches reports whether an outcome is the one that is wanted, in which "…" stands
// for what is up to chance.
func (o outcome) matches(got outcome) bool {
	is := func(want, got string) bool {
		begin, end, open := strings.Cut(want, "…")
		return want == got || open && strings.HasPrefix(got, begin) && strings.HasSuffix(got, end)
	}
	return is(o.caller, got.caller) && is(o.client, got.client) && is(o.server, got.server)
}

func (o outcome) String() string {
	return fmt.Sprintf("%q, %q, %q", o.caller, o.client, o.server)
}

// describe tells how an RPC failed.
func describe(err error) string {
	var e *connect.Error
	if !errors.As(err, &e) {
		return fmt.Sprint("no error of an RPC: ", err)
	}
	if reason, ok := auth.ReasonOf(err); ok {
		return fmt.Sprintf("%v, %s", e.Code(), reason)
	}
	if reason, ok := deadline.ReasonOf(err); ok {
		return fmt.Sprintf("%v, %s", e.Code(), reason)
	}
	return e.Error()
}

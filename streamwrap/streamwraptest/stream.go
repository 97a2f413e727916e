package streamwraptest

import (
	"context"

	"connectrpc.com/connect"
)

// OpenStream opens a client's stream through an interceptor that ends at a
// scripted conn, and returns what the caller of the RPC would use. The headers
// of the Script's RPC are set as callers set theirs: after the interceptor has
// returned. It panics if the interceptor returns no conn.
//
// Nothing is involved but the interceptor and the conn: it costs what they cost.
func OpenStream(ctx context.Context, i connect.Interceptor, conn *ClientConn) connect.StreamingClientConn {
	stream := i.WrapStreamingClient(conn.Open)(ctx, conn.script.RPC.Spec)
	if stream == nil {
		panic("streamwraptest: OpenStream: the interceptor's WrapStreamingClient returned a nil conn")
	}
	addHeader(stream.RequestHeader(), conn.script.RPC.Header)
	return stream
}

// ServeStream runs a handler behind an interceptor on a scripted conn, and
// returns what the interceptor hands to connect. The context is the request's;
// the handler gets what the interceptor made of it.
//
// Nothing is involved but the interceptor and the conn: it costs what they cost.
func ServeStream(ctx context.Context, i connect.Interceptor, conn *HandlerConn, handler connect.StreamingHandlerFunc) error {
	return conn.serve(ctx, i.WrapStreamingHandler(handler))
}

// addHeader adds values as connect adds those of a caller.
func addHeader(into, from map[string][]string) {
	for key, values := range from {
		into[key] = append(into[key], values...)
	}
}

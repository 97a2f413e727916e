package streamwraptest

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// text is the message of the kit's own RPCs.
type text = wrapperspb.StringValue

// texts returns n different messages.
func texts(direction string, n int) []*text {
	messages := make([]*text, n)
	for i := range messages {
		messages[i] = wrapperspb.String(fmt.Sprintf("%s %d", direction, i+1))
	}
	return messages
}

// values returns what is in messages.
func values[M any](messages []M) []string {
	var texts []string
	for _, m := range messages {
		switch m := any(m).(type) {
		case *text:
			texts = append(texts, m.GetValue())
		default:
			texts = append(texts, fmt.Sprintf("%T", m))
		}
	}
	return texts
}

// streamKinds returns the kinds of streams.
func streamKinds() []connect.StreamType {
	return []connect.StreamType{
		connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi,
	}
}

// kindOf returns an RPC of one kind.
func kindOf(kind connect.StreamType) RPC {
	return RPC{Spec: connect.Spec{StreamType: kind}}
}

// clientCounts returns how many messages a client of a kind may send, of n.
func clientCounts(kind connect.StreamType, n int) (send, receive int) {
	send, receive = n, n
	if kind&connect.StreamTypeClient == 0 {
		send = 1
	}
	if kind&connect.StreamTypeServer == 0 {
		receive = 1
	}
	return send, receive
}

// open opens a client's stream through the interceptor under test.
func (c *check) open(ctx context.Context, conn *ClientConn) connect.StreamingClientConn {
	stream := c.openWith(ctx, c.interceptor(), conn.Open, conn.script.RPC.Spec)
	addHeader(stream.RequestHeader(), conn.script.RPC.Header)
	return stream
}

// openWith opens a client's stream through any interceptor, and keeps it until
// the check is over: streamwrap finds streams that were dropped when the garbage
// is collected, outside of the bubble, whose channels it must not touch then.
func (c *check) openWith(ctx context.Context, i connect.Interceptor, next connect.StreamingClientFunc, spec connect.Spec) connect.StreamingClientConn {
	stream := i.WrapStreamingClient(next)(ctx, spec)
	if isNil(stream) {
		c.fatal("%v client: WrapStreamingClient returned a nil conn, of which connect then calls methods", spec.StreamType)
	}
	c.keep(stream)
	return stream
}

// keep keeps a stream until the check is over.
func (c *check) keep(stream connect.StreamingClientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = append(c.streams, stream)
}

// serve runs a handler behind the interceptor under test.
func (c *check) serve(ctx context.Context, conn *HandlerConn, handler connect.StreamingHandlerFunc) error {
	return ServeStream(ctx, c.interceptor(), conn, handler)
}

// finish ends a client's stream as a well-behaved caller does.
func finish(stream connect.StreamingClientConn) {
	_ = stream.CloseRequest()
	for range 100 {
		if stream.Receive(&text{}) != nil {
			break
		}
	}
	_ = stream.CloseResponse()
}

// isNil reports whether an interface is nil or holds a nil pointer.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}

// sends returns a conn's operations on the sending side.
func sends(ops []Operation) []Operation {
	return slices.DeleteFunc(ops, func(o Operation) bool {
		return o.Method != methodSend && o.Method != methodCloseRequest
	})
}

// has reports whether a method was called.
func has(ops []Operation, method string) bool {
	return slices.ContainsFunc(ops, func(o Operation) bool { return o.Method == method })
}

// sideName is what findings call one side of an RPC.
func sideName(isClient bool) string {
	if isClient {
		return "client"
	}
	return "handler"
}

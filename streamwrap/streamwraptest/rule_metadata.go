package streamwraptest

import (
	"context"
	"net/http"
	"slices"

	"connectrpc.com/connect"
)

func ruleMetadata() rule {
	return rule{
		name:  "metadata",
		needs: afterPremises(),
		why: "Spec, Peer, headers and trailers are the inner conn's, and the maps are live: a conn that makes a new map " +
			"for each call loses what callers set, and one that copies values sends them twice.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.passesClientMetadata(kind)
				c.passesHandlerMetadata(kind)
			}
			c.passesUnaryMetadata(true)
			c.passesUnaryMetadata(false)
		},
	}
}

const (
	requestKey  = "Streamwraptest-Request"
	headerKey   = "Streamwraptest-Header"
	trailerKey  = "Streamwraptest-Trailer"
	untouchable = "Streamwraptest-Secret" // what loggers like to delete
)

// requestHeader returns headers with one and with more values.
func requestHeader() http.Header {
	return http.Header{requestKey: {"a", "b"}, untouchable: {"s"}}
}

func (c *check) passesClientMetadata(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	what := kind.String() + " client"
	rpc := RPC{
		Spec:   connect.Spec{StreamType: kind, Procedure: "/some.v1.Service/Call", IdempotencyLevel: connect.IdempotencyIdempotent},
		Peer:   connect.Peer{Addr: "some.test:80", Protocol: connect.ProtocolGRPC},
		Header: requestHeader(),
	}
	conn := NewClientConn(Script{
		RPC:             rpc,
		Receive:         Messages(texts("response", 1)...),
		ResponseHeader:  http.Header{headerKey: {"c", "d"}},
		ResponseTrailer: http.Header{trailerKey: {"e"}},
	})
	stream := c.open(ctx, conn)
	if got, want := stream.Spec(), rpc.withDefaults(true).Spec; got != want {
		c.broken("%s: Spec() is %+v, want %+v", what, got, want)
	}
	if got := stream.Peer(); got.Addr != rpc.Peer.Addr || got.Protocol != rpc.Peer.Protocol {
		c.broken("%s: Peer() is %+v, want %+v", what, got, rpc.Peer)
	}
	stream.RequestHeader().Add(requestKey, "z") // a caller may add as long as nothing is sent
	_ = stream.Send(texts("request", 1)[0])
	c.compare(what+": request header as it left", conn.SentHeader()[requestKey], []string{"a", "b", "z"})
	c.compare(what+": request header as it left", conn.SentHeader()[untouchable], []string{"s"})
	_ = stream.CloseRequest()
	_ = stream.Receive(&text{})
	c.compare(what+": ResponseHeader after a Receive", stream.ResponseHeader()[headerKey], []string{"c", "d"})
	_ = stream.Receive(&text{})
	c.compare(what+": ResponseHeader at the end", stream.ResponseHeader()[headerKey], []string{"c", "d"})
	c.compare(what+": ResponseTrailer at the end", stream.ResponseTrailer()[trailerKey], []string{"e"})
	_ = stream.CloseResponse()
}

func (c *check) passesHandlerMetadata(kind connect.StreamType) {
	what := kind.String() + " handler"
	rpc := RPC{
		Spec:   connect.Spec{StreamType: kind, Procedure: "/some.v1.Service/Call", IdempotencyLevel: connect.IdempotencyIdempotent},
		Peer:   connect.Peer{Addr: "192.0.2.9:1234", Protocol: connect.ProtocolGRPCWeb},
		Header: requestHeader(),
	}
	conn := NewHandlerConn(Script{RPC: rpc})
	_ = c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		if got, want := inner.Spec(), conn.Spec(); got != want {
			c.broken("%s: Spec() is %+v, want %+v", what, got, want)
		}
		if got := inner.Peer(); got.Addr != rpc.Peer.Addr || got.Protocol != rpc.Peer.Protocol {
			c.broken("%s: Peer() is %+v, want %+v", what, got, rpc.Peer)
		}
		c.compare(what+": RequestHeader", inner.RequestHeader()[requestKey], []string{"a", "b"})
		c.compare(what+": RequestHeader", inner.RequestHeader()[untouchable], []string{"s"})
		inner.ResponseHeader().Add(headerKey, "c")
		inner.ResponseHeader().Add(headerKey, "d")
		_ = inner.Send(texts("response", 1)[0])
		inner.ResponseTrailer().Add(trailerKey, "e")
		return nil
	})
	c.compare(what+": response header as it left", conn.SentHeader()[headerKey], []string{"c", "d"})
	c.compare(what+": response trailer", conn.ResponseTrailer()[trailerKey], []string{"e"})
	if !slices.Equal(conn.RequestHeader()[untouchable], []string{"s"}) {
		c.broken("%s: the interceptor changed the live request header: %v", what, conn.RequestHeader())
	}
}

func (c *check) passesUnaryMetadata(isClient bool) {
	what := "unary " + sideName(isClient)
	rpc := RPC{
		Spec:   connect.Spec{Procedure: "/some.v1.Service/Call", IdempotencyLevel: connect.IdempotencyIdempotent},
		Peer:   connect.Peer{Addr: "192.0.2.9:1234", Protocol: connect.ProtocolGRPC},
		Header: requestHeader(),
	}
	res, _ := c.unary(c.Context(), isClient, rpc, texts("request", 1)[0],
		func(_ context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
			if got, want := req.Spec(), rpc.withDefaults(isClient).Spec; got != want {
				c.broken("%s: Spec() is %+v, want %+v", what, got, want)
			}
			if got := req.Peer(); got.Addr != rpc.Peer.Addr || got.Protocol != rpc.Peer.Protocol {
				c.broken("%s: Peer() is %+v, want %+v", what, got, rpc.Peer)
			}
			c.compare(what+": request header", req.Header()[requestKey], []string{"a", "b"})
			c.compare(what+": request header", req.Header()[untouchable], []string{"s"})
			res := connect.NewResponse(texts("response", 1)[0])
			res.Header()[headerKey] = []string{"c", "d"}
			res.Trailer()[trailerKey] = []string{"e"}
			return res, nil
		})
	if res == nil {
		c.broken("%s: got no response", what)
		return
	}
	c.compare(what+": response header", res.Header()[headerKey], []string{"c", "d"})
	c.compare(what+": response trailer", res.Trailer()[trailerKey], []string{"e"})
}

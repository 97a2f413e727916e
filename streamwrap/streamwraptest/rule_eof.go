package streamwraptest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
)

func ruleEOF() rule {
	return rule{
		name:  "eof",
		needs: afterPremises(),
		why: "the clean end of a stream is an error for which errors.Is(err, io.EOF) holds, and connect's is never " +
			"equal to io.EOF. Whoever loops over a stream takes anything else for a failure, and nil for an empty message. " +
			"From a client's Send it means: ask Receive for the real error.",
		test: func(c *check) {
			for _, eof := range ends() {
				for _, kind := range streamKinds() {
					c.passesClientEOF(kind, eof)
					c.passesHandlerEOF(kind, eof)
				}
				c.passesSendEOF(eof)
			}
		},
	}
}

// ends returns what the clean end of a stream looks like: as connect makes it,
// for gRPC and for the others, and in its pure form.
func ends() []error {
	flags := errors.New("final message has protocol-specific flags")
	return []error{
		newEOF(),
		connect.NewError(connect.CodeUnknown, fmt.Errorf("%w: %w", flags, io.EOF)),
		io.EOF,
	}
}

func (c *check) passesClientEOF(kind connect.StreamType, eof error) {
	ctx, cancel := c.context()
	defer cancel()
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: append(Messages(texts("response", 1)...), Fail(eof))})
	stream := c.open(ctx, conn)
	_ = stream.Send(texts("request", 1)[0])
	_ = stream.CloseRequest()
	c.receiveEOF(kind.String()+" client", stream, eof)
	_ = stream.CloseResponse()
}

func (c *check) passesHandlerEOF(kind connect.StreamType, eof error) {
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: append(Messages(texts("request", 1)...), Fail(eof))})
	_ = c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		c.receiveEOF(kind.String()+" handler", inner, eof)
		return nil
	})
}

// receiveEOF receives one message and the end, which stays the end.
func (c *check) receiveEOF(what string, conn interface{ Receive(msg any) error }, eof error) {
	if err := conn.Receive(&text{}); err != nil {
		c.broken("%s: Receive of the only message returned %v, want nil", what, err)
		return
	}
	if err := conn.Receive(&text{}); !isEOF(err) {
		c.broken("%s: at the end of the stream (%q) Receive returned %v, want an error that is io.EOF by errors.Is", what, eof, err)
		return
	}
	if conn.Receive(&text{}) == nil {
		c.broken("%s: Receive after the end of the stream returned nil, want an error", what)
	}
}

func (c *check) passesSendEOF(eof error) {
	ctx, cancel := c.context()
	defer cancel()
	refused := connect.NewError(connect.CodeFailedPrecondition, errors.New("stopped reading"))
	conn := NewClientConn(Script{Send: []Step{Fail(eof).Forever()}, Receive: []Step{Fail(refused)}})
	stream := c.open(ctx, conn)
	if err := stream.Send(texts("request", 1)[0]); !isEOF(err) {
		c.broken("bidi client: the server is done and Send got %q, which became %v, want an error that is io.EOF by errors.Is", eof, err)
	}
	if err := stream.Receive(&text{}); err == nil || isEOF(err) {
		c.broken("bidi client: after Send got %q, Receive returned %v, want the server's error %q", eof, err, refused)
	}
	_ = stream.CloseResponse()
}

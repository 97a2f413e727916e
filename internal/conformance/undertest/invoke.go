//go:build conformance

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// invoke makes the RPC. An error means that it could not even be tried.
func (c *call) invoke(ctx context.Context, client gen.ConformanceServiceClient) error {
	switch c.req.GetMethod() {
	case "Unary":
		return unary(ctx, c, client.Unary)
	case "IdempotentUnary":
		return unary(ctx, c, client.IdempotentUnary)
	case "Unimplemented":
		return unary(ctx, c, client.Unimplemented)
	case "ClientStream":
		return c.clientStream(ctx, client)
	case "ServerStream":
		return c.serverStream(ctx, client)
	case "BidiStream":
		return c.bidiStream(ctx, client)
	default:
		return fmt.Errorf("no method %q", c.req.GetMethod())
	}
}

func unary[Req, Res any, M message[Req]](ctx context.Context, c *call, method func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)) error {
	msg, err := request[Req, M](c, 0)
	if err != nil {
		return err
	}
	req := connect.NewRequest(msg)
	addHeaders(req.Header(), c.req.GetRequestHeaders())
	c.closesRequest()
	res, err := method(ctx, req)
	response(c, res, err)
	return nil
}

func (c *call) clientStream(ctx context.Context, client gen.ConformanceServiceClient) error {
	stream := client.ClientStream(ctx)
	addHeaders(stream.RequestHeader(), c.req.GetRequestHeaders())
	for i := range c.req.GetRequestMessages() {
		msg, err := request[gen.ClientStreamRequest](c, i)
		if err != nil {
			return err
		}
		pause(c.req.GetRequestDelayMs())
		if stream.Send(msg) != nil {
			c.unsent(i)
			break
		}
	}
	c.closesRequest()
	res, err := stream.CloseAndReceive()
	response(c, res, err)
	return nil
}

func (c *call) serverStream(ctx context.Context, client gen.ConformanceServiceClient) error {
	msg, err := request[gen.ServerStreamRequest](c, 0)
	if err != nil {
		return err
	}
	req := connect.NewRequest(msg)
	addHeaders(req.Header(), c.req.GetRequestHeaders())
	stream, err := client.ServerStream(ctx, req)
	if err != nil {
		c.failed(err)
		return nil
	}
	c.closedRequest()
	for stream.Receive() {
		c.received(stream.Msg())
	}
	if err := errors.Join(stream.Err(), stream.Close()); err != nil {
		c.failed(err)
	}
	c.metadata(stream.ResponseHeader(), stream.ResponseTrailer())
	return nil
}

func (c *call) bidiStream(ctx context.Context, client gen.ConformanceServiceClient) error {
	stream := client.BidiStream(ctx)
	addHeaders(stream.RequestHeader(), c.req.GetRequestHeaders())
	fullDuplex := c.req.GetStreamType() == gen.StreamType_STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM
	receive := func() error {
		msg, err := stream.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.failed(err)
			}
			return err
		}
		c.received(msg)
		return nil
	}
	var ended error // what the receiving side ended with
	for i := range c.req.GetRequestMessages() {
		msg, err := request[gen.BidiStreamRequest](c, i)
		if err != nil {
			return err
		}
		pause(c.req.GetRequestDelayMs())
		if stream.Send(msg) != nil {
			c.unsent(i)
			break
		}
		if fullDuplex {
			if ended = receive(); ended != nil {
				break
			}
		}
	}
	if c.beforeClose {
		c.cancel()
	}
	if err := stream.CloseRequest(); err != nil {
		return err
	}
	c.closedRequest()
	for ended == nil {
		ended = receive()
	}
	if err := stream.CloseResponse(); err != nil && c.result.GetError() == nil {
		c.failed(err)
	}
	c.metadata(stream.ResponseHeader(), stream.ResponseTrailer())
	return nil
}

// message is a pointer to a generated type.
type message[T any] interface {
	*T
	proto.Message
}

// request unpacks a message to send.
func request[T any, M message[T]](c *call, i int) (*T, error) {
	if i >= len(c.req.GetRequestMessages()) {
		return nil, errors.New("too few request messages")
	}
	msg := new(T)
	return msg, c.req.GetRequestMessages()[i].UnmarshalTo(M(msg))
}

// response takes the one response, or the error, of an RPC.
func response[Res any](c *call, res *connect.Response[Res], err error) {
	if err != nil {
		c.failed(err)
		return
	}
	c.metadata(res.Header(), res.Trailer())
	c.received(res.Msg)
}

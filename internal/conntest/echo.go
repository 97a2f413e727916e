package conntest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Headers that the echo service understands.
const (
	// CountHeader is the number of messages that Server sends.
	CountHeader = "Conntest-Count"
	// HeaderPrefix starts the names of request headers that come back as
	// response headers, under their own name.
	HeaderPrefix = "Conntest-Header-"
	// TrailerPrefix starts the names of request headers that come back as
	// response trailers, under their own name.
	TrailerPrefix = "Conntest-Trailer-"
)

// echo is the default [Service] and what its faults need.
type echo struct {
	released chan struct{} // closed: nothing holds a handler against its context
	once     sync.Once

	mu    sync.Mutex
	queue []Fault // for the next calls
}

func (e *echo) release() { e.once.Do(func() { close(e.released) }) }

func (e *echo) inject(faults []Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue = append(e.queue, faults...)
}

// script returns the faults of one call: those it asks for, and the next in the
// queue.
func (e *echo) script(h http.Header) (*script, error) {
	faults, err := faultsOf(h)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) > 0 {
		faults = append(faults, e.queue[0])
		e.queue = e.queue[1:]
	}
	return &script{faults: faults, released: e.released}, nil
}

func (e *echo) unary(ctx context.Context, req *connect.Request[Message]) (*connect.Response[Message], error) {
	res := connect.NewResponse(wrapperspb.Bytes(req.Msg.GetValue()))
	copyMetadata(req.Header(), res.Header(), res.Trailer())
	script, err := e.script(req.Header())
	if err == nil {
		err = script.playAll(ctx, 1)
	}
	if err == nil || errors.Is(err, errReturnEarly) {
		return res, nil
	}
	// A failed unary handler has no response: its metadata is the error's.
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		copyMetadata(req.Header(), coded.Meta(), coded.Meta())
	}
	return nil, err
}

func (e *echo) client(ctx context.Context, stream *connect.ClientStream[Message]) (*connect.Response[Message], error) {
	copyMetadata(stream.RequestHeader(), stream.Conn().ResponseHeader(), stream.Conn().ResponseTrailer())
	script, err := e.script(stream.RequestHeader())
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	err = script.play(ctx, 0)
	for n := 1; err == nil && stream.Receive(); n++ {
		all.Write(stream.Msg().GetValue())
		err = script.play(ctx, n)
	}
	if err == nil {
		err = stream.Err()
	}
	if err != nil && !errors.Is(err, errReturnEarly) {
		return nil, err
	}
	return connect.NewResponse(wrapperspb.Bytes(all.Bytes())), nil
}

func (e *echo) server(ctx context.Context, req *connect.Request[Message], stream *connect.ServerStream[Message]) error {
	copyMetadata(req.Header(), stream.ResponseHeader(), stream.ResponseTrailer())
	script, err := e.script(req.Header())
	if err != nil {
		return err
	}
	count := 3
	if value := req.Header().Get(CountHeader); value != "" {
		if count, err = strconv.Atoi(value); err != nil {
			return connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	err = script.play(ctx, 0)
	for n := 1; err == nil && n <= count; n++ {
		if err = stream.Send(req.Msg); err == nil {
			err = script.play(ctx, n)
		}
	}
	return success(err)
}

func (e *echo) bidi(ctx context.Context, stream *connect.BidiStream[Message, Message]) error {
	copyMetadata(stream.RequestHeader(), stream.ResponseHeader(), stream.ResponseTrailer())
	script, err := e.script(stream.RequestHeader())
	if err != nil {
		return err
	}
	err = script.play(ctx, 0)
	for n := 1; err == nil; n++ {
		msg, received := stream.Receive()
		if errors.Is(received, io.EOF) {
			return nil
		}
		if err = received; err == nil {
			err = stream.Send(msg)
		}
		if err == nil {
			err = script.play(ctx, n)
		}
	}
	return success(err)
}

// success turns the early end into none.
func success(err error) error {
	if errors.Is(err, errReturnEarly) {
		return nil
	}
	return err
}

// copyMetadata copies the request headers that ask for it.
func copyMetadata(request, header, trailer http.Header) {
	for name, values := range request {
		switch {
		case strings.HasPrefix(name, HeaderPrefix):
			header[name] = append(header[name], values...)
		case strings.HasPrefix(name, TrailerPrefix):
			trailer[name] = append(trailer[name], values...)
		}
	}
}

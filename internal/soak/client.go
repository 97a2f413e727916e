package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// client calls all procedures, over one protocol.
type client struct {
	transport *http.Transport

	unary, client, server, bidi *connect.Client[message, message]
}

// newClient returns a client with all policies behind some interceptors.
func newClient(url string, tokens auth.TokenSource, outside []connect.Interceptor, opts ...connect.ClientOption) *client {
	engine := streamwrap.NewEngine()
	c := &client{transport: streamwrap.NewTransport(nil)}
	opts = append(opts, connect.WithIdempotency(connect.IdempotencyIdempotent), connect.WithInterceptors(append(slices.Clone(outside),
		deadline.NewInterceptor(deadline.Policy{Default: 10 * time.Second, ReceiveIdle: 4 * time.Second}),
		retry.NewInterceptor(retry.Policy{Codes: []connect.Code{connect.CodeUnavailable, connect.CodeResourceExhausted}}),
		ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: maxConcurrent}),
		auth.NewClientInterceptor(tokens),
		engine,
	)...))
	caller := engine.HTTPClient(auth.HTTPClient(&http.Client{Transport: c.transport}))
	c.unary = connect.NewClient[message, message](caller, url+unaryProcedure, opts...)
	c.client = connect.NewClient[message, message](caller, url+clientProcedure, opts...)
	c.server = connect.NewClient[message, message](caller, url+serverProcedure, opts...)
	c.bidi = connect.NewClient[message, message](caller, url+bidiProcedure, opts...)
	return c
}

// result is what became of a plan, as the client's code saw it.
type result struct {
	plan     *plan
	sent     int
	received sequence
	gaveUp   bool // before the end of the request
	err      error
	took     time.Duration
}

// run carries out a plan.
func (c *client) run(ctx context.Context, p *plan) *result {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, planKey{}, p), p.limit)
	defer cancel()
	r := &result{plan: p, received: sequence{id: p.id}}
	start := time.Now()
	switch p.kind {
	case connect.StreamTypeUnary:
		r.err = c.runUnary(ctx, cancel, r)
	case connect.StreamTypeClient:
		r.err = c.runClient(ctx, cancel, r)
	case connect.StreamTypeServer:
		r.err = c.runServer(ctx, cancel, r)
	default:
		r.err = c.runBidi(ctx, cancel, r)
	}
	r.took = time.Since(start)
	return r
}

// ask sets the headers that tell the handler what to do.
func (p *plan) ask(h http.Header) {
	h.Set(idHeader, strconv.FormatUint(p.id, 10))
	h.Set(countHeader, strconv.Itoa(p.count))
	h.Set(failHeader, strconv.Itoa(int(p.fail)))
}

func (c *client) runUnary(ctx context.Context, cancel func(), r *result) error {
	req := connect.NewRequest(newMessage(r.plan.id, 1, r.plan.size))
	r.plan.ask(req.Header())
	if r.plan.ending == cancels {
		defer time.AfterFunc(time.Duration(r.plan.after)*time.Millisecond, cancel).Stop()
	}
	r.sent = 1
	res, err := c.unary.CallUnary(ctx, req)
	if err != nil {
		return err
	}
	return r.received.add(res.Msg)
}

func (c *client) runClient(ctx context.Context, cancel func(), r *result) error {
	stream := c.client.CallClientStream(ctx)
	r.plan.ask(stream.RequestHeader())
	for r.sent < r.plan.count {
		if r.plan.ending != complete && r.sent == r.plan.after {
			break
		}
		if err := stream.Send(newMessage(r.plan.id, r.sent+1, r.plan.size)); err != nil {
			break // CloseAndReceive knows why
		}
		r.sent++
		time.Sleep(r.plan.pause)
	}
	switch r.plan.ending {
	case cancels:
		cancel()
	case closes:
		r.gaveUp = true
		if conn, err := stream.Conn(); err == nil {
			err = conn.CloseResponse()
			cancel()
			return errors.Join(errClosed, err)
		}
	case waits:
		<-ctx.Done()
	}
	r.gaveUp = ctx.Err() != nil
	res, err := stream.CloseAndReceive()
	if err != nil {
		return err
	}
	if id, n := parse(res.Msg); id != r.plan.id || n != r.sent {
		return fmt.Errorf("%w: the handler of RPC %d got %d messages, not %d of %d", errMismatch, id, n, r.sent, r.plan.id)
	}
	return nil
}

func (c *client) runServer(ctx context.Context, cancel func(), r *result) error {
	req := connect.NewRequest(newMessage(r.plan.id, 1, r.plan.size))
	r.plan.ask(req.Header())
	r.sent = 1
	stream, err := c.server.CallServerStream(ctx, req)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := r.received.add(stream.Msg()); err != nil {
			return errors.Join(errMismatch, err)
		}
		if r.received.got == r.plan.after && r.plan.ending == cancels {
			cancel()
		}
		if r.received.got == r.plan.after && r.plan.ending == closes {
			return errClosed
		}
		time.Sleep(r.plan.pause)
	}
	return stream.Err()
}

func (c *client) runBidi(ctx context.Context, cancel func(), r *result) error {
	stream := c.bidi.CallBidiStream(ctx)
	r.plan.ask(stream.RequestHeader())
	received := make(chan error, 1)
	go func() { received <- receiveAll(stream, r) }()
	for r.sent < r.plan.count {
		if r.plan.ending != complete && r.sent == r.plan.after {
			break
		}
		if err := stream.Send(newMessage(r.plan.id, r.sent+1, r.plan.size)); err != nil {
			break
		}
		r.sent++
		time.Sleep(r.plan.pause)
	}
	switch r.plan.ending {
	case cancels:
		cancel()
	case closes:
		r.gaveUp = true
		err := stream.CloseResponse()
		cancel()
		return errors.Join(errClosed, err, <-received)
	case waits:
		if r.sent == 0 {
			_ = stream.Send(nil)
		}
		r.gaveUp = true
		err := <-received
		_ = stream.CloseResponse()
		return err
	}
	r.gaveUp = ctx.Err() != nil
	_ = stream.CloseRequest()
	err := <-received
	_ = stream.CloseResponse()
	if err == nil && r.received.got != r.sent {
		return fmt.Errorf("%w: %d messages came back of %d", errMismatch, r.received.got, r.sent)
	}
	return err
}

// receiveAll receives to the end of a stream.
func receiveAll(stream *connect.BidiStreamForClient[message, message], r *result) error {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.received.add(m); err != nil {
			return errors.Join(errMismatch, err)
		}
	}
}

var (
	errClosed   = errors.New("closed as planned")
	errMismatch = errors.New("mismatch")
)

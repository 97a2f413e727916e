package soak

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
)

// The procedures, and the headers that tell their handlers what to do.
const (
	unaryProcedure  = "/soak.v1.Soak/Unary"
	clientProcedure = "/soak.v1.Soak/Client"
	serverProcedure = "/soak.v1.Soak/Server"
	bidiProcedure   = "/soak.v1.Soak/Bidi"

	idHeader    = "Soak-Id"
	countHeader = "Soak-Count" // messages to send
	failHeader  = "Soak-Fail"  // the code to fail with, after half of the messages
)

var errAsked = errors.New("as the client asked")

// service handles RPCs and notes what it did.
type service struct{ journal *journal }

func (s *service) register(mux *http.ServeMux, opts ...connect.HandlerOption) {
	opts = append(opts, connect.WithIdempotency(connect.IdempotencyIdempotent))
	mux.Handle(unaryProcedure, connect.NewUnaryHandler(unaryProcedure, s.unary, opts...))
	mux.Handle(clientProcedure, connect.NewClientStreamHandler(clientProcedure, s.client, opts...))
	mux.Handle(serverProcedure, connect.NewServerStreamHandler(serverProcedure, s.server, opts...))
	mux.Handle(bidiProcedure, connect.NewBidiStreamHandler(bidiProcedure, s.bidi, opts...))
}

// order is what a client asks for.
type order struct {
	id    uint64
	count int
	fail  connect.Code
}

func orderOf(h http.Header) order {
	id, _ := strconv.ParseUint(h.Get(idHeader), 10, 64)
	count, _ := strconv.Atoi(h.Get(countHeader))
	fail, _ := strconv.ParseUint(h.Get(failHeader), 10, 32)
	return order{id, count, connect.Code(fail)}
}

// begin returns the attempt that a handler begins; done notes it.
func (s *service) begin(o order) (a *attempt, done func(*error)) {
	a = &attempt{sequence: sequence{id: o.id}}
	return a, func(err *error) {
		a.err = *err
		s.journal.serve(a)
	}
}

// refusal returns the error that the client asked for, once it is time.
func (o order) refusal(seen int) error {
	if o.fail == 0 || seen*2 < o.count {
		return nil
	}
	return connect.NewError(o.fail, errAsked)
}

func (s *service) unary(_ context.Context, req *connect.Request[message]) (_ *connect.Response[message], err error) {
	o := orderOf(req.Header())
	a, done := s.begin(o)
	defer done(&err)
	a.whole = true
	s.journal.complain(a.add(req.Msg))
	if err := o.refusal(o.count); err != nil {
		return nil, err
	}
	a.sent = 1
	return connect.NewResponse(req.Msg), nil
}

func (s *service) client(_ context.Context, stream *connect.ClientStream[message]) (_ *connect.Response[message], err error) {
	o := orderOf(stream.RequestHeader())
	a, done := s.begin(o)
	defer done(&err)
	for stream.Receive() {
		s.journal.complain(a.add(stream.Msg()))
		if err := o.refusal(a.got); err != nil {
			return nil, err
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	a.whole, a.sent = true, 1
	return connect.NewResponse(newMessage(o.id, a.got, 0)), nil
}

func (s *service) server(_ context.Context, req *connect.Request[message], stream *connect.ServerStream[message]) (err error) {
	o := orderOf(req.Header())
	a, done := s.begin(o)
	defer done(&err)
	a.whole = true
	s.journal.complain(a.add(req.Msg))
	for a.sent < o.count {
		if err := o.refusal(a.sent); err != nil {
			return err
		}
		if err := stream.Send(newMessage(o.id, a.sent+1, len(req.Msg.GetValue()))); err != nil {
			return err
		}
		a.sent++
	}
	return nil
}

func (s *service) bidi(_ context.Context, stream *connect.BidiStream[message, message]) (err error) {
	o := orderOf(stream.RequestHeader())
	a, done := s.begin(o)
	defer done(&err)
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			a.whole = true
			return nil
		}
		if err != nil {
			return err
		}
		s.journal.complain(a.add(m))
		if err := o.refusal(a.got); err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		a.sent++
	}
}

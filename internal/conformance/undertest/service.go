//go:build conformance

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// service does what requests tell it to, and echoes them. The comments of
// service.proto say how.
type service struct {
	gen.UnimplementedConformanceServiceHandler
}

func (service) Unary(ctx context.Context, req *connect.Request[gen.UnaryRequest]) (*connect.Response[gen.UnaryResponse], error) {
	info, err := requestInfo(ctx, req.Header(), req.Msg)
	if err != nil {
		return nil, err
	}
	return answer(req.Msg.GetResponseDefinition(), info, func(p *gen.ConformancePayload) *gen.UnaryResponse {
		return &gen.UnaryResponse{Payload: p}
	})
}

func (service) IdempotentUnary(ctx context.Context, req *connect.Request[gen.IdempotentUnaryRequest]) (*connect.Response[gen.IdempotentUnaryResponse], error) {
	info, err := requestInfo(ctx, req.Header(), req.Msg)
	if err != nil {
		return nil, err
	}
	if req.HTTPMethod() == http.MethodGet {
		info.ConnectGetInfo = &gen.ConformancePayload_ConnectGetInfo{QueryParams: headersOf(req.Peer().Query)}
	}
	return answer(req.Msg.GetResponseDefinition(), info, func(p *gen.ConformancePayload) *gen.IdempotentUnaryResponse {
		return &gen.IdempotentUnaryResponse{Payload: p}
	})
}

func (service) ClientStream(ctx context.Context, stream *connect.ClientStream[gen.ClientStreamRequest]) (*connect.Response[gen.ClientStreamResponse], error) {
	var requests []proto.Message
	var def *gen.UnaryResponseDefinition
	for stream.Receive() {
		if requests == nil {
			def = stream.Msg().GetResponseDefinition()
		}
		requests = append(requests, stream.Msg())
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	info, err := requestInfo(ctx, stream.RequestHeader(), requests...)
	if err != nil {
		return nil, err
	}
	return answer(def, info, func(p *gen.ConformancePayload) *gen.ClientStreamResponse {
		return &gen.ClientStreamResponse{Payload: p}
	})
}

func (service) ServerStream(ctx context.Context, req *connect.Request[gen.ServerStreamRequest], stream *connect.ServerStream[gen.ServerStreamResponse]) error {
	info, err := requestInfo(ctx, req.Header(), req.Msg)
	if err != nil {
		return err
	}
	a := newAnswers(req.Msg.GetResponseDefinition(), stream, func(p *gen.ConformancePayload) *gen.ServerStreamResponse {
		return &gen.ServerStreamResponse{Payload: p}
	})
	if err := a.sendHeaders(); err != nil {
		return err
	}
	return a.finish(info)
}

func (service) BidiStream(ctx context.Context, stream *connect.BidiStream[gen.BidiStreamRequest, gen.BidiStreamResponse]) error {
	var requests []proto.Message // since the last answer
	var first *gen.BidiStreamRequest
	var a *answers[gen.BidiStreamResponse]
	for {
		msg, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		requests = append(requests, msg)
		if first == nil {
			first = msg
			a = newAnswers(msg.GetResponseDefinition(), stream, func(p *gen.ConformancePayload) *gen.BidiStreamResponse {
				return &gen.BidiStreamResponse{Payload: p}
			})
		}
		if !first.GetFullDuplex() {
			continue
		}
		if !a.more() {
			break
		}
		if err := a.sendHeaders(); err != nil {
			return err
		}
		info, err := requestInfo(ctx, stream.RequestHeader(), requests...)
		if err != nil {
			return err
		}
		if err := a.next(info); err != nil {
			return err
		}
		requests = nil
	}
	if first == nil {
		return nil
	}
	info, err := requestInfo(ctx, stream.RequestHeader(), requests...)
	if err != nil {
		return err
	}
	if err := a.sendHeaders(); err != nil {
		return err
	}
	return a.finish(info)
}

// requestInfo describes an RPC and its requests so far.
func requestInfo[M proto.Message](ctx context.Context, header http.Header, requests ...M) (*gen.ConformancePayload_RequestInfo, error) {
	info := &gen.ConformancePayload_RequestInfo{RequestHeaders: headersOf(header)}
	if deadline, ok := ctx.Deadline(); ok {
		info.TimeoutMs = proto.Int64(time.Until(deadline).Milliseconds())
	}
	for _, req := range requests {
		echo, err := anypb.New(req)
		if err != nil {
			return nil, err
		}
		info.Requests = append(info.Requests, echo)
	}
	return info, nil
}

//go:build conformance

package main

import (
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// answer returns the one response, or the error, that a definition asks for.
func answer[Res any](
	def *gen.UnaryResponseDefinition,
	info *gen.ConformancePayload_RequestInfo,
	wrap func(*gen.ConformancePayload) *Res,
) (*connect.Response[Res], error) {
	pause(def.GetResponseDelayMs())
	if def.GetError() != nil {
		coded, err := errorWithInfo(def.GetError(), info)
		if err != nil {
			return nil, err
		}
		addHeaders(coded.Meta(), def.GetResponseHeaders())
		addHeaders(coded.Meta(), def.GetResponseTrailers())
		return nil, coded
	}
	res := connect.NewResponse(wrap(&gen.ConformancePayload{Data: def.GetResponseData(), RequestInfo: info}))
	addHeaders(res.Header(), def.GetResponseHeaders())
	addHeaders(res.Trailer(), def.GetResponseTrailers())
	return res, nil
}

// answers sends the responses that a definition asks for, one by one.
type answers[Res any] struct {
	def     *gen.StreamResponseDefinition
	stream  sender[Res]
	wrap    func(*gen.ConformancePayload) *Res
	flushed bool
	sent    int
}

// sender is the sending side of a handler's stream.
type sender[Res any] interface {
	ResponseHeader() http.Header
	ResponseTrailer() http.Header
	Send(msg *Res) error
}

func newAnswers[Res any](def *gen.StreamResponseDefinition, stream sender[Res], wrap func(*gen.ConformancePayload) *Res) *answers[Res] {
	addHeaders(stream.ResponseHeader(), def.GetResponseHeaders())
	addHeaders(stream.ResponseTrailer(), def.GetResponseTrailers())
	return &answers[Res]{def: def, stream: stream, wrap: wrap}
}

func (a *answers[Res]) more() bool { return a.sent < len(a.def.GetResponseData()) }

// sendHeaders sends the headers ahead of the first answer, so that the client
// need not wait for it. An answer without responses has none.
func (a *answers[Res]) sendHeaders() error {
	if a.flushed || !a.more() {
		return nil
	}
	a.flushed = true
	return a.stream.Send(nil)
}

// next sends one more answer.
func (a *answers[Res]) next(info *gen.ConformancePayload_RequestInfo) error {
	pause(a.def.GetResponseDelayMs())
	if a.sent > 0 && info != nil {
		info = &gen.ConformancePayload_RequestInfo{Requests: info.GetRequests()}
	}
	data := a.def.GetResponseData()[a.sent]
	a.sent++
	return a.stream.Send(a.wrap(&gen.ConformancePayload{Data: data, RequestInfo: info}))
}

// finish sends what is left, and returns the RPC's result. The RPC is
// described once: in the first answer, or in the error if there is none.
func (a *answers[Res]) finish(info *gen.ConformancePayload_RequestInfo) error {
	if a.sent > 0 {
		info = nil
	}
	for a.more() {
		if err := a.next(info); err != nil {
			return err
		}
		info = nil
	}
	if a.def.GetError() == nil {
		return nil
	}
	coded, err := errorWithInfo(a.def.GetError(), info)
	if err != nil {
		return err
	}
	return coded
}

// errorWithInfo returns an error with the description of the RPC, unless that
// is nil, as a further detail.
func errorWithInfo(e *gen.Error, info *gen.ConformancePayload_RequestInfo) (*connect.Error, error) {
	coded, err := connectError(e)
	if err != nil || info == nil {
		return coded, err
	}
	echo, err := anypb.New(info)
	if err != nil {
		return nil, err
	}
	detail, err := connect.NewErrorDetail(echo)
	if err != nil {
		return nil, err
	}
	coded.AddDetail(detail)
	return coded, nil
}

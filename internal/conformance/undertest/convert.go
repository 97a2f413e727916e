//go:build conformance

package main

import (
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// addHeaders adds the suite's headers to connect's.
func addHeaders(to http.Header, headers []*gen.Header) {
	for _, h := range headers {
		for _, value := range h.GetValue() {
			to.Add(h.GetName(), value)
		}
	}
}

// headersOf returns headers, or query parameters, as the suite's.
func headersOf[M ~map[string][]string](from M) []*gen.Header {
	headers := make([]*gen.Header, 0, len(from))
	for name, values := range from {
		headers = append(headers, &gen.Header{Name: name, Value: values})
	}
	return headers
}

// errorOf returns an RPC's error as the suite's, nil for nil.
func errorOf(err error) *gen.Error {
	if err == nil {
		return nil
	}
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return &gen.Error{Code: gen.Code_CODE_UNKNOWN, Message: proto.String(err.Error())}
	}
	e := &gen.Error{Code: gen.Code(coded.Code()), Message: proto.String(coded.Message())}
	for _, d := range coded.Details() {
		e.Details = append(e.Details, &anypb.Any{
			TypeUrl: "type.googleapis.com/" + d.Type(), Value: d.Bytes(),
		})
	}
	return e
}

// connectError returns the suite's error as connect's.
func connectError(e *gen.Error) (*connect.Error, error) {
	coded := connect.NewError(connect.Code(e.GetCode()), errors.New(e.GetMessage()))
	for _, d := range e.GetDetails() {
		detail, err := connect.NewErrorDetail(d)
		if err != nil {
			return nil, err
		}
		coded.AddDetail(detail)
	}
	return coded, nil
}

// pause waits so many milliseconds, whatever happens to the RPC: that is what a
// delay means to the suite. A server that answers as soon as the deadline is
// over races the runner, which gives up at the same moment and may find half an
// answer.
func pause(ms uint32) { <-time.After(time.Duration(ms) * time.Millisecond) }

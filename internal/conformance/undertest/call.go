//go:build conformance

package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// call is one RPC of the client, and how it went. It goes on after it was
// canceled, as if nothing had happened: the rest is for connect to say.
type call struct {
	cancel context.CancelFunc
	req    *gen.ClientCompatRequest
	result *gen.ClientResponseResult

	// When to cancel; less than 0 for never.
	beforeClose    bool
	afterClose     time.Duration
	afterResponses int
}

func newCall(ctx context.Context, req *gen.ClientCompatRequest) (context.Context, *call) {
	c := &call{req: req, result: &gen.ClientResponseResult{}, afterClose: -1, afterResponses: -1}
	if when := req.GetCancel(); when != nil {
		switch when := when.GetCancelTiming().(type) {
		case *gen.ClientCompatRequest_Cancel_BeforeCloseSend:
			c.beforeClose = true
		case *gen.ClientCompatRequest_Cancel_AfterCloseSendMs:
			c.afterClose = time.Duration(when.AfterCloseSendMs) * time.Millisecond
		case *gen.ClientCompatRequest_Cancel_AfterNumResponses:
			c.afterResponses = int(when.AfterNumResponses)
		default:
			c.afterClose = 0
		}
	}
	if req.TimeoutMs != nil {
		ctx, c.cancel = context.WithTimeout(ctx, time.Duration(req.GetTimeoutMs())*time.Millisecond)
	} else {
		ctx, c.cancel = context.WithCancel(ctx)
	}
	return ctx, c
}

// closesRequest cancels before connect closes the request and waits for the
// response in one call, or later, during that call.
func (c *call) closesRequest() {
	switch {
	case c.beforeClose:
		c.cancel()
	case c.afterClose >= 0:
		time.AfterFunc(c.afterClose, c.cancel)
	}
}

// closedRequest cancels after the request was closed.
func (c *call) closedRequest() {
	if c.afterClose >= 0 {
		<-time.After(c.afterClose)
		c.cancel()
	}
}

// received takes one more response.
func (c *call) received(msg any) {
	payload := &gen.ConformancePayload{}
	if m, ok := msg.(interface {
		GetPayload() *gen.ConformancePayload
	}); ok && m.GetPayload() != nil {
		payload = m.GetPayload()
	}
	c.result.Payloads = append(c.result.Payloads, payload)
	if len(c.result.GetPayloads()) == c.afterResponses {
		c.cancel()
	}
}

// failed takes the error of an RPC. Where connect offers nothing else, its
// metadata stands for headers and trailers.
func (c *call) failed(err error) {
	c.result.Error = errorOf(err)
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		c.metadata(nil, coded.Meta())
	}
}

func (c *call) metadata(header, trailer http.Header) {
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersOf(header), headersOf(trailer)
}

// unsent notes that the message with an index, and all after it, were not sent.
func (c *call) unsent(i int) {
	c.result.NumUnsentRequests = int32(len(c.req.GetRequestMessages()) - i)
}

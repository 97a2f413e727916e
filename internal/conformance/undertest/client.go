//go:build conformance

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conformance/gen"
)

// parallel is how many RPCs the client makes at a time.
const parallel = 16

// runClient makes the RPCs that in asks for, and tells out how they went. It
// returns when in has ended and the last one has, too.
func runClient(in io.Reader, out io.Writer, v *variant) error {
	transports := &transports{}
	var writing sync.Mutex
	var failed error
	slots := make(chan struct{}, parallel)
	var calls sync.WaitGroup
	for {
		req := &gen.ClientCompatRequest{}
		err := readMessage(in, req)
		if err != nil {
			calls.Wait()
			if errors.Is(err, io.EOF) {
				return failed
			}
			return err
		}
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			res := &gen.ClientCompatResponse{TestName: req.GetTestName()}
			result, err := callOnce(req, transports, v)
			if err != nil {
				res.Result = &gen.ClientCompatResponse_Error{Error: &gen.ClientErrorResult{Message: err.Error()}}
			} else {
				res.Result = &gen.ClientCompatResponse_Response{Response: result}
			}
			writing.Lock()
			defer writing.Unlock()
			failed = errors.Join(failed, writeMessage(out, res))
		})
	}
}

// callOnce makes one RPC. An error means that it could not even be tried.
func callOnce(req *gen.ClientCompatRequest, transports *transports, v *variant) (*gen.ClientResponseResult, error) {
	httpClient, url, err := transports.get(req)
	if err != nil {
		return nil, err
	}
	options := []connect.ClientOption{connect.WithReadMaxBytes(int(req.GetMessageReceiveLimit())), v.clientOption()}
	if req.GetUseGetHttpMethod() {
		options = append(options, connect.WithHTTPGet())
	}
	switch req.GetProtocol() {
	case gen.Protocol_PROTOCOL_CONNECT:
	case gen.Protocol_PROTOCOL_GRPC:
		options = append(options, connect.WithGRPC())
	case gen.Protocol_PROTOCOL_GRPC_WEB:
		options = append(options, connect.WithGRPCWeb())
	default:
		return nil, fmt.Errorf("no client for %v", req.GetProtocol())
	}
	switch req.GetCodec() {
	case gen.Codec_CODEC_PROTO:
	case gen.Codec_CODEC_JSON:
		options = append(options, connect.WithProtoJSON())
	default:
		return nil, fmt.Errorf("no client for %v", req.GetCodec())
	}
	switch req.GetCompression() {
	case gen.Compression_COMPRESSION_IDENTITY:
		options = append(options, connect.WithAcceptCompression("gzip", nil, nil))
	case gen.Compression_COMPRESSION_GZIP:
		options = append(options, connect.WithSendGzip())
	default:
		return nil, fmt.Errorf("no client for %v", req.GetCompression())
	}
	client := gen.NewConformanceServiceClient(v.wrapClient(httpClient), url, options...)
	ctx, c := newCall(context.Background(), req)
	defer c.cancel()
	if err := c.invoke(ctx, client); err != nil {
		return nil, err
	}
	return c.result, nil
}

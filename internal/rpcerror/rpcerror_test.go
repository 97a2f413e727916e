package rpcerror_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

var errTest = errors.New("test")

func TestDetails(t *testing.T) {
	t.Parallel()
	err := connect.NewError(connect.CodeInternal, errTest)
	rpcerror.Attach(err, wrapperspb.String("a"), wrapperspb.Int64(1), wrapperspb.String("b"))
	got := ""
	for text := range rpcerror.Details[*wrapperspb.StringValue](fmt.Errorf("wrapped: %w", err)) {
		got += text.GetValue()
	}
	if got != "ab" {
		t.Errorf("%q", got)
	}
	for range rpcerror.Details[*wrapperspb.BoolValue](err) {
		t.Error("a detail that nobody attached")
	}
	for range rpcerror.Details[*wrapperspb.StringValue](errTest) {
		t.Error("a detail of an error without")
	}
}

func TestOfContext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err, more error
		want      string
	}{
		{context.Canceled, nil, "canceled: context canceled"},
		{context.DeadlineExceeded, nil, "deadline_exceeded: context deadline exceeded"},
		{context.Canceled, errTest, "canceled: test"},
	} {
		if got := rpcerror.OfContext(tt.err, tt.more).Error(); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}

package rpcerror_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

var errTest = errors.New("test")

func TestDetails(t *testing.T) {
	t.Parallel()
	err := connect.NewError(connect.CodeInternal, errTest)
	rpcerror.Attach(err, wrapperspb.String("a"), wrapperspb.Int64(1), wrapperspb.String("b"))
	var got []string
	for text := range rpcerror.Details[*wrapperspb.StringValue](fmt.Errorf("wrapped: %w", err)) {
		got = append(got, text.GetValue())
	}
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	for range rpcerror.Details[*wrapperspb.BoolValue](err) {
		t.Error("a detail that nobody attached")
	}
	for range rpcerror.Details[*wrapperspb.StringValue](errTest) {
		t.Error("a detail of an error without")
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	info := func(d time.Duration) *errdetails.RetryInfo {
		return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
	}
	invalid := &errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: 1, Nanos: -1}}
	for _, tt := range []struct {
		header  string
		details []proto.Message
		want    time.Duration
		ok      bool
	}{
		{},
		{header: "7", want: 7 * time.Second, ok: true},
		{header: "0", ok: true},
		{header: "99999999999999999999", want: math.MaxInt64, ok: true},
		{header: "-1"},
		{header: "soon"},
		{header: "Fri, 02 Jan 2026 03:04:15 GMT", want: 10 * time.Second, ok: true},
		{header: "Fri, 02 Jan 2026 03:04:00 GMT", ok: true},
		{header: "7", details: []proto.Message{info(2 * time.Second)}, want: 2 * time.Second, ok: true},
		{details: []proto.Message{wrapperspb.String("x"), info(time.Millisecond)}, want: time.Millisecond, ok: true},
		{details: []proto.Message{info(-time.Second)}, ok: true},
		{details: []proto.Message{invalid}},
		{header: "7", details: []proto.Message{invalid, &errdetails.RetryInfo{}}, want: 7 * time.Second, ok: true},
	} {
		err := connect.NewError(connect.CodeUnavailable, errTest)
		err.Meta().Set("Retry-After", tt.header)
		rpcerror.Attach(err, tt.details...)
		if got, ok := rpcerror.RetryDelay(err, now); got != tt.want || ok != tt.ok {
			t.Errorf("%q, %v: %v, %v", tt.header, tt.details, got, ok)
		}
	}
}

// TestPostpone: nobody is told to come earlier than meant, nor that he must not come.
func TestPostpone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		delay time.Duration
		want  string
	}{
		{0, "0"},
		{1, "1"},
		{time.Millisecond, "1"},
		{time.Millisecond + 1, "2"},
		{math.MaxInt32 * time.Millisecond, "2147483647"},
		{math.MaxInt64, "2147483647"},
	} {
		err := connect.NewError(connect.CodeUnavailable, errTest)
		rpcerror.Postpone(err, tt.delay)
		if got := err.Meta().Get(rpcerror.PushbackKey); got != tt.want {
			t.Errorf("%v: pushback %q, want %q", tt.delay, got, tt.want)
		}
		if got, ok := rpcerror.RetryDelay(err, time.Time{}); got != tt.delay || !ok {
			t.Errorf("%v: RetryInfo %v, %v", tt.delay, got, ok)
		}
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

package retry_test

import (
	"context"
	"encoding/base64"
	"errors"
	"math"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

const (
	pushbackKey = "Grpc-Retry-Pushback-Ms"
	afterKey    = "Retry-After"
)

// said returns a server's error with metadata and details.
func said(tb testing.TB, meta http.Header, details ...proto.Message) *connect.Error {
	tb.Helper()
	err := connect.NewWireError(connect.CodeUnavailable, errors.New("not now"))
	for key, values := range meta {
		err.Meta()[key] = values
	}
	for _, msg := range details {
		detail, failed := connect.NewErrorDetail(msg)
		if failed != nil {
			tb.Fatal(failed)
		}
		err.AddDetail(detail)
	}
	return err
}

func retryInfo(d time.Duration) proto.Message {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// waited makes a unary RPC whose first attempt fails with err and whose second one
// succeeds, and returns how long it took; -1 if there was no second one.
func waited(t *testing.T, p retry.Policy, err error) time.Duration {
	t.Helper()
	attempts := 0
	start := time.Now()
	_, failure := streamwraptest.CallUnary(t.Context(), retry.NewInterceptor(p), streamwraptest.RPC{}, conntest.Text("text"),
		func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			if attempts++; attempts == 1 {
				return nil, err
			}
			return connect.NewResponse(conntest.Text("text")), nil
		})
	took := time.Since(start)
	if failure == nil {
		return took
	}
	if attempts != 1 || took != 0 || connect.CodeOf(failure) != connect.CodeUnavailable || !connect.IsWireError(failure) {
		t.Errorf("%d attempts, %v: %v", attempts, took, failure)
	}
	return -1
}

func TestWhatTheServerSays(t *testing.T) {
	t.Parallel()
	const backoff, never = 7 * time.Second, -1
	date := func(in time.Duration) []string {
		// Bubbles begin at this moment.
		return []string{time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(in).Format(http.TimeFormat)}
	}
	vector, err := base64.RawStdEncoding.DecodeString("CgIIPA")
	if err != nil {
		t.Fatal(err)
	}
	var minute errdetails.RetryInfo
	if err := proto.Unmarshal(vector, &minute); err != nil {
		t.Fatal(err)
	}
	invalid := &errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: 1, Nanos: -1}}
	for name, test := range map[string]struct {
		meta    http.Header
		details []proto.Message
		low     time.Duration
		high    time.Duration // 0: as low
	}{
		"nothing":                        {low: backoff},
		"pushback":                       {meta: http.Header{pushbackKey: {"1500"}}, low: 1500 * time.Millisecond},
		"pushback, at once":              {meta: http.Header{pushbackKey: {"0"}}},
		"pushback, negative":             {meta: http.Header{pushbackKey: {"-1"}}, low: never},
		"pushback, very negative":        {meta: http.Header{pushbackKey: {"-2147483648"}}, low: never},
		"pushback, garbage":              {meta: http.Header{pushbackKey: {"soon"}}, low: never},
		"pushback, empty":                {meta: http.Header{pushbackKey: {""}}, low: never},
		"pushback, a fraction":           {meta: http.Header{pushbackKey: {"1.5"}}, low: never},
		"pushback, no int32":             {meta: http.Header{pushbackKey: {"2147483648"}}, low: never},
		"pushback, twice":                {meta: http.Header{pushbackKey: {"1", "1"}}, low: never},
		"pushback before all":            {meta: http.Header{pushbackKey: {"1"}, afterKey: {"3"}}, details: []proto.Message{retryInfo(2 * time.Second)}, low: time.Millisecond},
		"no pushback before all":         {meta: http.Header{pushbackKey: {"-1"}, afterKey: {"3"}}, details: []proto.Message{retryInfo(2 * time.Second)}, low: never},
		"RetryInfo":                      {details: []proto.Message{retryInfo(2 * time.Second)}, low: 2 * time.Second, high: 3 * time.Second},
		"RetryInfo, at once":             {details: []proto.Message{retryInfo(0)}},
		"RetryInfo, negative":            {details: []proto.Message{retryInfo(-time.Second)}},
		"RetryInfo, invalid":             {details: []proto.Message{invalid}, low: backoff},
		"RetryInfo behind another":       {details: []proto.Message{wrapperspb.String("x"), retryInfo(2 * time.Second)}, low: 2 * time.Second, high: 3 * time.Second},
		"RetryInfo before Retry-After":   {meta: http.Header{afterKey: {"30"}}, details: []proto.Message{retryInfo(2 * time.Second)}, low: 2 * time.Second, high: 3 * time.Second},
		"Retry-After":                    {meta: http.Header{afterKey: {"4"}}, low: 4 * time.Second, high: 6 * time.Second},
		"Retry-After, at once":           {meta: http.Header{afterKey: {"0"}}},
		"Retry-After, a date":            {meta: http.Header{afterKey: date(4 * time.Second)}, low: 4 * time.Second, high: 6 * time.Second},
		"Retry-After, a date that was":   {meta: http.Header{afterKey: date(-time.Hour)}},
		"Retry-After, garbage":           {meta: http.Header{afterKey: {"soon"}}, low: backoff},
		"Retry-After, negative":          {meta: http.Header{afterKey: {"-1"}}, low: backoff},
		"pushback above the limit":       {meta: http.Header{pushbackKey: {"60001"}}, low: never},
		"pushback, the limit":            {meta: http.Header{pushbackKey: {"60000"}}, low: time.Minute},
		"RetryInfo above the limit":      {details: []proto.Message{retryInfo(time.Minute + 1)}, low: never},
		"RetryInfo of the documentation": {details: []proto.Message{&minute}, low: time.Minute, high: 90 * time.Second},
		"Retry-After above the limit":    {meta: http.Header{afterKey: {"61"}}, low: never},
		"Retry-After, 68 years":          {meta: http.Header{afterKey: {"2147483648"}}, low: never},
		"Retry-After, the limit":         {meta: http.Header{afterKey: {"60"}}, low: time.Minute, high: 90 * time.Second},
		"Retry-After, a distant date":    {meta: http.Header{afterKey: date(time.Hour)}, low: never},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch name {
			case "RetryInfo of the documentation", "Retry-After, the limit":
			case "Retry-After, 68 years":
			}
			synctest.Test(t, func(t *testing.T) {
				p := retry.Policy{AssumeIdempotent: true, Backoff: retry.Constant(backoff)}
				for range 5 { // the delays are random
					got := waited(t, p, said(t, test.meta, test.details...))
					if got < test.low || got > max(test.low, test.high) || test.low == never && got != never {
						t.Fatalf("waited %v, want %v to %v", got, test.low, test.high)
					}
					if name == "Retry-After, a date" {
						break // the clock has moved
					}
				}
			})
		})
	}
}

// TestOnlyServersAreListenedTo: what somebody on this side writes into an error's
// metadata invites nobody.
func TestOnlyServersAreListenedTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		err := connect.NewError(connect.CodeUnavailable, reset)
		err.Meta().Set(pushbackKey, "0")
		if attempts, _ := scripted(t, connect.StreamTypeUnary, connect.IdempotencyUnknown, retry.Policy{}, err); attempts != 1 {
			t.Errorf("%d attempts", attempts)
		}
		err.Meta().Set(pushbackKey, "-1")
		if attempts, _ := scripted(t, connect.StreamTypeUnary, connect.IdempotencyIdempotent, retry.Policy{}, err); attempts != 3 {
			t.Errorf("%d attempts", attempts)
		}
	})
}

// TestPushbackStartsBackoffAnew: a server that says when is not struggling; the next
// delay is the first one again.
func TestPushbackStartsBackoffAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var numbers []int
		p := retry.Policy{AssumeIdempotent: true, MaxAttempts: 5, Backoff: func(n int, _ time.Duration) time.Duration {
			numbers = append(numbers, n)
			return time.Second
		}}
		attempts := 0
		_, err := streamwraptest.CallUnary(t.Context(), retry.NewInterceptor(p), streamwraptest.RPC{}, conntest.Text("text"),
			func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				if attempts++; attempts == 3 {
					return nil, said(t, http.Header{pushbackKey: {"5"}})
				}
				return nil, said(t, nil)
			})
		if err == nil || len(numbers) != 3 || numbers[0] != 1 || numbers[1] != 2 || numbers[2] != 1 {
			t.Errorf("backoffs %v, %v", numbers, err)
		}
	})
}

// TestPushbackTravels: over all protocols, for all kinds of RPC.
func TestPushbackTravels(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tell  func(*connect.Error) *connect.Error
		calls int
		took  time.Duration
	}{
		"pushback":          {func(err *connect.Error) *connect.Error { return retry.Pushback(err, 2500*time.Millisecond) }, 2, 2500 * time.Millisecond},
		"negative pushback": {func(err *connect.Error) *connect.Error { return retry.Pushback(err, -time.Second) }, 2, 0},
		"no retry":          {retry.NoRetry, 1, 0},
		"no retry wins":     {func(err *connect.Error) *connect.Error { return retry.NoRetry(retry.Pushback(err, time.Second)) }, 1, 0},
		"pushback wins":     {func(err *connect.Error) *connect.Error { return retry.Pushback(retry.NoRetry(err), time.Second) }, 2, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				first := true
				srv := c.Start(t, conntest.Config{Service: failing(func(context.Context) error {
					if !first {
						return nil
					}
					first = false
					err := connect.NewError(connect.CodeUnavailable, errors.New("not now"))
					if test.tell(err) != err {
						t.Error("another error is returned")
					}
					return err
				})})
				// Nothing is known of the procedure: the server's invitation is all there is.
				start := time.Now()
				reply := retrying(c, srv, retry.Policy{}).Do(t.Context(), c.Kind, nil, "text")
				if got := time.Since(start); got != test.took || len(srv.Calls()) != test.calls || (reply.Err == nil) != (test.calls == 2) {
					t.Errorf("%d calls in %v: %v", len(srv.Calls()), got, reply.Err)
				}
				if reply.Err == nil {
					return
				}
				// Others further out must hear it too.
				e := (*connect.Error)(nil)
				if !errors.As(reply.Err, &e) || e.Meta().Get(pushbackKey) != "-1" {
					t.Errorf("%v", reply.Err)
				}
			})
		})
	}
}

// TestPushbackSaysItInThreeWays: gRPC's clients, Connect's and proxies each know one.
func TestPushbackSaysItInThreeWays(t *testing.T) {
	t.Parallel()
	err := retry.Pushback(connect.NewError(connect.CodeUnavailable, nil), 1001*time.Millisecond)
	if got := err.Meta().Get(pushbackKey); got != "1001" {
		t.Errorf("pushback %q", got)
	}
	if got := err.Meta().Get(afterKey); got != "2" {
		t.Errorf("Retry-After %q is not rounded up", got)
	}
	if len(err.Details()) != 1 {
		t.Fatalf("details %v", err.Details())
	}
	value, failed := err.Details()[0].Value()
	if info, ok := value.(*errdetails.RetryInfo); failed != nil || !ok || info.GetRetryDelay().AsDuration() != 1001*time.Millisecond {
		t.Errorf("detail %v, %v", value, failed)
	}
}

// TestAShortDelayIsNotCutToNothing: the pushback has milliseconds only.
func TestAShortDelayIsNotCutToNothing(t *testing.T) {
	t.Parallel()
	for delay, want := range map[time.Duration]string{time.Microsecond: "1", 1900 * time.Microsecond: "2", 2 * time.Millisecond: "2"} {
		if got := retry.Pushback(connect.NewError(connect.CodeUnavailable, nil), delay).Meta().Get(pushbackKey); got != want {
			t.Errorf("%v: %q", delay, got)
		}
	}
}

// TestAMonthIsLongerThanPushbackCanSay: 2^31 ms are 24.8 days.
func TestAMonthIsLongerThanPushbackCanSay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := retry.Policy{AssumeIdempotent: true, MaxServerDelay: 1000 * time.Hour}
		// So that is what it says: it must not look like a number that stops retries.
		for _, delay := range []time.Duration{700 * time.Hour, math.MaxInt64} {
			err := retry.Pushback(connect.NewWireError(connect.CodeUnavailable, nil), delay)
			if got := waited(t, p, err); got != math.MaxInt32*time.Millisecond {
				t.Errorf("%v: waited %v", delay, got)
			}
			if after, failed := strconv.Atoi(err.Meta().Get(afterKey)); failed != nil || after < int(delay.Seconds()) {
				t.Errorf("%v: %s %q", delay, afterKey, err.Meta().Get(afterKey))
			}
		}
	})
}

// TestNoWaitIntoTheDeadline: an RPC that cannot be tried again in time fails at once,
// with what the server said.
func TestNoWaitIntoTheDeadline(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, test := range []struct {
			left  time.Duration
			calls int
		}{
			{20 * time.Second, 1},
			{20*time.Second + 9*time.Millisecond, 1},
			{20*time.Second + 10*time.Millisecond, 2}, // MinRemaining
			{time.Minute, 2},
		} {
			first := true
			calls := 0
			srv := c.Start(t, conntest.Config{Service: failing(func(context.Context) error {
				calls++
				if !first {
					return nil
				}
				first = false
				return retry.Pushback(connect.NewError(connect.CodeUnavailable, errors.New("not now")), 20*time.Second)
			})})
			ctx, cancel := context.WithTimeout(t.Context(), test.left)
			start := time.Now()
			reply := retrying(c, srv, retry.Policy{}).Do(ctx, c.Kind, nil, "text")
			cancel()
			if calls != test.calls {
				t.Errorf("%v left: %d calls: %v", test.left, calls, reply.Err)
			}
			if test.calls > 1 {
				continue
			}
			e := (*connect.Error)(nil)
			if time.Since(start) != 0 || !errors.As(reply.Err, &e) || e.Code() != connect.CodeUnavailable || len(e.Details()) != 1 {
				t.Errorf("%v left, after %v: %v", test.left, time.Since(start), reply.Err)
			}
		}
	})
}

// TestBackoffIntoTheDeadline: the same with the policy's own delays.
func TestBackoffIntoTheDeadline(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow, notNow, notNow)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		start := time.Now()
		reply := retrying(c, srv, eager()).Do(ctx, c.Kind, nil, "text")
		if took := time.Since(start); took != time.Second || connect.CodeOf(reply.Err) != connect.CodeUnavailable || classesOf(reply.Err) != "wire wire" {
			t.Errorf("after %v: %v", took, reply.Err)
		}
	})
}

// TestTheEndWhileWaiting: the RPC's context ends while it waits: its error says so,
// and what it waited after.
func TestTheEndWhileWaiting(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, hedge := range []time.Duration{0, time.Minute} {
			srv := c.Start(t, conntest.Config{Service: failing(func(context.Context) error {
				return retry.Pushback(connect.NewError(connect.CodeUnavailable, errors.New("not now")), 50*time.Second)
			})})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			start := time.Now()
			p := eager()
			p.Hedge = hedge
			reply := retrying(c, srv, p).Do(ctx, c.Kind, nil, "text")
			if took := time.Since(start); took != 3*time.Second || connect.CodeOf(reply.Err) != connect.CodeCanceled || !errors.Is(reply.Err, context.Canceled) {
				t.Errorf("after %v: %v", took, reply.Err)
			}
		}
	})
}

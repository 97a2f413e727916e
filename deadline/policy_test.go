package deadline_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestValidate: everything that is wrong with a policy is named, and nothing else.
func TestValidate(t *testing.T) {
	t.Parallel()
	const (
		second = time.Second
		longer = 9_999_999_999*time.Millisecond + 1
	)
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		want   []string // nil: valid
	}{
		{name: "zero"},
		{name: "the longest", policy: deadline.Policy{Default: longer - 1, Max: longer - 1, MaxLifetime: longer - 1}},
		{name: "no margin, jitter and grace", policy: deadline.Policy{Margin: -1, MaxLifetime: second, Jitter: -1, Grace: -1}},
		{name: "Default beyond Max", policy: deadline.Policy{Default: 2 * second, Max: second}},
		{name: "Default below Min", policy: deadline.Policy{Default: 1, Min: second}},
		{name: "Min is Max", policy: deadline.Policy{Min: second, Max: second, UnderMin: deadline.Reject, OverMax: deadline.Reject}},
		{name: "jitter just below 1", policy: deadline.Policy{MaxLifetime: second, Jitter: math.Nextafter(1, 0)}},

		{name: "negative Default", policy: deadline.Policy{Default: -1}, want: []string{"Default is negative: -1ns"}},
		{name: "negative Max", policy: deadline.Policy{Max: -1}, want: []string{"Max is negative: -1ns"}},
		{name: "negative Min", policy: deadline.Policy{Min: -1}, want: []string{"Min is negative: -1ns"}},
		{name: "negative FirstMessage", policy: deadline.Policy{FirstMessage: -1}, want: []string{"FirstMessage is negative: -1ns"}},
		{name: "negative Idle", policy: deadline.Policy{Idle: -1}, want: []string{"Idle is negative: -1ns"}},
		{name: "negative ReceiveIdle", policy: deadline.Policy{ReceiveIdle: -1}, want: []string{"ReceiveIdle is negative: -1ns"}},
		{name: "negative SendStall", policy: deadline.Policy{SendStall: -1}, want: []string{"SendStall is negative: -1ns"}},
		{name: "negative MaxLifetime", policy: deadline.Policy{MaxLifetime: -1}, want: []string{"MaxLifetime is negative: -1ns"}},

		{name: "long Default", policy: deadline.Policy{Default: longer}, want: []string{"Default is longer than the protocols can say, "}},
		{name: "long Max", policy: deadline.Policy{Max: longer}, want: []string{"Max is longer than "}},
		{name: "long Min", policy: deadline.Policy{Min: longer}, want: []string{"Min is longer than the protocols"}},
		{name: "long FirstMessage", policy: deadline.Policy{FirstMessage: longer}, want: []string{"FirstMessage is longer than "}},
		{name: "long Idle", policy: deadline.Policy{Idle: longer}, want: []string{"Idle is longer than "}},
		{name: "long ReceiveIdle", policy: deadline.Policy{ReceiveIdle: longer}, want: []string{"ReceiveIdle is longer than "}},
		{name: "long SendStall", policy: deadline.Policy{SendStall: longer}, want: []string{"SendStall is longer than "}},
		{name: "long MaxLifetime", policy: deadline.Policy{MaxLifetime: longer}, want: []string{"MaxLifetime is longer than "}},

		{name: "Min over Max", policy: deadline.Policy{Min: second + 1, Max: second}, want: []string{"Min is longer than Max: 1.000000001s, 1s"}},
		{name: "strange OverMax", policy: deadline.Policy{Max: 1, OverMax: 2}, want: []string{"OverMax is no Action: 2"}},
		{name: "strange UnderMin", policy: deadline.Policy{Min: 1, UnderMin: 255}, want: []string{"UnderMin is no Action: 255"}},
		{name: "strange LateResponse", policy: deadline.Policy{LateResponse: 2}, want: []string{"LateResponse is neither Pass nor Fail: 2"}},
		{name: "OverMax alone", policy: deadline.Policy{OverMax: deadline.Reject}, want: []string{"OverMax without Max"}},
		{name: "UnderMin alone", policy: deadline.Policy{UnderMin: deadline.Reject}, want: []string{"UnderMin without Min"}},

		{name: "Jitter is 1", policy: deadline.Policy{MaxLifetime: 1, Jitter: 1}, want: []string{"Jitter is not below 1: 1"}},
		{name: "Jitter is infinite", policy: deadline.Policy{MaxLifetime: 1, Jitter: math.Inf(1)}, want: []string{"Jitter is not below 1: +Inf"}},
		{name: "Jitter is no number", policy: deadline.Policy{MaxLifetime: 1, Jitter: math.NaN()}, want: []string{"Jitter is not below 1: NaN"}},
		{name: "Jitter alone", policy: deadline.Policy{Jitter: 0.5}, want: []string{"Jitter without MaxLifetime"}},
		{name: "no Jitter alone", policy: deadline.Policy{Jitter: -1}, want: []string{"Jitter without MaxLifetime"}},
		{name: "Grace alone", policy: deadline.Policy{Grace: 1}, want: []string{"Grace without MaxLifetime"}},
		{name: "no Grace alone", policy: deadline.Policy{Grace: -1}, want: []string{"Grace without MaxLifetime"}},

		{
			name: "late FirstMessage", policy: deadline.Policy{MaxLifetime: second, FirstMessage: second},
			want: []string{"FirstMessage can never pass before MaxLifetime: 1s, 1s"},
		},
		{
			name: "late Idle", policy: deadline.Policy{MaxLifetime: second, Idle: 2 * second},
			want: []string{"Idle can never pass before MaxLifetime: 2s, 1s"},
		},
		{
			name: "late ReceiveIdle", policy: deadline.Policy{MaxLifetime: second, ReceiveIdle: second},
			want: []string{"ReceiveIdle can never pass before MaxLifetime: 1s, 1s"},
		},
		{
			name: "late SendStall", policy: deadline.Policy{MaxLifetime: second, SendStall: second},
			want: []string{"SendStall can never pass before MaxLifetime: 1s, 1s"},
		},

		{
			name: "several",
			policy: deadline.Policy{
				Default: -1, Max: second, Min: 2 * second, OverMax: 9, LateResponse: 9,
				MaxLifetime: second, Jitter: 2, Idle: 3 * second,
			},
			want: []string{
				"Default is negative: -1ns",
				"Min is longer than Max: 2s, 1s",
				"OverMax is no Action: 9",
				"LateResponse is neither Pass nor Fail: 9",
				"Jitter is not below 1: 2",
				"Idle can never pass before MaxLifetime: 3s, 1s",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.policy.Validate()
			if len(tt.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("valid")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %q, want %q", lines, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got %q, want %q", lines[i], want)
				}
			}
			wantPanic(t, "deadline: NewInterceptor: "+err.Error(), func() { deadline.NewInterceptor(tt.policy) })
			wantPanic(t, "deadline: WithProcedure: /a.B/: "+err.Error(), func() { deadline.WithProcedure("/a.B/", tt.policy) })
		})
	}
}

// TestConstructorPanics: mistakes of the program are named.
func TestConstructorPanics(t *testing.T) {
	t.Parallel()
	wantPanic(t, "deadline: NewDrainer: negative grace", func() { deadline.NewDrainer(-1) })
	wantPanic(t, "deadline: WithDrainer: nil Drainer", func() { deadline.WithDrainer(nil) })
	wantPanic(t, "deadline: Interceptor.Handler: nil handler", func() {
		deadline.NewInterceptor(deadline.Policy{}).Handler(nil)
	})
	for _, pattern := range []string{"/a.B/", "/a.B/C"} {
		wantPanic(t, "deadline: WithProcedure: "+pattern+" comes twice", func() {
			same := deadline.WithProcedure(pattern, deadline.Policy{})
			deadline.NewInterceptor(deadline.Policy{}, same, same)
		})
	}
}

// TestPatterns: whatever matches no procedure is refused.
func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"/a.B/C", "/a.B/", "/B/C", "/B/"} {
		deadline.NewInterceptor(deadline.Policy{}, deadline.WithProcedure(pattern, deadline.Policy{}))
	}
	for _, pattern := range []string{"", "/", "//", "a.B", "/a.B", "a.B/C", "a.B/", "//C", "*", "C"} {
		wantPattern(t, pattern)
	}
}

// TestPatternsWithMoreSlashes: these match no procedure, so that the policy would
// silently not be used.
func TestPatternsWithMoreSlashes(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"/a.B/C/", "/api/a.B/C", "/api/a.B/", "///", "//a.B/C", "/a.B//"} {
		wantPattern(t, pattern)
	}
}

func wantPattern(t *testing.T, pattern string) {
	t.Helper()
	want := fmt.Sprintf(`deadline: WithProcedure: %q is neither "/pkg.Service/Method" nor "/pkg.Service/"`, pattern)
	wantPanic(t, want, func() { deadline.WithProcedure(pattern, deadline.Policy{}) })
}

func wantPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := recover(); got != want {
			t.Errorf("panicked with %v, want %v", got, want)
		}
	}()
	f()
}

// TestPrecedence: the policy of a procedure is its own, that of its service or the
// general one, whole, and in this order; on both sides and in Handler.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	general := deadline.Policy{Default: time.Second, Max: time.Second}
	service := deadline.WithProcedure("/conntest.v1.Echo/", deadline.Policy{Default: 2 * time.Second})
	exact := deadline.WithProcedure(conntest.UnaryProcedure, deadline.Policy{Max: 4 * time.Second})
	others := []deadline.Option{
		deadline.WithProcedure("/conntest.v1.Ech/", deadline.Policy{Default: time.Minute}),
		deadline.WithProcedure("/conntest.v1.Echo/Unar", deadline.Policy{Default: time.Minute}),
		deadline.WithProcedure("/v1.Echo/", deadline.Policy{Default: time.Minute}),
	}
	for _, tt := range []struct {
		name    string
		options []deadline.Option
		unary   time.Duration
		bidi    time.Duration
	}{
		{name: "general", options: others, unary: time.Second, bidi: time.Second},
		{name: "service", options: append(others, service), unary: 2 * time.Second, bidi: 2 * time.Second},
		{name: "procedure", options: append(others, exact), unary: 4 * time.Second, bidi: time.Second},
		{name: "both", options: append(others, exact, service), unary: 4 * time.Second, bidi: 2 * time.Second},
		{name: "both, the other way round", options: append(others, service, exact), unary: 4 * time.Second, bidi: 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := deadline.NewInterceptor(general, tt.options...)
			check := func(t *testing.T, clients *conntest.Clients, kind connect.StreamType, want time.Duration) {
				t.Helper()
				start := time.Now()
				reply := clients.Do(t.Context(), kind, nil, "first")
				wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				wantElapsed(t, start, want)
			}
			kinds := []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeBidi}
			m := conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: kinds}
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				want := tt.unary
				if c.Kind == connect.StreamTypeBidi {
					want = tt.bidi
				}
				client := c.Start(t, conntest.Config{Service: mute(0)})
				check(t, c.Clients(client, connect.WithInterceptors(i, &silent{})), c.Kind, want)
				handler := c.Start(t, limited(i, conntest.Config{Service: mute(0)}))
				check(t, c.Clients(handler), c.Kind, want)
				bare := c.Start(t, conntest.Config{Service: mute(0), HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}})
				if c.Kind == connect.StreamTypeUnary { // else nothing interrupts it
					check(t, c.Clients(bare), c.Kind, want)
				}
				before := c.Start(t, conntest.Config{Service: mute(0), Wrap: func(next http.Handler) http.Handler { return i.Handler(next) }})
				start := time.Now()
				_ = c.Clients(before).Do(t.Context(), connect.StreamTypeUnary, nil, "first")
				wantElapsed(t, start, tt.unary)
			})
		})
	}
}

// TestProcedureWithoutLimits: a policy with no field that concerns it leaves an RPC alone
// even if the general one does not.
func TestProcedureWithoutLimits(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(
			deadline.Policy{Max: time.Second, OverMax: deadline.Reject, Idle: time.Second},
			deadline.WithProcedure("/conntest.v1.Echo/", deadline.Policy{}),
		)
		srv := c.Start(t, limited(i, conntest.Config{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		header := conntest.WithFaults(conntest.Delay(time.Minute))
		if reply := c.Clients(srv, connect.WithInterceptors(i)).Do(ctx, c.Kind, header, "first"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

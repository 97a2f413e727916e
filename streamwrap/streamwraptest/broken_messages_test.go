package streamwraptest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func brokenMessages() []brokenInterceptor {
	count := func() (dropped func() bool) {
		n := 0
		return func() bool { n++; return n == 3 }
	}
	return []brokenInterceptor{{
		name: "loses a message",
		mutant: &mutant{conn: func() connHooks {
			drops := count()
			return connHooks{send: func(inner sender, msg any) error {
				if drops() {
					return nil
				}
				return inner.Send(msg)
			}}
		}},
		breaks: []string{"messages"},
		says:   `2 messages left during 3 calls of Send`,
	}, {
		name: "sends a message twice",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			if m, ok := msg.(*wrapperspb.StringValue); ok && m.GetValue() == "request 2" {
				_ = inner.Send(msg)
			}
			return inner.Send(msg)
		}}),
		breaks: []string{"messages"},
		says:   `3 messages left during 2 calls of Send`,
	}, {
		// connect-go #411: decides on the first message in the interceptor.
		name: "eats the first message",
		mutant: &mutant{handler: func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) error {
			if err := conn.Receive(&wrapperspb.StringValue{}); err != nil {
				return err
			}
			return next(ctx, conn)
		}},
		breaks: []string{"messages"},
	}, {
		name: "changes messages",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			err := inner.Receive(msg)
			if m, ok := msg.(*wrapperspb.StringValue); ok && err == nil {
				m.Value = strings.ToUpper(m.GetValue())
			}
			return err
		}}),
		breaks: []string{"messages"},
	}, {
		name: "drops Send(nil)",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			if msg == nil {
				return nil
			}
			return inner.Send(msg)
		}}),
		breaks: []string{"flush"},
		says:   `arrived as "Send", want "Send(nil) Send Send(nil)"`,
	}, {
		name: "turns Send(nil) into a typed nil",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			m, ok := msg.(*wrapperspb.StringValue)
			if msg != nil && !ok {
				return inner.Send(msg)
			}
			return inner.Send(m)
		}}),
		breaks: []string{"flush"},
		says:   `arrived as "Send Send Send"`,
	}, {
		name: "counts Send(nil) as a message of its own",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			if msg == nil {
				return inner.Send(&wrapperspb.StringValue{})
			}
			return inner.Send(msg)
		}}),
		breaks: []string{"flush"},
		says:   `arrived as "Send Send Send"`,
	}, {
		// Old validate-go, sudorandom/unknownconnect-go.
		name: "inspects a message before it is received",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			if m, ok := msg.(proto.Message); ok && len(m.ProtoReflect().GetUnknown()) > 0 {
				return connect.NewError(connect.CodeInvalidArgument, errors.New("unknown fields"))
			}
			return inner.Receive(msg)
		}}),
		breaks: []string{"ownership"},
		says:   "before Receive had filled it",
	}, {
		name: "keeps messages for an asynchronous log",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			err := inner.Send(msg)
			if m, ok := msg.(fmt.Stringer); ok {
				time.AfterFunc(time.Millisecond, func() { _ = m.String() })
			}
			return err
		}}),
		breaks: []string{"ownership", "allocations"},
		says:   "after Send or Receive had returned",
	}, {
		name: "allocates for each message",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			err := inner.Receive(msg)
			last.Store(&event{at: time.Now(), err: err})
			return err
		}}),
		breaks: []string{"allocations"},
		says:   "broken_messages_test.go",
	}, {
		name: "makes a context for each message",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			_, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return inner.Send(msg)
		}}),
		breaks: []string{"allocations"},
		says:   "context.WithDeadlineCause",
	}}
}

// last keeps what an interceptor allocates from being optimized away.
var last atomic.Pointer[event]

type event struct {
	at  time.Time
	err error
}

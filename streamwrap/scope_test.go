package streamwrap

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

type valueKey struct{}

func newTestScope(parent context.Context, detached bool) *scope {
	c := &Call{}
	c.scope = scope{call: c, parent: parent, detached: detached}
	return &c.scope
}

func TestScopeIsAContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("why")
	for _, tt := range []struct {
		name               string
		detached, waited   bool
		err, cause         error
		wantErr, wantCause error
	}{
		{"attached", false, false, context.Canceled, nil, context.Canceled, context.Canceled},
		{"attached, cause", false, false, context.Canceled, cause, context.Canceled, cause},
		{"attached, waited", false, true, context.Canceled, nil, context.Canceled, context.Canceled},
		{"attached, waited, cause", false, true, context.Canceled, cause, context.Canceled, cause},
		{"detached", true, false, context.DeadlineExceeded, nil, context.DeadlineExceeded, context.DeadlineExceeded},
		{"detached, cause", true, false, context.DeadlineExceeded, cause, context.DeadlineExceeded, cause},
		{"detached, waited", true, true, context.DeadlineExceeded, nil, context.DeadlineExceeded, context.DeadlineExceeded},
		{"detached, waited, cause", true, true, context.DeadlineExceeded, cause, context.DeadlineExceeded, cause},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			parent := context.WithValue(t.Context(), valueKey{}, "v")
			s := newTestScope(parent, tt.detached)
			if got := s.Value(valueKey{}); got != "v" {
				t.Errorf("Value = %v", got)
			}
			derived := []context.Context{s}
			if tt.waited {
				valued := context.WithValue(s, callKey{}, 1)
				child, cancel := context.WithCancel(valued)
				defer cancel()
				timed, cancelTimed := context.WithTimeout(s, time.Hour)
				defer cancelTimed()
				derived = append(derived, valued, child, timed)
				if got := child.Value(valueKey{}); got != "v" {
					t.Errorf("Value in child = %v", got)
				}
			}
			for i, ctx := range derived {
				if ctx.Err() != nil || context.Cause(ctx) != nil {
					t.Errorf("%d: live: Err %v, Cause %v", i, ctx.Err(), context.Cause(ctx))
				}
			}
			s.finish(tt.err, tt.cause)
			s.finish(context.Canceled, errors.New("second"))
			for i, ctx := range derived {
				select {
				case <-ctx.Done():
				default:
					t.Errorf("%d: Done is open", i)
				}
				if ctx.Err() != tt.wantErr || context.Cause(ctx) != tt.wantCause {
					t.Errorf("%d: Err %v, Cause %v; want %v, %v", i, ctx.Err(), context.Cause(ctx), tt.wantErr, tt.wantCause)
				}
			}
			late, cancel := context.WithCancel(s)
			defer cancel()
			if late.Err() != tt.wantErr || context.Cause(late) != tt.wantCause {
				t.Errorf("late: Err %v, Cause %v", late.Err(), context.Cause(late))
			}
		})
	}
}

func TestScopeFollowsItsParent(t *testing.T) {
	t.Parallel()
	cause := errors.New("why")
	for _, waited := range []bool{false, true} {
		parent, cancel := context.WithCancelCause(t.Context())
		attached, detached := newTestScope(parent, false), newTestScope(parent, true)
		if waited {
			_, _ = attached.Done(), detached.Done()
		}
		cancel(cause)
		if attached.Err() != context.Canceled || context.Cause(attached) != cause {
			t.Errorf("waited %v: attached: Err %v, Cause %v", waited, attached.Err(), context.Cause(attached))
		}
		if detached.Err() != nil || context.Cause(detached) != nil {
			t.Errorf("waited %v: detached: Err %v, Cause %v", waited, detached.Err(), context.Cause(detached))
		}
	}
}

// Contexts derived through a value, as transports and tracers do, must attach
// without a goroutine each.
func TestScopeDerivesWithoutGoroutines(t *testing.T) {
	for _, detached := range []bool{false, true} {
		parent, cancel := context.WithCancel(t.Context())
		s := newTestScope(parent, detached)
		before := runtime.NumGoroutine()
		for range 100 {
			_, cancel := context.WithCancel(context.WithValue(s, valueKey{}, 1))
			defer cancel()
		}
		if after := runtime.NumGoroutine(); after > before+10 {
			t.Errorf("detached %v: %d goroutines for 100 derived contexts", detached, after-before)
		}
		cancel()
	}
}

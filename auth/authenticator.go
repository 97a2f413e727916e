package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// Request is what an [Authenticator] knows of an RPC.
type Request struct {
	// Call is the RPC.
	Call *streamwrap.Call

	// Header is the request's. It must not be changed.
	Header http.Header
}

// TLS returns the state of the connection, nil if it has no TLS. It fails if that
// cannot be known.
func (r *Request) TLS() (*tls.ConnectionState, error) {
	x, ok := r.Call.Exchange()
	if !ok {
		return nil, errNoExchange
	}
	return x.TLS(), nil
}

// now returns the time: for an RPC that begins just now, without a reading of the clock.
func (r *Request) now() time.Time {
	if r.Call == nil {
		return time.Now()
	}
	return r.Call.Now()
}

var errNoExchange = errors.New("auth: the connection is not known: put streamwrap's engine.Handler around the server's mux")

// Authenticator finds out who makes an RPC. It must be safe for concurrent use.
//
// If the request has no credential of its kind, it returns [ErrMissing]; if it has a
// bad one, another of this package's errors, of which the client is told no more than
// the error's constant text. An identity whose Expiry has passed is refused with
// [ErrExpired]. A *[connect.Error] and the end of the context are passed
// on. Every other error, a panic, and nil without an error fail the RPC with
// [connect.CodeInternal] and a constant text.
type Authenticator interface {
	Authenticate(ctx context.Context, r *Request) (*Identity, error)
}

// AuthenticatorFunc makes an Authenticator of a function.
type AuthenticatorFunc func(ctx context.Context, r *Request) (*Identity, error)

// Authenticate implements [Authenticator].
func (f AuthenticatorFunc) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	return f(ctx, r)
}

// AnyOf tries authenticators in turn. The first that finds its credential decides: a
// bad one is never followed by another try.
func AnyOf(authenticators ...Authenticator) Authenticator {
	for _, a := range authenticators {
		if a == nil {
			panic("auth: AnyOf: nil Authenticator")
		}
	}
	return AuthenticatorFunc(func(ctx context.Context, r *Request) (*Identity, error) {
		for _, a := range authenticators {
			if id, err := a.Authenticate(ctx, r); !errors.Is(err, ErrMissing) {
				return id, err
			}
		}
		return nil, ErrMissing
	})
}

// Anonymous accepts everybody. Put it last in [AnyOf] to serve callers without a
// credential, and a [Policy] behind it.
func Anonymous() Authenticator {
	nobody := &Identity{Method: "anonymous"}
	return AuthenticatorFunc(func(context.Context, *Request) (*Identity, error) { return nobody, nil })
}

// authenticate calls an Authenticator and makes sense of what it does.
func authenticate(ctx context.Context, a Authenticator, r *Request) (id *Identity, err error) {
	returned := false
	defer func() {
		if !returned && recover() != nil { // it takes its time even if there is nothing
			err = errPanicked
		}
	}()
	id, err = a.Authenticate(ctx, r)
	returned = true
	if err != nil {
		return nil, understood(ctx, err, ReasonBroken)
	}
	if id == nil {
		return nil, &rejection{reason: ReasonBroken, cause: errNobody}
	}
	// A token has just been looked at, with its leeway.
	if id.ends.IsZero() && !id.Expiry.IsZero() && !r.now().Before(id.Expiry) {
		return nil, ErrExpired
	}
	return id, nil
}

var errPanicked = &rejection{reason: ReasonBroken, cause: errPanic}

// recovered makes an error of a panic of somebody else's function.
func recovered(err *error, reason Reason) {
	if recover() != nil {
		*err = &rejection{reason: reason, cause: errPanic}
	}
}

// understood makes sense of what somebody else's function returned: the end of the
// context, this package's errors and connect's are what they are, any other one is for
// a reason, and for the server's eyes.
func understood(ctx context.Context, err error, otherwise Reason) error {
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
		return rpcerror.OfContext(ctxErr, nil)
	}
	if rejected := (*rejection)(nil); errors.As(err, &rejected) {
		return err
	}
	if coded := (*connect.Error)(nil); errors.As(err, &coded) {
		return coded
	}
	return &rejection{reason: otherwise, cause: err}
}

var (
	errPanic  = errors.New("it panicked")
	errNobody = errors.New("authenticator returned neither identity nor error")
)

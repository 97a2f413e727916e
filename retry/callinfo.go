package retry

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"sync"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/request"
)

// copies reports whether requests can be copied. If not, attempts share the request, and
// one that was given up is not followed by another: net/http may still read its headers.
var copies = request.Copyable

// hedges reports whether attempts can run beside each other: requests can be copied,
// and the caller's CallInfo told of the winner's.
var hedges = copies && callInfoTold()

// maskedCallInfo is a context that hides the caller's [connect.CallInfo] from
// connect, which would write to it for each attempt, concurrently.
type maskedCallInfo struct {
	context.Context

	mu   sync.Mutex
	info connect.CallInfo // nil: nobody wants to know
}

func maskCallInfo(ctx context.Context) *maskedCallInfo { return &maskedCallInfo{Context: ctx} }

func (m *maskedCallInfo) Value(key any) any {
	value := m.Context.Value(key)
	info, ok := value.(connect.CallInfo)
	if !ok || !info.Spec().IsClient {
		return value
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.info = info
	return nil
}

// answer tells the caller's CallInfo of the attempt that won.
func (m *maskedCallInfo) answer(method string, res connect.AnyResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.info != nil {
		tellCallInfo(m.info, method, winner{res})
	}
}

// fail tells the caller's CallInfo of an attempt that failed.
func (m *maskedCallInfo) fail(method string, err error) {
	e := (*connect.Error)(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.info != nil && errors.As(err, &e) {
		tellCallInfo(m.info, method, loser{e})
	}
}

// loser is where a CallInfo has the headers of an RPC that failed from.
type loser struct{ err *connect.Error }

func (l loser) ResponseHeader() http.Header  { return l.err.Meta() }
func (l loser) ResponseTrailer() http.Header { return l.err.Meta() }

// winner is where a CallInfo has the headers of an RPC that succeeded from.
type winner struct{ res connect.AnyResponse }

func (w winner) ResponseHeader() http.Header  { return w.res.Header() }
func (w winner) ResponseTrailer() http.Header { return w.res.Trailer() }

func tellCallInfo(info connect.CallInfo, method string, source any) {
	fields := reflect.ValueOf(info).Elem()
	set := func(name string, value any) {
		field := fields.FieldByName(name)
		reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem().Set(reflect.ValueOf(value))
	}
	set("method", method)
	set("responseSource", source)
}

// callInfoTold tries it.
func callInfoTold() (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	_, info := connect.NewClientContext(context.Background())
	res := connect.NewResponse(&struct{}{})
	res.Header().Set("Key", "header")
	res.Trailer().Set("Key", "trailer")
	tellCallInfo(info, http.MethodGet, winner{res})
	return info.HTTPMethod() == http.MethodGet &&
		info.ResponseHeader().Get("Key") == "header" && info.ResponseTrailer().Get("Key") == "trailer"
}

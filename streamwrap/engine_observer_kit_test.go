package streamwrap_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// exchangeLog is an observer that records, and checks that each exchange begins
// and ends once.
type exchangeLog struct {
	mu     sync.Mutex
	begun  []*streamwrap.Exchange
	ended  []streamwrap.ExchangeEnd
	broken []string
}

type observedKey struct{}

func (l *exchangeLog) observe(ctx context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.begun, x) {
		l.broken = append(l.broken, "an exchange began twice")
	}
	if x.Status() != 0 || x.Sent().Bytes != 0 || x.Received().Bytes != 0 {
		l.broken = append(l.broken, "an exchange began late: "+exchangeFacts(x))
	}
	l.begun = append(l.begun, x)
	ends := 0
	return context.WithValue(ctx, observedKey{}, x), func(e *streamwrap.ExchangeEnd) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if ends++; ends > 1 {
			l.broken = append(l.broken, "an exchange ended twice")
		}
		if e.Exchange != x || e.Status != x.Status() {
			l.broken = append(l.broken, "an end of something else: "+exchangeFacts(e.Exchange))
		}
		l.ended = append(l.ended, *e)
	}
}

// only returns the end of the only exchange.
func (l *exchangeLog) only(tb testing.TB) streamwrap.ExchangeEnd {
	tb.Helper()
	l.check(tb, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended[0]
}

// check checks that n exchanges began and ended.
func (l *exchangeLog) check(tb testing.TB, n int) {
	tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fault := range l.broken {
		tb.Error(fault)
	}
	if len(l.begun) != n || len(l.ended) != n {
		tb.Fatalf("%d exchanges began and %d ended, want %d", len(l.begun), len(l.ended), n)
	}
}

// frameOf returns a frame.
func frameOf(flags byte, payload string) string {
	b := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(payload)))
	return string(b) + payload
}

// marshaled is a request message.
func marshaled(text string) string {
	b, _ := proto.Marshal(conntest.Text(text))
	return string(b)
}

// gzipped compresses a text.
func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// wireCode finds the code in a response, independently of the Engine: 0 if it is
// a success or has none.
func wireCode(tb testing.TB, raw *rawExchange) connect.Code {
	tb.Helper()
	parse := func(text string) connect.Code {
		n, err := strconv.Atoi(text)
		if err != nil {
			tb.Errorf("status %q: %v", text, err)
		}
		return connect.Code(n)
	}
	last := func() (payload []byte, ok bool) {
		frames := raw.response.frames(tb)
		if len(frames) == 0 || frames[len(frames)-1].flags&(rawEndStream|rawTrailers) == 0 {
			return nil, false
		}
		f := frames[len(frames)-1]
		if f.flags&rawCompressed != 0 {
			r, err := gzip.NewReader(bytes.NewReader(f.payload))
			if err != nil {
				tb.Error(err)
				return nil, false
			}
			f.payload, _ = io.ReadAll(r)
		}
		return f.payload, true
	}
	contentType := raw.header.Get("Content-Type")
	switch {
	case raw.header.Get("Grpc-Status") != "":
		return parse(raw.header.Get("Grpc-Status"))
	case strings.HasPrefix(contentType, "application/grpc-web"):
		block, ok := last()
		for line := range strings.Lines(string(block)) {
			if key, value, _ := strings.Cut(line, ":"); strings.EqualFold(key, "grpc-status") {
				return parse(strings.TrimSpace(value))
			}
		}
		if ok {
			tb.Errorf("no status in %q", block)
		}
		return connect.CodeUnknown
	case strings.HasPrefix(contentType, "application/grpc"):
		if status := raw.res.Trailer.Get("Grpc-Status"); status != "" {
			return parse(status)
		}
		return connect.CodeUnknown
	case strings.HasPrefix(contentType, "application/connect+"):
		var end struct {
			Error *struct {
				Code connect.Code `json:"code"`
			} `json:"error"`
		}
		block, ok := last()
		if !ok {
			return connect.CodeUnknown
		}
		if err := json.Unmarshal(block, &end); err != nil {
			tb.Error(err)
		}
		if end.Error == nil {
			return 0
		}
		return end.Error.Code
	case raw.status >= 400:
		var failure struct {
			Code connect.Code `json:"code"`
		}
		_ = json.Unmarshal(raw.response.Bytes(), &failure)
		return failure.Code
	default:
		return 0
	}
}

// Contents of requests.
const (
	asUnary   = "application/proto"
	asJSON    = "application/json"
	asStream  = "application/connect+proto"
	asGRPC    = "application/grpc+proto"
	asGRPCWeb = "application/grpc-web+proto"
)

// failingCodec marshals nothing.
type failingCodec struct{ upperCodec }

func (failingCodec) Name() string { return "proto" }

func (failingCodec) Marshal(any) ([]byte, error) { return nil, errors.New("cannot marshal") }

func (failingCodec) Unmarshal([]byte, any) error { return nil }

// withoutFlusher hides that a ResponseWriter can flush.
func withoutFlusher(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})
}

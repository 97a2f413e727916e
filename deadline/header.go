package deadline

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// encoding is how a protocol writes a timeout into a header.
type encoding struct {
	key    string
	parse  func(string) (timeout time.Duration, asks, ok bool)
	format func(time.Duration) string
}

var (
	connectTimeout = encoding{"Connect-Timeout-Ms", parseMillis, formatMillis}
	grpcTimeout    = encoding{"Grpc-Timeout", parseGRPC, formatGRPC}
)

// encodingOf returns the encoding of the protocol that a request speaks.
func encodingOf(h http.Header) encoding {
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(h.Get("Content-Type"))), "application/grpc") {
		return grpcTimeout
	}
	return connectTimeout
}

// read returns the timeout that a request asks for, if it asks for one. It is not
// ok if the header is malformed: then connect refuses the request.
func (e encoding) read(h http.Header) (timeout time.Duration, asks, ok bool) {
	values := h[e.key]
	if len(values) == 0 || values[0] == "" {
		return 0, false, true
	}
	return e.parse(values[0])
}

// parseMillis parses a "Connect-Timeout-Ms" as connect does.
func parseMillis(text string) (timeout time.Duration, asks, ok bool) {
	if len(text) > 10 {
		return 0, false, false
	}
	millis, err := strconv.ParseInt(text, 10, 64)
	if err != nil || millis < 0 {
		return 0, false, false
	}
	return time.Duration(millis) * time.Millisecond, true, true
}

// formatMillis rounds down, but never to nothing.
func formatMillis(timeout time.Duration) string {
	millis := max(timeout.Milliseconds(), 1)
	return strconv.FormatInt(min(millis, maxTimeout.Milliseconds()), 10)
}

// grpcUnits are the units of a "Grpc-Timeout", the finest first.
var grpcUnits = [...]struct {
	letter byte
	d      time.Duration
}{
	{'n', time.Nanosecond},
	{'u', time.Microsecond},
	{'m', time.Millisecond},
	{'S', time.Second},
	{'M', time.Minute},
	{'H', time.Hour},
}

// grpcDigits is the greatest number before a unit.
const grpcDigits = 99_999_999

// parseGRPC parses a "Grpc-Timeout" as connect does: one that no Duration holds is
// none.
func parseGRPC(text string) (timeout time.Duration, asks, ok bool) {
	last := len(text) - 1
	for _, unit := range grpcUnits {
		if text[last] != unit.letter {
			continue
		}
		n, err := strconv.ParseInt(text[:last], 10, 64)
		if err != nil || n < 0 || n > grpcDigits {
			return 0, false, false
		}
		if n > math.MaxInt64/int64(unit.d) {
			return 0, false, true
		}
		return time.Duration(n) * unit.d, true, true
	}
	return 0, false, false
}

// formatGRPC rounds down to a unit with which the digits suffice.
func formatGRPC(timeout time.Duration) string {
	timeout = max(timeout, 1)
	for _, unit := range grpcUnits {
		if n := int64(timeout / unit.d); n <= grpcDigits {
			return strconv.FormatInt(n, 10) + string(unit.letter)
		}
	}
	return "" // no Duration is that long
}

// refreshTimeout sets the timeout of a request that has one.
func refreshTimeout(h http.Header, remaining time.Duration) {
	for _, e := range []encoding{connectTimeout, grpcTimeout} {
		if len(h[e.key]) > 0 {
			h[e.key] = []string{e.format(remaining)}
		}
	}
}

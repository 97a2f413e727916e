package frame_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func TestParseTrailers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		block string
		want  frame.Trailers
	}{
		{"empty", "", frame.Trailers{}},
		{"only a blank line", "\r\n", frame.Trailers{}},
		{
			"as connect-go sends it", "grpc-status: 5\r\ngrpc-message: no user\r\n",
			frame.Trailers{"Grpc-Status": {"5"}, "Grpc-Message": {"no user"}},
		},
		{
			"keys in any case", "GRPC-Status:0\r\nacme-iD: 1\r\nACME-Id: 2\r\n",
			frame.Trailers{"Grpc-Status": {"0"}, "Acme-Id": {"1", "2"}},
		},
		{"bare LF, blank line", "a: 1\nb: 2\n\n", frame.Trailers{"A": {"1"}, "B": {"2"}}},
		{"half a blank line", "a: 1\r\n\r", frame.Trailers{"A": {"1"}}},
		{"spaces and colons", "a: \t x: y \t\r\nb:\r\n", frame.Trailers{"A": {"x: y"}, "B": {""}}},
		{"binary stays text", "k-bin: AQI=, AQI\r\n", frame.Trailers{"K-Bin": {"AQI=, AQI"}}},
		{"not ASCII", "a: \xc3\xa9\xff\r\n", frame.Trailers{"A": {"\xc3\xa9\xff"}}},
		{"folded", "a: 1\r\n\t2\r\n   3 \r\nb:\r\n 4\r\n", frame.Trailers{"A": {"1 2 3"}, "B": {"4"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := frame.ParseTrailers([]byte(tt.block), frame.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseTrailersRefuses(t *testing.T) {
	t.Parallel()
	// The offset is where @ stands, which is not part of the block.
	tests := []struct {
		name   string
		block  string
		limits frame.Limits
		kind   error
		text   string
	}{
		{"no colon", "a: 1\r\n@grpc-status 0\r\n", frame.Limits{}, frame.ErrTrailers, "line without a colon"},
		{"no key", "a: 1\r\n@: 0\r\n", frame.Limits{}, frame.ErrTrailers, "key is not a token"},
		{"space before the colon", "@grpc-status : 0\r\n", frame.Limits{}, frame.ErrTrailers, "key is not a token"},
		{"key not ASCII", "@k\xc3\xa9y: 0\r\n", frame.Limits{}, frame.ErrTrailers, "key is not a token"},
		{"fold without a field", "@ a: 1\r\n", frame.Limits{}, frame.ErrTrailers, "first line begins with a space"},
		{"NUL in a value", "a: 1\r\nb: x@\x00\r\n", frame.Limits{}, frame.ErrTrailers, "value has a control character"},
		{"DEL in a value", "b: @\x7f", frame.Limits{}, frame.ErrTrailers, "value has a control character"},
		{"CR in a value", "b: x@\rc: y\r\n", frame.Limits{}, frame.ErrTrailers, "value has a control character"},
		{"two CR", "b: x@\r\r\n", frame.Limits{}, frame.ErrTrailers, "value has a control character"},
		{"control character in a fold", "b: x\r\n y@\x01", frame.Limits{}, frame.ErrTrailers, "value has a control character"},
		{"data after the blank line", "a: 1\r\n\r\n@b: 2\r\n", frame.Limits{}, frame.ErrTrailers, "data after the blank line"},
		{"no end of the last line", "a: 1\r\nb: 2@", frame.Limits{}, frame.ErrTrailers, "last line has no end"},
		{"half an end", "a: 1\r@", frame.Limits{}, frame.ErrTrailers, "last line has no end"},
		{"JSON", "@{}", frame.Limits{}, frame.ErrTrailers, "line without a colon"},
		{"too large", "a: 1@\r\n", frame.Limits{MaxBytes: 4}, frame.ErrTooLarge, "payload of 6 bytes exceeds 4"},
		{"too many keys", "a: 1\nb: 2\nA: 3\n@c: 4\nd: 5\n", frame.Limits{MaxKeys: 2}, frame.ErrTooManyKeys, "more than 2"},
		{"too many keys in the last line", "a: 1\r\n@b: 2\r\n", frame.Limits{MaxKeys: 1}, frame.ErrTooManyKeys, "more than 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, tt.block, tt.kind, tt.text, func(payload []byte) error {
				_, err := frame.ParseTrailers(payload, tt.limits)
				return err
			})
		})
	}
}

func TestTrailersAppend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		trailers frame.Trailers
		want     string
	}{
		{"none", nil, ""},
		{
			"sorted, in lower case",
			frame.Trailers{"Grpc-Status": {"0"}, "Acme-Id": {"1", "2"}, "acme-id": {"3"}},
			"acme-id: 1\r\nacme-id: 2\r\nacme-id: 3\r\ngrpc-status: 0\r\n",
		},
		{"empty and missing values", frame.Trailers{"A": {""}, "B": nil}, "a: \r\n"},
		{"no key can add a line", frame.Trailers{"A\r\nB": {"1"}, "": {"2"}, "C:": {"3"}, "D E": {"4"}}, ""},
		{"no value can add a line", frame.Trailers{"A": {"\n 1\r\nb: 2\x00\x7f3\r\n"}}, "a: 1  b: 2  3\r\n"},
		{"tabs and what is not ASCII stay", frame.Trailers{"A": {"\t1\t\u00e9\xff\t"}}, "a: 1\t\u00e9\xff\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(tt.trailers.Append([]byte("before"))); got != "before"+tt.want {
				t.Errorf("got %q, want %q", got, "before"+tt.want)
			}
		})
	}
}

func TestTrailersAreAHeader(t *testing.T) {
	t.Parallel()
	trailers, err := frame.ParseTrailers([]byte("grpc-status: 7\r\n"), frame.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := http.Header(trailers).Get("Grpc-Status"); got != "7" {
		t.Errorf("status %q", got)
	}
}

package logging_test

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/logging"
)

// TestRendering: JSON as protobuf has it.
func TestRendering(t *testing.T) {
	t.Parallel()
	render := logging.Renderer()
	values, err := structpb.NewStruct(map[string]any{"a": []any{1.5, nil, "x", true, map[string]any{}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		msg  proto.Message
		want string
	}{
		"empty":     {record(func(*dynamic) {}), `{}`},
		"nil":       {(*wrapperspb.StringValue)(nil), `null`},
		"escapes":   {record(func(r *dynamic) { r.set("open", "\"\\\n\t\x01\x7f<ä>\u2028") }), `{"open":"\"\\\n\t\u0001\u007f<ä>` + "\u2028" + `"}`},
		"not UTF-8": {wrapperspb.String("a\xffb"), `"a\ufffdb"`},
		"numbers":   {record(func(r *dynamic) { r.add("numbers", int64(math.MinInt64), int64(1)) }), `{"numbers":["-9223372036854775808","1"]}`},
		"double":    {record(func(r *dynamic) { r.set("double", math.NaN()).set("bool", true) }), `{"double":"NaN","bool":true}`},
		"infinite":  {wrapperspb.Double(math.Inf(-1)), `"-Infinity"`},
		"bytes":     {record(func(r *dynamic) { r.set("open_bytes", []byte("open")) }), `{"openBytes":"b3Blbg=="}`},
		"wrappers":  {record(func(r *dynamic) { r.set("wrapper", wrapperspb.String("w")) }), `{"wrapper":"w"}`},
		"struct":    {record(func(r *dynamic) { r.set("struct", values) }), `{"struct":{"a":[1.5,null,"x",true,{}]}}`},
		"time":      {record(func(r *dynamic) { r.set("at", timestamppb.New(time.Unix(1, 5))) }), `{"at":"1970-01-01T00:00:01.000000005Z"}`},
		"no time":   {&timestamppb.Timestamp{Seconds: math.MaxInt64}, `{"seconds":"9223372036854775807"}`},
		"duration":  {durationpb.New(1500 * time.Millisecond), `"1.5s"`},
		"too long":  {&durationpb.Duration{Seconds: math.MaxInt64}, `{"seconds":"9223372036854775807"}`},
		"default":   {wrapperspb.Int64(0), `"0"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, _ := render(tt.msg, 1<<20)
			if got != tt.want || !json.Valid([]byte(got)) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestPayloadsAreCut: at a size, whatever they are made of, and are JSON nevertheless.
func TestPayloadsAreCut(t *testing.T) {
	t.Parallel()
	render := logging.Renderer()
	long := strings.Repeat("ä\n", 5000)
	deep := record(func(*dynamic) {})
	for range 200 {
		deep = record(func(r *dynamic) { r.set("child", deep) })
	}
	for name, msg := range map[string]proto.Message{
		"text":     wrapperspb.String(long),
		"bytes":    wrapperspb.Bytes([]byte(long)),
		"list":     record(func(r *dynamic) { r.add("numbers", many(5000)...) }),
		"children": record(func(r *dynamic) { r.add("children", children(2000)...) }),
		"map": record(func(r *dynamic) {
			for _, n := range many(3000) {
				r.put("secret_map", strings.Repeat("k", int(n.(int64))%17)+time.Duration(n.(int64)).String(), "v")
			}
			for _, n := range many(1000) {
				r.put("by_name", time.Duration(n.(int64)).String(), record(func(*dynamic) {}))
			}
		}),
		"deep": deep,
		"any":  anyOf(wrapperspb.String(long)),
	} {
		for _, limit := range []int{1, 2, 3, 10, 64, 500, 2048} {
			got, truncated := render(msg, limit)
			if !truncated {
				t.Errorf("%s, %d: not truncated: %s", name, limit, got)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("%s, %d: no JSON: %s", name, limit, got)
			}
			if len(got) > limit+150 {
				t.Errorf("%s, %d: %d bytes: %s", name, limit, len(got), got)
			}
		}
	}
}

// TestLargeMapsAreCut: whatever room there is, not all of a map is put in order.
func TestLargeMapsAreCut(t *testing.T) {
	t.Parallel()
	msg := record(func(r *dynamic) {
		for n := range 1000 {
			r.put("by_name", strconv.Itoa(n), record(func(*dynamic) {}))
		}
	})
	text, truncated := logging.Renderer()(msg, 1<<20)
	if n := strings.Count(text, ":{}"); n != 256 || !truncated || !json.Valid([]byte(text)) {
		t.Errorf("%d entries, truncated %v", n, truncated)
	}
}

// many returns numbers.
func many(n int) []any {
	values := make([]any, n)
	for i := range values {
		values[i] = int64(i)
	}
	return values
}

// children returns empty messages.
func children(n int) []any {
	values := make([]any, n)
	for i := range values {
		values[i] = record(func(*dynamic) {})
	}
	return values
}

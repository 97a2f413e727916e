package frame_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func TestParseEndStream(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		json string
		want frame.EndStream
	}{
		{"success", `{}`, frame.EndStream{}},
		{"null", ` null `, frame.EndStream{}},
		{"null fields", `{"error":null,"metadata":null}`, frame.EndStream{}},
		{"empty error", `{"error":{}}`, frame.EndStream{Error: &frame.EndError{}}},
		{
			"error", `{"error":{"code":"not_found","message":"no \"user\" \u00e9"}}`,
			frame.EndStream{Error: &frame.EndError{Code: "not_found", Message: `no "user" é`}},
		},
		{
			"null in an error", `{"error":{"code":null,"message":null,"details":null}}`,
			frame.EndStream{Error: &frame.EndError{}},
		},
		{
			"details", `{"error":{"code":"x","details":[
				{"type":"a.B","value":"AQI","debug":{ "n": [1e999] }},
				{"type":"a.C","value":"AQI="},
				{"value":"","debug":null},
				null
			]}}`,
			frame.EndStream{Error: &frame.EndError{Code: "x", Details: []frame.Detail{
				{Type: "a.B", Value: []byte{1, 2}, Debug: json.RawMessage(`{ "n": [1e999] }`)},
				{Type: "a.C", Value: []byte{1, 2}},
				{Value: []byte{}, Debug: json.RawMessage(`null`)},
				{},
			}}},
		},
		{
			"metadata", `{"metadata":{"acme-id":["1","2"],"Acme-Bin":["AQI"],"none":[],"nothing":null,"ACME-ID":[null]}}`,
			frame.EndStream{Metadata: map[string][]string{"Acme-Id": {"1", "2", ""}, "Acme-Bin": {"AQI"}}},
		},
		{
			"names in any case, unknown names", "\t{\"x\":[1e999,{\"error\":1}],\"Error\":{\"y\":{},\"CODE\":\"aborted\"}}\r\n",
			frame.EndStream{Error: &frame.EndError{Code: "aborted"}},
		},
		{
			"the last error counts", `{"error":{"code":"a","message":"m"},"error":{"code":"b"}}`,
			frame.EndStream{Error: &frame.EndError{Code: "b"}},
		},
		{"the last error counts, also if it is none", `{"error":{"code":"a"},"error":null}`, frame.EndStream{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := frame.ParseEndStream([]byte(tt.json), frame.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseEndStreamRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001)
	// The offset is where @ stands, which is not part of the message.
	tests := []struct {
		name   string
		json   string
		limits frame.Limits
		kind   error
		text   string
	}{
		{"empty", `@`, frame.Limits{}, frame.ErrEndStream, "unexpected end of JSON input"},
		{"cut", `{"error":@`, frame.Limits{}, frame.ErrEndStream, "unexpected end of JSON input"},
		{"not JSON", `@<html>`, frame.Limits{}, frame.ErrEndStream, "invalid character '<' looking for beginning of value"},
		{"bad byte in the middle", `{"error":@x}`, frame.Limits{}, frame.ErrEndStream, "invalid character 'x' looking for beginning of value"},
		{"bad last byte", `{"a":1@]`, frame.Limits{}, frame.ErrEndStream, "invalid character ']' after object key:value pair"},
		{"data after the message", `{}@{}`, frame.Limits{}, frame.ErrEndStream, "invalid character '{' after top-level value"},
		{"no object", ` @[]`, frame.Limits{}, frame.ErrEndStream, "message is not an object"},
		{"error", `{"error" : @"x"}`, frame.Limits{}, frame.ErrEndStream, "error is not an object"},
		{"code", `{"error":{"code":@5}}`, frame.Limits{}, frame.ErrEndStream, "code is not a string"},
		{"message", `{"error":{"message":@{}}}`, frame.Limits{}, frame.ErrEndStream, "message is not a string"},
		{"details", `{"error":{"details":@{}}}`, frame.Limits{}, frame.ErrEndStream, "details is not an array"},
		{"detail", `{"error":{"details":[{},@true]}}`, frame.Limits{}, frame.ErrEndStream, "detail is not an object"},
		{"type", `{"error":{"details":[{"type":@1e999}]}}`, frame.Limits{}, frame.ErrEndStream, "type is not a string"},
		{"value", `{"error":{"details":[{"value":@[]}]}}`, frame.Limits{}, frame.ErrEndStream, "value is not a string"},
		{"base64", `{"error":{"details":[{"value":@"A?=="}]}}`, frame.Limits{}, frame.ErrEndStream, "value: illegal base64 data at input byte 1"},
		{"metadata", `{"metadata":@["x"]}`, frame.Limits{}, frame.ErrEndStream, "metadata is not an object"},
		{"metadata values", `{"metadata":{"a":["x"], "b" : @"x"}}`, frame.Limits{}, frame.ErrEndStream, "metadata value is not an array"},
		{"metadata value", `{"metadata":{"a":["x", @7]}}`, frame.Limits{}, frame.ErrEndStream, "metadata value is not a string"},
		{"too large", `{}  @ `, frame.Limits{MaxBytes: 4}, frame.ErrTooLarge, "payload of 5 bytes exceeds 4"},
		{"too many keys", `{"metadata":{"a":["1"],"b":["2"],"A":["3"],@"c":["4"]}}`, frame.Limits{MaxKeys: 2}, frame.ErrTooManyKeys, "more than 2"},
		{"too deep", deep[:10_000] + "@" + deep[10_000:], frame.Limits{}, frame.ErrEndStream, "exceeded max depth"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, tt.json, tt.kind, tt.text, func(payload []byte) error {
				_, err := frame.ParseEndStream(payload, tt.limits)
				return err
			})
		})
	}
}

// checkRefused parses a payload that is marked with @ where it is wrong.
func checkRefused(t *testing.T, marked string, kind error, text string, parse func([]byte) error) {
	t.Helper()
	before, after, marks := strings.Cut(marked, "@")
	if !marks {
		t.Fatal("the payload has no mark")
	}
	err := parse([]byte(before + after))
	var e *frame.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) {
		t.Fatalf("error %v, want %v", err, kind)
	}
	if e.Offset != int64(len(before)) {
		t.Errorf("offset %d, want %d: %v", e.Offset, len(before), err)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want %q", err, text)
	}
}

func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	pad := func(n int) []byte { return []byte(strings.Repeat(" ", n-2) + "{}") }
	if _, err := frame.ParseEndStream(pad(frame.DefaultMaxBytes), frame.Limits{}); err != nil {
		t.Error(err)
	}
	if _, err := frame.ParseEndStream(pad(frame.DefaultMaxBytes+1), frame.Limits{}); !errors.Is(err, frame.ErrTooLarge) {
		t.Error(err)
	}
	many := frame.Trailers{}
	for i := range frame.DefaultMaxKeys {
		many["k"+strings.Repeat("x", i)] = []string{""}
	}
	if _, err := frame.ParseTrailers(many.Append(nil), frame.Limits{}); err != nil {
		t.Error(err)
	}
	many["z"] = []string{""}
	if _, err := frame.ParseTrailers(many.Append(nil), frame.Limits{}); !errors.Is(err, frame.ErrTooManyKeys) {
		t.Error(err)
	}
	end := frame.EndStream{Metadata: many}
	if _, err := frame.ParseEndStream(end.Append(nil), frame.Limits{}); !errors.Is(err, frame.ErrTooManyKeys) {
		t.Error(err)
	}
}

func TestEndStreamAppend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		end  frame.EndStream
		want string
	}{
		{"success", frame.EndStream{}, `{}`},
		{"error without anything", frame.EndStream{Error: &frame.EndError{}}, `{"error":{"code":""}}`},
		{
			"everything",
			frame.EndStream{
				Error: &frame.EndError{Code: "internal", Message: "<a> & \"b\"", Details: []frame.Detail{
					{Type: "a.B", Value: []byte{1, 2}, Debug: json.RawMessage(`{ "x": "<" }`)},
					{Type: "a.C", Debug: json.RawMessage(`{`)},
				}},
				Metadata: map[string][]string{"B": {"1", ""}, "A": {"x"}, "None": nil},
			},
			`{"error":{"code":"internal","message":"<a> & \"b\"","details":[` +
				`{"type":"a.B","value":"AQI","debug":{"x":"<"}},{"type":"a.C","value":""}]},` +
				`"metadata":{"A":["x"],"B":["1",""]}}`,
		},
		{
			"not UTF-8",
			frame.EndStream{Error: &frame.EndError{Code: "x", Message: "\xff"}},
			"{\"error\":{\"code\":\"x\",\"message\":\"\\ufffd\"}}",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(tt.end.Append([]byte("before"))); got != "before"+tt.want {
				t.Errorf("got  %s\nwant before%s", got, tt.want)
			}
		})
	}
}

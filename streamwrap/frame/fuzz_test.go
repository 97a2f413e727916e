package frame_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func seeds(f *testing.F, add func(stream []byte)) {
	f.Helper()
	for _, s := range []string{
		"", "\x00", message(0, "hello"), message(0, "hello")[:8],
		message(1, "") + message(0, "a") + message(2, `{"error":{"code":"aborted"}}`),
		message(0, strings.Repeat("x", 300)) + message(0x80, "grpc-status: 0\r\n"),
		message(2, "{}") + message(0, ""), message(0x82, ""), message(4, ""),
		"\x00\xff\xff\xff\xff1234", "\x00\x00\x00\x01\x00" + strings.Repeat("y", 255),
	} {
		add([]byte(s))
	}
}

// FuzzScannerAgreesWithReader feeds a stream to both in random chunks.
func FuzzScannerAgreesWithReader(f *testing.F) {
	seeds(f, func(stream []byte) {
		f.Add(stream, uint64(1), uint16(0), uint8(0))
		f.Add(stream, uint64(2), uint16(200), uint8(frame.FlagsConnect))
	})
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, maxBytes uint16, allowed uint8) {
		lim := limits{int(maxBytes), frame.Flags(allowed)}
		want := readAll(bytes.NewReader(stream), lim)
		chunked := readAll(&chunkReader{stream, random(seed, 1+int(seed%64))}, lim)
		if diff := cmp.Diff(want, chunked, cmpopts.EquateErrors()); diff != "" {
			t.Fatalf("Reader depends on chunks (-whole +chunks):\n%s", diff)
		}
		var rebuilt []byte
		for i, b := range want.Frames {
			if int64(len(rebuilt)) != b.Offset {
				t.Fatalf("frame %d is at %d, not %d", i, b.Offset, len(rebuilt))
			}
			rebuilt = frame.Append(rebuilt, b.Header.Flags, []byte(want.Payload[i]))
		}
		if !bytes.HasPrefix(stream, rebuilt) || want.Kind == nil && len(stream) != len(rebuilt) {
			t.Fatalf("the frames are not the stream: %q", rebuilt)
		}
		if want.Offset > int64(len(stream)) {
			t.Fatalf("error at %d of %d bytes", want.Offset, len(stream))
		}
		want.Payload = nil
		for _, next := range []func(int) int{whole, single, random(seed, 1+int(seed%64))} {
			got := scanAll(stream, lim, next)
			if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
				t.Fatalf("(-Reader +Scanner):\n%s", diff)
			}
			if diff := cmp.Diff(want, stepAll(stream, lim, next), cmpopts.EquateErrors()); diff != "" {
				t.Fatalf("(-Reader +Scanner.Next):\n%s", diff)
			}
		}
	})
}

// FuzzAppendParse makes frames of arbitrary payloads and reads them back.
func FuzzAppendParse(f *testing.F) {
	f.Add([]byte("hello"), uint16(0), uint8(0), []byte(""), uint8(1), uint64(1))
	f.Add([]byte("0123456789"), uint16(2000), uint8(1), []byte("{}"), uint8(2), uint64(2))
	f.Fuzz(func(t *testing.T, a []byte, more uint16, flagsA uint8, b []byte, flagsB uint8, seed uint64) {
		a = bytes.Repeat(a, 1+int(more%4096)) // the buffer has to grow
		first, second := frame.Flags(flagsA)&frame.FlagCompressed, frame.Flags(flagsB)
		if !second.Valid(frame.FlagsAny) {
			second &= frame.FlagsConnect
		}
		stream := frame.Append(frame.Append(nil, first, a), second, b)
		h, n, err := frame.Parse(stream)
		if want := (frame.Header{Flags: first, Length: uint32(len(a))}); h != want || n != frame.HeaderSize || err != nil {
			t.Fatalf("Parse: %+v, %d, %v", h, n, err)
		}
		r := frame.NewReader(&chunkReader{stream, random(seed, 1+int(seed%5000))}, max(len(a), len(b)))
		for _, want := range []frame.Frame{{Flags: first, Payload: a}, {Flags: second, Payload: b, Offset: int64(len(a)) + 5}} {
			got, err := r.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if got.Flags != want.Flags || got.Offset != want.Offset || !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
		if _, err := r.ReadFrame(); err != io.EOF {
			t.Fatal(err)
		}
		s := frame.Scanner{Capture: len(b)}
		if err := s.Feed(stream, nil); err != nil {
			t.Fatal(err)
		}
		if got, whole := s.Captured(); second.End() && (!whole || !bytes.Equal(got, b)) {
			t.Fatalf("captured %q, %v", got, whole)
		}
	})
}

// like connect-go: what its client takes for an end-stream message.
type likeConnect struct {
	Error *struct {
		Code    string
		Message string
		Details []*struct {
			Type  string
			Value likeBase64
		}
	}
	Metadata map[string][]string
}

type likeBase64 struct{ encoded string }

func (b *likeBase64) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &b.encoded); err != nil {
		return err
	}
	encoding := base64.StdEncoding
	if len(b.encoded)%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	_, err := encoding.DecodeString(b.encoded)
	return err
}

// FuzzEndStream parses arbitrary bytes, compares with encoding/json, and writes
// and parses what came out once more.
func FuzzEndStream(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"error":{"code":"not_found","message":"x","details":[{"type":"a.B","value":"AQI=","debug":{"a": 1}}]}}`,
		`{"metadata":{"a":["1","2"],"A":[],"B-bin":["AQI"]},"x":[1e999]}`, `{"Error":{"CODE":"a"},"error":null}`,
		`{"error":{"code":1}}`, `{"metadata":{"a":"b"}}`, `{"error":{"details":[null,{"value":"A"}]}}`, `{"\u017ferror":1,"K":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		const large = 1 << 20
		end, err := frame.ParseEndStream(payload, frame.Limits{MaxBytes: large, MaxKeys: large})
		var want likeConnect
		wantErr := json.Unmarshal(payload, &want)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, but encoding/json: %v", err, wantErr)
		}
		if err != nil {
			checkOffset(t, err, payload)
			return
		}
		// encoding/json merges fields that occur twice.
		once := strings.Count(strings.ToLower(string(payload)), "error") < 2 && !bytes.ContainsRune(payload, '\\')
		if once && (end.Error == nil) != (want.Error == nil) {
			t.Fatalf("error %+v, want %+v", end.Error, want.Error)
		}
		again, err := frame.ParseEndStream(end.Append(nil), frame.Limits{MaxBytes: 10 * large, MaxKeys: large})
		if err != nil {
			t.Fatalf("%s: %v", end.Append(nil), err)
		}
		for _, e := range []*frame.EndError{end.Error, again.Error} {
			if e != nil {
				compactDebug(t, e.Details)
			}
		}
		if diff := cmp.Diff(end, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("append and parse (-first +second):\n%s", diff)
		}
	})
}

func compactDebug(t *testing.T, details []frame.Detail) {
	t.Helper()
	for i := range details {
		var buf bytes.Buffer
		if len(details[i].Debug) == 0 {
			continue
		}
		if err := json.Compact(&buf, details[i].Debug); err != nil {
			t.Fatal(err)
		}
		details[i].Debug = buf.Bytes()
	}
}

// FuzzTrailers parses arbitrary bytes, compares with net/textproto, which
// connect-go uses, and writes and parses what came out once more.
func FuzzTrailers(f *testing.F) {
	for _, s := range []string{
		"", "\r\n", "grpc-status: 0\r\n", "Grpc-Status:5\ngrpc-message: a%20b\r\nx-bin: AQI=\r\n\r\n", "a: 1\r\n 2\r\n",
		" a: 1", "a", "a: \x00", "a:\r\n\r\nb: 2", "\xff: 1", "a : 1\r\n", "a: 1\r", ":",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		const large = 1 << 20
		trailers, err := frame.ParseTrailers(block, frame.Limits{MaxBytes: large, MaxKeys: large})
		mime := bufio.NewReader(bytes.NewReader(append(bytes.Clone(block), '\n')))
		want, wantErr := textproto.NewReader(mime).ReadMIMEHeader()
		if err != nil {
			checkOffset(t, err, block)
			// We are stricter in two things.
			spaced := false
			for key := range want {
				spaced = spaced || strings.Contains(key, " ")
			}
			if wantErr == nil && !spaced && !strings.Contains(err.Error(), "after the blank line") {
				t.Fatalf("%v, but net/textproto takes it", err)
			}
			return
		}
		if wantErr != nil {
			t.Fatalf("net/textproto: %v", wantErr)
		}
		for _, values := range want {
			for i := range values {
				values[i] = strings.Trim(values[i], " \t") // it leaves some where lines are folded
			}
		}
		if diff := cmp.Diff(map[string][]string(want), map[string][]string(trailers)); diff != "" {
			t.Fatalf("(-net/textproto +got):\n%s", diff)
		}
		again, err := frame.ParseTrailers(trailers.Append(nil), frame.Limits{MaxBytes: 10 * large, MaxKeys: large})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(trailers, again); diff != "" {
			t.Fatalf("append and parse (-first +second):\n%s", diff)
		}
	})
}

// FuzzTrailersAppend writes arbitrary trailers: the block is always valid, and
// has no key that was not meant.
func FuzzTrailersAppend(f *testing.F) {
	f.Add("Grpc-Status", "0")
	f.Add("A\r\nB", "1\r\nc: 2")
	f.Add("k", " \t\x00x\xff\n")
	f.Fuzz(func(t *testing.T, key, value string) {
		trailers := frame.Trailers{key: {value}, "Z": {"end"}}
		got, err := frame.ParseTrailers(trailers.Append(nil), frame.Limits{MaxBytes: 1 << 24})
		if err != nil {
			t.Fatal(err)
		}
		delete(got, textproto.CanonicalMIMEHeaderKey(key))
		delete(got, "Z")
		if len(got) != 0 {
			t.Fatalf("injected: %q", got)
		}
	})
}

// checkOffset checks that an error is one of ours and points into the input.
func checkOffset(t *testing.T, err error, input []byte) {
	t.Helper()
	e, ok := err.(*frame.Error) //nolint:errorlint // the package returns its errors unwrapped, which this checks
	if !ok || e.Offset < 0 || e.Offset > int64(len(input)) {
		t.Fatalf("%T at the wrong offset: %v", err, err)
	}
}

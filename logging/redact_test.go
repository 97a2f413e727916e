package logging_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// secret is in every message of the corpus, and must be in no record.
const secret = "hunter2-hunter2"

// hidden are the forms in which it might be there.
func hidden() []string {
	return []string{secret, secret[:8], base64.StdEncoding.EncodeToString([]byte(secret))[:16], "68756e746572"}
}

func leaks(text string) bool {
	for _, form := range hidden() {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func anyOf(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

// corpus is messages with a secret, and how they are to be rendered.
func corpus() map[string]struct {
	msg  proto.Message
	want string
} {
	secretive := func() *dynamic {
		return &dynamic{record(func(r *dynamic) { r.set("open", "o").set("secret", secret) })}
	}
	const inner = `{"open":"o","secret":"[REDACTED]"}`
	type entry = struct {
		msg  proto.Message
		want string
	}
	return map[string]entry{
		"text":    {secretive(), inner},
		"bytes":   {record(func(r *dynamic) { r.set("secret_bytes", []byte(secret)) }), `{"secretBytes":"[REDACTED]"}`},
		"number":  {record(func(r *dynamic) { r.set("secret_number", int64(7)) }), `{"secretNumber":"[REDACTED]"}`},
		"list":    {record(func(r *dynamic) { r.add("secrets", secret, "x") }), `{"secrets":"[REDACTED]"}`},
		"message": {record(func(r *dynamic) { r.set("secret_record", record(func(r *dynamic) { r.set("open", secret) })) }), `{"secretRecord":"[REDACTED]"}`},
		"map":     {record(func(r *dynamic) { r.put("secret_map", secret, secret) }), `{"secretMap":"[REDACTED]"}`},
		"wrapper": {record(func(r *dynamic) { r.set("secret_wrapper", wrapperspb.String(secret)) }), `{"secretWrapper":"[REDACTED]"}`},
		"any":     {record(func(r *dynamic) { r.set("secret_any", anyOf(wrapperspb.String(secret))) }), `{"secretAny":"[REDACTED]"}`},

		"annotated by an enum value":    {record(func(r *dynamic) { r.set("by_level", secret) }), `{"byLevel":"[REDACTED]"}`},
		"annotated by one in a message": {record(func(r *dynamic) { r.set("by_label", secret) }), `{"byLabel":"[REDACTED]"}`},
		"annotated by another value":    {record(func(r *dynamic) { r.set("by_public_level", "x") }), `{"byPublicLevel":"x"}`},
		"annotated by nobody knows":     {record(func(r *dynamic) { r.set("by_unknown", secret) }), `{"byUnknown":"[REDACTED]"}`},

		"annotated by a known option": {(&dynamic{dynamicpb.NewMessage(linked())}).set("open", "o").set("by_level", secret).set("by_label", secret), `{"open":"o","byLevel":"[REDACTED]","byLabel":"[REDACTED]"}`},

		"enum value":          {record(func(r *dynamic) { r.set("level", protoreflect.EnumNumber(1)) }), `{"level":"[REDACTED]"}`},
		"other enum value":    {record(func(r *dynamic) { r.set("level", protoreflect.EnumNumber(0)) }), `{"level":"PUBLIC"}`},
		"unknown enum value":  {record(func(r *dynamic) { r.set("level", protoreflect.EnumNumber(9)) }), `{"level":9}`},
		"enum values, listed": {record(func(r *dynamic) { r.add("levels", protoreflect.EnumNumber(0), protoreflect.EnumNumber(1)) }), `{"levels":["PUBLIC","[REDACTED]"]}`},
		"enum values, mapped": {
			record(func(r *dynamic) {
				r.put("level_map", "a", protoreflect.EnumNumber(1)).put("level_map", "b", protoreflect.EnumNumber(0))
			}),
			`{"levelMap":{"a":"[REDACTED]","b":"PUBLIC"}}`,
		},

		"nested":          {record(func(r *dynamic) { r.set("child", secretive()) }), `{"child":` + inner + `}`},
		"nested twice":    {record(func(r *dynamic) { r.set("child", record(func(r *dynamic) { r.set("child", secretive()) })) }), `{"child":{"child":` + inner + `}}`},
		"repeated":        {record(func(r *dynamic) { r.add("children", secretive(), secretive()) }), `{"children":[` + inner + `,` + inner + `]}`},
		"in a map":        {record(func(r *dynamic) { r.put("by_name", "k", secretive()) }), `{"byName":{"k":` + inner + `}}`},
		"in a group":      {record(func(r *dynamic) { knot(r, secret) }), `{"knot":{"open":"o","secret":"[REDACTED]"}}`},
		"in an any":       {record(func(r *dynamic) { r.set("any", anyOf(secretive())) }), `{"any":{"@type":"logtest.Record","open":"o","secret":"[REDACTED]"}}`},
		"in anys":         {record(func(r *dynamic) { r.add("anys", anyOf(anyOf(secretive()))) }), `{"anys":[{"@type":"google.protobuf.Any","value":{"@type":"logtest.Record","open":"o","secret":"[REDACTED]"}}]}`},
		"in a top any":    {anyOf(secretive()), `{"@type":"logtest.Record","open":"o","secret":"[REDACTED]"}`},
		"oneof":           {record(func(r *dynamic) { r.set("secret_one", secret) }), `{"secretOne":"[REDACTED]"}`},
		"in a oneof":      {record(func(r *dynamic) { r.set("record_one", secretive()) }), `{"recordOne":` + inner + `}`},
		"extension":       {record(func(r *dynamic) { r.extend("secret_extra", secret).extend("extra", "e") }), `{"[logtest.extra]":"e","[logtest.secret_extra]":"[REDACTED]"}`},
		"unknown any":     {&anypb.Any{TypeUrl: "x/no.such.Type", Value: []byte(secret)}, `{"@type":"no.such.Type","@value":"[15 bytes]"}`},
		"malformed any":   {&anypb.Any{TypeUrl: "x/logtest.Record", Value: []byte(secret)}, `{"@type":"logtest.Record","@value":"[15 bytes]"}`},
		"unknown field":   {unknownField(secretive(), secret), `{"open":"o","secret":"[REDACTED]","@unknown":"[18 bytes]"}`},
		"unknown wrapper": {unknownField(wrapperspb.Int32(1), secret), `{"value":1,"@unknown":"[18 bytes]"}`},
	}
}

func knot(r *dynamic, text string) {
	fd := r.field("knot")
	m := r.Mutable(fd).Message()
	m.Set(fd.Message().Fields().ByName("open"), protoreflect.ValueOfString("o"))
	m.Set(fd.Message().Fields().ByName("secret"), protoreflect.ValueOfString(text))
}

// unknownField adds a field that the schema does not have.
func unknownField(m proto.Message, text string) proto.Message {
	field := protowire.AppendTag(nil, 126, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendString(field, text))
	return m
}

// TestRedaction: what is secret is redacted, wherever it is, and only that.
func TestRedaction(t *testing.T) {
	t.Parallel()
	render := logging.Renderer()
	for name, tt := range corpus() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := encode(t, tt.msg)
			got, truncated := render(tt.msg, 1<<20)
			if got != tt.want || truncated {
				t.Errorf("got  %s, truncated %v\nwant %s", got, truncated, tt.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("no JSON: %s", got)
			}
			if !bytes.Equal(before, encode(t, tt.msg)) {
				t.Error("the message has changed")
			}
		})
	}
}

func encode(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return encoded
}

// TestRedactionModes: what stands for a secret.
func TestRedactionModes(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef")
	msg := record(func(r *dynamic) {
		r.set("open", "o").set("secret", secret).set("secret_bytes", []byte(secret)).set("secret_number", int64(7)).
			add("secrets", secret, "x").put("secret_map", secret, secret).
			add("levels", protoreflect.EnumNumber(0), protoreflect.EnumNumber(1), protoreflect.EnumNumber(0)).
			put("level_map", "a", protoreflect.EnumNumber(1)).put("level_map", "b", protoreflect.EnumNumber(0))
	})
	for name, tt := range map[string]struct {
		mode logging.Redaction
		want string
	}{
		"zero":   {logging.Redaction{}, `{"open":"o","secret":"[REDACTED]","secretBytes":"[REDACTED]","secretNumber":"[REDACTED]","secrets":"[REDACTED]","secretMap":"[REDACTED]","levels":["PUBLIC","[REDACTED]","PUBLIC"],"levelMap":{"a":"[REDACTED]","b":"PUBLIC"}}`},
		"mask":   {logging.Mask("***"), `{"open":"o","secret":"***","secretBytes":"***","secretNumber":"***","secrets":"***","secretMap":"***","levels":["PUBLIC","***","PUBLIC"],"levelMap":{"a":"***","b":"PUBLIC"}}`},
		"drop":   {logging.Drop(), `{"open":"o","levels":["PUBLIC","PUBLIC"],"levelMap":{"b":"PUBLIC"}}`},
		"length": {logging.Length(), `{"open":"o","secret":"[15 bytes]","secretBytes":"[15 bytes]","secretNumber":"[REDACTED]","secrets":"[2 elements]","secretMap":"[1 elements]","levels":["PUBLIC","[REDACTED]","PUBLIC"],"levelMap":{"a":"[REDACTED]","b":"PUBLIC"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, _ := logging.Renderer(logging.WithRedaction(tt.mode))(msg, 1<<20); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	t.Run("hash", func(t *testing.T) {
		t.Parallel()
		hash := func(key []byte, set func(*dynamic)) map[string]any {
			text, _ := logging.Renderer(logging.WithRedaction(logging.Hash(key)))(record(set), 1<<20)
			if leaks(text) {
				t.Errorf("the secret is in %s", text)
			}
			values := make(map[string]any)
			if err := json.Unmarshal([]byte(text), &values); err != nil {
				t.Fatal(err)
			}
			return values
		}
		all := hash(key, func(r *dynamic) {
			r.set("secret", secret).set("secret_bytes", []byte(secret)).set("secret_one", "other").add("secrets", "ab", "c").
				put("secret_map", "a", "1").put("secret_map", "b", "2").set("secret_wrapper", wrapperspb.String(secret)).
				set("level", protoreflect.EnumNumber(1)).set("secret_number", int64(1))
		})
		for name, value := range all {
			if text, _ := value.(string); !strings.HasPrefix(text, "hmac-sha256:") || len(text) != len("hmac-sha256:")+24 {
				t.Errorf("%s is %v", name, value)
			}
		}
		if all["secret"] != all["secretBytes"] || all["secret"] == all["secretOne"] {
			t.Errorf("equal values must have equal hashes, others not: %v", all)
		}
		again := hash(key, func(r *dynamic) {
			r.set("secret", secret).add("secrets", "a", "bc").put("secret_map", "b", "2").put("secret_map", "a", "1")
		})
		if again["secret"] != all["secret"] || again["secrets"] == all["secrets"] || again["secretMap"] != all["secretMap"] {
			t.Errorf("%v, and then %v", all, again)
		}
		other := hash([]byte("another key, 16+"), func(r *dynamic) { r.set("secret", secret) })
		if other["secret"] == all["secret"] {
			t.Error("the key does not matter")
		}
	})
}

// TestRedactIf: the user's own secrets.
func TestRedactIf(t *testing.T) {
	t.Parallel()
	render := logging.Renderer(logging.WithRedactIf(func(fd protoreflect.FieldDescriptor) bool {
		return fd.FullName() == "logtest.Record.open" || fd.FullName() == "logtest.Record.ByNameEntry.key" ||
			fd.FullName() == "google.protobuf.StringValue.value"
	}))
	msg := record(func(r *dynamic) {
		r.set("open", secret).put("by_name", secret, record(func(*dynamic) {})).set("wrapper", wrapperspb.String(secret)).set("one", "x")
	})
	const want = `{"open":"[REDACTED]","byName":"[REDACTED]","wrapper":{"value":"[REDACTED]"},"one":"x"}`
	if got, _ := render(msg, 1<<20); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// both is a text and a JSON handler.
type both struct{ text, json journal }

func (b *both) loggers() []*slog.Logger {
	all := &slog.HandlerOptions{Level: slog.LevelDebug - 100}
	return []*slog.Logger{slog.New(slog.NewTextHandler(&b.text, all)), slog.New(slog.NewJSONHandler(&b.json, all))}
}

// TestNoSecretIsLogged: with everything on, in payloads and in the details of errors,
// as text and as JSON, in every mode, and with messages given to Add. Messages are
// byte for byte what they were.
func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	modes := map[string]logging.Redaction{
		"mask": logging.Mask("***"), "drop": logging.Drop(), "length": logging.Length(), "hash": logging.Hash([]byte("0123456789abcdef")),
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for name, tt := range corpus() {
				var out both
				before := encode(t, tt.msg)
				for _, logger := range out.loggers() {
					i := logging.NewInterceptor(logger, append(everything(), logging.WithRedaction(mode))...)
					failure := connect.NewError(connect.CodeInternal, errors.New("failed"))
					detail, err := connect.NewErrorDetail(tt.msg)
					if err != nil {
						t.Fatal(err)
					}
					failure.AddDetail(detail)
					stream := streamwraptest.OpenStream(t.Context(), i, streamwraptest.NewClientConn(streamwraptest.Script{
						Receive: []streamwraptest.Step{streamwraptest.Message(tt.msg), streamwraptest.Fail(failure)},
					}))
					_ = stream.Send(tt.msg)
					_ = stream.Receive(tt.msg.ProtoReflect().New().Interface())
					_ = stream.Receive(tt.msg.ProtoReflect().New().Interface())
					serve := i.WrapStreamingHandler(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
						logging.Add(ctx, slog.Any("message", tt.msg))
						return conn.Send(tt.msg)
					})
					_ = serve(t.Context(), streamwraptest.NewHandlerConn(streamwraptest.Script{}))
				}
				for form, text := range map[string]string{"text": out.text.String(), "json": out.json.String()} {
					if leaks(text) {
						t.Errorf("%s: the secret is in the %s:\n%s", name, form, text)
					}
					if strings.Count(text, "\n") != 7 { // start, sent, received, end; start, sent, end
						t.Errorf("%s: %d records as %s:\n%s", name, strings.Count(text, "\n"), form, text)
					}
				}
				if !strings.Contains(out.json.String(), `"error.details":[{"@type":`) {
					t.Errorf("%s: no details: %s", name, &out.json)
				}
				if !bytes.Equal(before, encode(t, tt.msg)) {
					t.Errorf("%s: the message has changed", name)
				}
			}
		})
	}
}

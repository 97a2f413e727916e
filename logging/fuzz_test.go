package logging_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/interconnect-go/interconnect/logging"
)

// benign is what fields that are not secret hold.
const benign = "benign"

// generator makes schemas and messages up.
type generator struct {
	*rand.Rand

	planted int // how often benign is in the message where it may be seen
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// schema makes up a file of messages, of which the first is the one to send.
func (g *generator) schema() (protoreflect.FileDescriptor, error) {
	file := &descriptorpb.FileDescriptorProto{
		Name: new("fuzz.proto"), Package: new("fuzz"), Syntax: new("proto2"),
		Dependency: []string{"logtest.proto", "google/protobuf/any.proto"},
	}
	count := 1 + g.IntN(4)
	for i := range count {
		file.MessageType = append(file.MessageType, g.messageType(i, count))
	}
	files := new(protoregistry.Files)
	for _, imported := range []protoreflect.FileDescriptor{schema(), anypb.File_google_protobuf_any_proto} {
		if err := files.RegisterFile(imported); err != nil {
			return nil, err
		}
	}
	return protodesc.NewFile(file, files)
}

func (g *generator) messageType(index, count int) *descriptorpb.DescriptorProto {
	name := fmt.Sprintf("M%d", index)
	m := &descriptorpb.DescriptorProto{Name: &name}
	for n := range int32(1 + g.IntN(6)) {
		var opts []fieldOption
		switch g.IntN(8) {
		case 0, 1:
			opts = append(opts, debugRedact)
		case 2:
			opts = append(opts, annotated([]byte{0x80, 0xb5, 0x18, 1}))
		case 3:
			opts = append(opts, annotated([]byte{0x80, 0xb5, 0x18, 0})) // which is public
		}
		if g.chance(25) {
			opts = append(opts, repeated)
		}
		f := field(fmt.Sprintf("f%d", n), n+1, descriptorpb.FieldDescriptorProto_TYPE_STRING, "", opts...)
		switch g.IntN(6) {
		case 0:
			f.Type = descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum()
		case 1, 2:
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(fmt.Sprintf(".fuzz.M%d", g.IntN(count)))
		case 3:
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(".google.protobuf.Any")
		case 4:
			entry := g.entryType(fmt.Sprintf("F%dEntry", n), count)
			m.NestedType = append(m.NestedType, entry)
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(fmt.Sprintf(".fuzz.%s.%s", name, entry.GetName()))
		}
		m.Field = append(m.Field, f)
	}
	return m
}

func (g *generator) entryType(name string, count int) *descriptorpb.DescriptorProto {
	value := field("value", 2, descriptorpb.FieldDescriptorProto_TYPE_STRING, "")
	if g.chance(50) {
		value = field("value", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, fmt.Sprintf(".fuzz.M%d", g.IntN(count)))
	}
	return mapEntry(name, field("key", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""), value)
}

// isHidden is whether a field of such a schema is secret, found without the package
// under test.
func isHidden(fd protoreflect.FieldDescriptor) bool {
	options, _ := fd.Options().(*descriptorpb.FieldOptions)
	return options.GetDebugRedact() || bytes.Contains(options.ProtoReflect().GetUnknown(), []byte{0x80, 0xb5, 0x18, 1})
}

// fill makes up what is in a message. Below a secret field everything is secret.
func (g *generator) fill(m protoreflect.Message, hide bool, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if g.chance(20) {
			continue
		}
		hide := hide || isHidden(fd)
		switch {
		case fd.IsMap():
			for range g.IntN(3) {
				key := g.text(hide)
				key += strconv.Itoa(g.IntN(1000))
				k := protoreflect.ValueOfString(key).MapKey()
				if m.Mutable(fd).Map().Has(k) {
					continue
				}
				m.Mutable(fd).Map().Set(k, g.value(fd.MapValue(), m.Mutable(fd).Map().NewValue(), hide, depth))
				g.seen(hide)
			}
		case fd.IsList():
			for range g.IntN(3) {
				list := m.Mutable(fd).List()
				list.Append(g.value(fd, list.NewElement(), hide, depth))
			}
		default:
			m.Set(fd, g.value(fd, m.NewField(fd), hide, depth))
		}
	}
	if g.chance(10) {
		unknownField(m.Interface(), secret)
	}
}

func (g *generator) text(hide bool) string {
	if hide {
		return secret
	}
	return benign
}

// seen counts a text that may be seen.
func (g *generator) seen(hide bool) {
	if !hide {
		g.planted++
	}
}

func (g *generator) value(fd protoreflect.FieldDescriptor, empty protoreflect.Value, hide bool, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BytesKind:
		if !hide {
			return protoreflect.ValueOfBytes(nil)
		}
		return protoreflect.ValueOfBytes([]byte(secret))
	case protoreflect.StringKind:
		g.seen(hide)
		return protoreflect.ValueOfString(g.text(hide))
	}
	if m := empty.Message(); m.Descriptor().FullName() == "google.protobuf.Any" {
		g.fillAny(m, hide)
	} else if depth < 6 {
		g.fill(m, hide, depth+1)
	}
	return empty
}

// fillAny puts in a Record with a secret, or something that cannot be decoded.
func (g *generator) fillAny(m protoreflect.Message, hide bool) {
	encoded, name := []byte(secret), "fuzz.Unknown"
	if g.chance(70) {
		name = "logtest.Record"
		encoded, _ = proto.Marshal(record(func(r *dynamic) {
			r.set("open", g.text(hide)).set("secret", secret).set("child", record(func(r *dynamic) { r.set("by_level", secret) }))
		}))
		g.seen(hide)
	}
	fields := m.Descriptor().Fields()
	m.Set(fields.ByName("type_url"), protoreflect.ValueOfString("type.googleapis.com/"+name))
	m.Set(fields.ByName("value"), protoreflect.ValueOfBytes(encoded))
}

// FuzzRedaction makes up schemas, with secret fields of every kind wherever they can
// be, and messages, whose secret fields hold a secret: it is never rendered, in no mode
// and wherever the message is cut; all else is; and messages do not change.
func FuzzRedaction(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed, uint16(seed*37))
	}
	f.Fuzz(func(t *testing.T, seed uint64, limit uint16) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
		file, err := g.schema()
		if err != nil {
			t.Fatal(err)
		}
		m := dynamicpb.NewMessage(file.Messages().Get(0))
		g.fill(m, false, 0)
		before := encode(t, m)
		for _, mode := range []logging.Redaction{
			logging.Mask("***"), logging.Drop(), logging.Length(), logging.Hash([]byte("0123456789abcdef")),
		} {
			render := logging.Renderer(logging.WithRedaction(mode))
			for _, limit := range []int{int(limit), 1 << 20} {
				text, truncated := render(m, limit)
				if leaks(text) {
					t.Errorf("the secret is in %s", text)
				}
				if !json.Valid([]byte(text)) {
					t.Errorf("no JSON: %s", text)
				}
				if got := strings.Count(text, benign); limit == 1<<20 && !truncated && got != g.planted {
					t.Errorf("%d of what may be seen, want %d: %s", got, g.planted, text)
				}
			}
		}
		if !bytes.Equal(before, encode(t, m)) {
			t.Error("the message has changed")
		}
	})
}

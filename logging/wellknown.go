package logging

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// maxAny is how large a google.protobuf.Any may be that is looked into: what is in it
// has to be decoded first.
const maxAny = 64 << 10

// wellKnown writes messages that have a form of their own in JSON, and reports whether
// this was one. With a field that is unexpected, unknown or secret it is like any other.
func (w *renderer) wellKnown(m protoreflect.Message) bool {
	md := m.Descriptor()
	name, ok := strings.CutPrefix(string(md.FullName()), "google.protobuf.")
	if !ok || len(m.GetUnknown()) > 0 {
		return false
	}
	for _, f := range w.redactor.message(md) {
		if f.secret {
			return false
		}
	}
	switch name {
	case "DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value", "BoolValue",
		"StringValue", "BytesValue":
		return w.only(m, "value", false)
	case "ListValue":
		return w.only(m, "values", true)
	case "Struct":
		return w.only(m, "fields", true)
	case "Value":
		return w.dynamic(m)
	case "Any":
		return w.anyMessage(m)
	case "Timestamp":
		return w.timestamp(m)
	case "Duration":
		return w.duration(m)
	default:
		return false
	}
}

// only writes a message whose only field is all there is to it.
func (w *renderer) only(m protoreflect.Message, name protoreflect.Name, several bool) bool {
	fields := m.Descriptor().Fields()
	fd := fields.ByName(name)
	if fd == nil || fields.Len() != 1 || several != (fd.IsList() || fd.IsMap()) || fd.Kind() == protoreflect.EnumKind {
		return false
	}
	w.value(fd, m.Get(fd))
	return true
}

// dynamic writes a google.protobuf.Value.
func (w *renderer) dynamic(m protoreflect.Message) bool {
	oneofs := m.Descriptor().Oneofs()
	if oneofs.Len() != 1 || oneofs.Get(0).Fields().Len() != m.Descriptor().Fields().Len() {
		return false
	}
	fd := m.WhichOneof(oneofs.Get(0))
	switch {
	case fd == nil:
		w.out = append(w.out, "null"...)
	case w.secretValue(fd, m.Get(fd)):
		return false
	default:
		w.singular(fd, m.Get(fd))
	}
	return true
}

// anyMessage writes a google.protobuf.Any.
func (w *renderer) anyMessage(m protoreflect.Message) bool {
	fields := m.Descriptor().Fields()
	url, value := fields.ByName("type_url"), fields.ByName("value")
	if url == nil || value == nil || url.Kind() != protoreflect.StringKind || value.Kind() != protoreflect.BytesKind ||
		url.IsList() || value.IsList() || fields.Len() != 2 {
		return false
	}
	w.any(m.Get(url).String(), m.Get(value).Bytes())
	return true
}

// any writes what an encoded message of a type holds, or that it holds something.
func (w *renderer) any(url string, value []byte) {
	name := url[strings.LastIndexByte(url, '/')+1:]
	var o object
	w.out = append(w.out, '{')
	defer func() { w.out = append(w.out, '}') }()
	w.member(&o, `"@type":`)
	w.text(clip(name, maxHeader))
	if w.full() {
		return
	}
	if content, ok := decode(name, value); ok && w.depth < maxDepth {
		w.depth++
		defer func() { w.depth-- }()
		w.content(&o, content)
		return
	}
	w.member(&o, `"@value":`)
	w.text(bytesLong(len(value)))
}

// content writes the message in an Any: its members, or its value if it has a form of
// its own.
func (w *renderer) content(o *object, m protoreflect.Message) {
	if m.Descriptor().FullName().Parent() != "google.protobuf" {
		w.fields(o, m)
		return
	}
	w.member(o, `"value":`)
	w.message(m)
}

// decode decodes a message of a type that is linked in.
func decode(name string, value []byte) (protoreflect.Message, bool) {
	if len(value) > maxAny {
		return nil, false
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, false
	}
	m := mt.New()
	if (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(value, m.Interface()) != nil {
		return nil, false
	}
	return m, true
}

// timestamp writes a google.protobuf.Timestamp, unless it is out of range.
func (w *renderer) timestamp(m protoreflect.Message) bool {
	seconds, nanos, ok := instant(m)
	if !ok || seconds < -62135596800 || seconds > 253402300799 || nanos < 0 {
		return false
	}
	w.out = append(w.out, '"')
	w.out = time.Unix(seconds, nanos).UTC().AppendFormat(w.out, time.RFC3339Nano)
	w.out = append(w.out, '"')
	return true
}

// duration writes a google.protobuf.Duration, unless it is out of range.
func (w *renderer) duration(m protoreflect.Message) bool {
	seconds, nanos, ok := instant(m)
	if !ok || seconds < -1<<32 || seconds > 1<<32 || seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
		return false
	}
	d := time.Duration(seconds)*time.Second + time.Duration(nanos)
	w.out = append(w.out, '"')
	w.out = strconv.AppendFloat(w.out, d.Seconds(), 'f', -1, 64)
	w.out = append(w.out, 's', '"')
	return true
}

// instant returns the fields of a Timestamp or a Duration.
func instant(m protoreflect.Message) (seconds, nanos int64, ok bool) {
	fields := m.Descriptor().Fields()
	s, n := fields.ByName("seconds"), fields.ByName("nanos")
	if s == nil || n == nil || fields.Len() != 2 || s.Kind() != protoreflect.Int64Kind || n.Kind() != protoreflect.Int32Kind ||
		s.IsList() || n.IsList() {
		return 0, 0, false
	}
	seconds, nanos = m.Get(s).Int(), m.Get(n).Int()
	return seconds, nanos, nanos > -1e9 && nanos < 1e9
}

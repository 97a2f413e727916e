package logging

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// maxDepth is how deep messages may nest in each other in a record.
	maxDepth = 32

	// maxSorted is how many entries of a map are put in order, and written.
	maxSorted = 256
)

// rendered is a payload as JSON: structured in records that are JSON, a text in others.
type rendered string

// MarshalJSON implements [json.Marshaler].
func (r rendered) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// String returns the JSON.
func (r rendered) String() string { return string(r) }

var _ json.Marshaler = rendered("")

// renderer writes a message as JSON, as protobuf's JSON mapping has it, without what is
// to be redacted. It stops when it has written enough, and ends what it has begun: what
// it writes is always JSON.
type renderer struct {
	*redactor

	out       []byte
	limit     int
	depth     int
	truncated bool
}

// render returns a message as JSON of about limit bytes at most: brackets that close what
// is open come on top. A message that cannot be reflected upon is null.
func (r *redactor) render(m proto.Message, limit int) (text rendered, truncated bool) {
	defer func() {
		if recover() != nil {
			text, truncated = "null", false
		}
	}()
	w := renderer{redactor: r, limit: limit, out: make([]byte, 0, min(limit, 512))}
	w.message(m.ProtoReflect())
	return rendered(w.out), w.truncated
}

// renderDetails returns an error's details as a JSON array.
func (r *redactor) renderDetails(details []*connect.ErrorDetail) (text rendered) {
	defer func() {
		if recover() != nil {
			text = "null"
		}
	}()
	w := renderer{redactor: r, limit: defaultPayloadBytes}
	w.out = append(w.out, '[')
	for i, detail := range details[:min(len(details), maxDetails)] {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.any(detail.Type(), detail.Bytes())
		if w.full() {
			break
		}
	}
	return rendered(append(w.out, ']'))
}

// full reports whether there is no room left. Whoever asks has something to write.
func (w *renderer) full() bool {
	if len(w.out) >= w.limit {
		w.truncated = true
	}
	return w.truncated
}

// object is a JSON object that is being written.
type object struct{ begun bool }

// member begins a member; the name has quotes and colon.
func (w *renderer) member(o *object, name string) {
	if o.begun {
		w.out = append(w.out, ',')
	}
	o.begun = true
	w.out = append(w.out, name...)
}

func (w *renderer) message(m protoreflect.Message) {
	if !m.IsValid() {
		w.out = append(w.out, "null"...)
		return
	}
	if w.depth == maxDepth {
		w.truncated = true
		w.out = append(w.out, "null"...)
		return
	}
	w.depth++
	defer func() { w.depth-- }()
	if w.wellKnown(m) {
		return
	}
	var o object
	w.out = append(w.out, '{')
	w.fields(&o, m)
	w.out = append(w.out, '}')
}

// fields writes the members of a message.
func (w *renderer) fields(o *object, m protoreflect.Message) {
	md := m.Descriptor()
	plan := w.redactor.message(md)
	for i := range plan {
		if f := &plan[i]; m.Has(f.fd) && !w.field(o, f, m.Get(f.fd)) {
			return
		}
	}
	if md.ExtensionRanges().Len() > 0 && !w.extensions(o, m) {
		return
	}
	if n := len(m.GetUnknown()); n > 0 && !w.full() {
		w.member(o, `"@unknown":`)
		w.text(bytesLong(n))
	}
}

func (w *renderer) extensions(o *object, m protoreflect.Message) bool {
	var set []protoreflect.FieldDescriptor
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if fd.IsExtension() {
			set = append(set, fd)
		}
		return len(set) < maxSorted
	})
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	for _, fd := range set {
		plan := w.extension(fd)
		if !w.field(o, &plan, m.Get(fd)) {
			return false
		}
	}
	return true
}

// field writes a member. It reports false if there was no room for it.
func (w *renderer) field(o *object, f *fieldPlan, v protoreflect.Value) bool {
	if w.full() {
		return false
	}
	if !f.secret && !w.secretValue(f.fd, v) {
		w.member(o, f.name)
		w.value(f.fd, v)
		return true
	}
	if text, ok := w.mode.field(f.fd, v); ok {
		w.member(o, f.name)
		w.text(text)
	}
	return true
}

// secretValue reports whether a value is an enum's that is to be redacted.
func (w *renderer) secretValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	return fd.Kind() == protoreflect.EnumKind && !fd.IsList() && !fd.IsMap() && w.enum(fd.Enum())[v.Enum()]
}

func (w *renderer) value(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch {
	case fd.IsList():
		w.list(fd, v.List())
	case fd.IsMap():
		w.entries(fd, v.Map())
	default:
		w.singular(fd, v)
	}
}

func (w *renderer) list(fd protoreflect.FieldDescriptor, list protoreflect.List) {
	w.out = append(w.out, '[')
	begun := false
	for i := range list.Len() {
		if w.full() {
			break
		}
		v := list.Get(i)
		secret := w.secretElement(fd, v)
		if secret && w.mode.mode == dropMode {
			continue
		}
		if begun {
			w.out = append(w.out, ',')
		}
		begun = true
		w.element(fd, v, secret)
	}
	w.out = append(w.out, ']')
}

// secretElement is secretValue for an element of a list or a map.
func (w *renderer) secretElement(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	return fd.Kind() == protoreflect.EnumKind && w.enum(fd.Enum())[v.Enum()]
}

// element writes an element, or what stands for it.
func (w *renderer) element(fd protoreflect.FieldDescriptor, v protoreflect.Value, secret bool) {
	switch {
	case !secret:
		w.singular(fd, v)
	case w.mode.mode == hashMode:
		w.text(w.mode.hashOne(fd, v))
	default:
		w.text(w.mode.masked())
	}
}

func (w *renderer) entries(fd protoreflect.FieldDescriptor, m protoreflect.Map) {
	keys := make([]protoreflect.MapKey, 0, min(m.Len(), maxSorted))
	m.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		if len(keys) == maxSorted {
			return false
		}
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return compareKeys(fd.MapKey(), a, b) })
	var o object
	w.out = append(w.out, '{')
	for _, key := range keys {
		if w.full() {
			break
		}
		v := m.Get(key)
		secret := w.secretElement(fd.MapValue(), v)
		if secret && w.mode.mode == dropMode {
			continue
		}
		w.member(&o, "")
		w.text(key.String())
		w.out = append(w.out, ':')
		w.element(fd.MapValue(), v, secret)
	}
	if m.Len() > len(keys) {
		w.truncated = true
	}
	w.out = append(w.out, '}')
}

func compareKeys(fd protoreflect.FieldDescriptor, a, b protoreflect.MapKey) int {
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BoolKind:
		return cmp.Compare(a.String(), b.String())
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return cmp.Compare(a.Uint(), b.Uint())
	default:
		return cmp.Compare(a.Int(), b.Int())
	}
}

// singular writes a value that is no list and no map.
func (w *renderer) singular(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		w.out = strconv.AppendBool(w.out, v.Bool())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		w.out = strconv.AppendInt(w.out, v.Int(), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		w.out = strconv.AppendUint(w.out, v.Uint(), 10)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		w.out = append(strconv.AppendInt(append(w.out, '"'), v.Int(), 10), '"')
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		w.out = append(strconv.AppendUint(append(w.out, '"'), v.Uint(), 10), '"')
	case protoreflect.FloatKind:
		w.number(v.Float(), 32)
	case protoreflect.DoubleKind:
		w.number(v.Float(), 64)
	case protoreflect.StringKind:
		w.text(v.String())
	case protoreflect.BytesKind:
		w.bytes(v.Bytes())
	case protoreflect.EnumKind:
		w.enumValue(fd.Enum(), v.Enum())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		w.message(v.Message())
	}
}

func (w *renderer) number(f float64, bits int) {
	switch {
	case math.IsNaN(f):
		w.out = append(w.out, `"NaN"`...)
	case math.IsInf(f, 1):
		w.out = append(w.out, `"Infinity"`...)
	case math.IsInf(f, -1):
		w.out = append(w.out, `"-Infinity"`...)
	default:
		w.out = strconv.AppendFloat(w.out, f, 'g', -1, bits)
	}
}

func (w *renderer) enumValue(ed protoreflect.EnumDescriptor, n protoreflect.EnumNumber) {
	switch value := ed.Values().ByNumber(n); {
	case ed.FullName() == "google.protobuf.NullValue":
		w.out = append(w.out, "null"...)
	case value != nil:
		w.text(string(value.Name()))
	default:
		w.out = strconv.AppendInt(w.out, int64(n), 10)
	}
}

// bytes writes base64, as far as there is room.
func (w *renderer) bytes(b []byte) {
	room := max(w.limit-len(w.out), 0) / 4 * 3
	if len(b) > room {
		b, w.truncated = b[:room], true
	}
	w.out = append(w.out, '"')
	w.out = base64.StdEncoding.AppendEncode(w.out, b)
	w.out = append(w.out, '"')
}

// text writes a JSON string, as far as there is room.
func (w *renderer) text(s string) {
	w.out = append(w.out, '"')
	for len(s) > 0 {
		if len(w.out) >= w.limit {
			w.truncated = true
			w.out = append(w.out, "…"...)
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		w.out = appendRune(w.out, r, s[:size])
		s = s[size:]
	}
	w.out = append(w.out, '"')
}

func appendRune(out []byte, r rune, s string) []byte {
	const hexDigits = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(out, '\\', byte(r))
	case r == '\n':
		return append(out, '\\', 'n')
	case r == '\t':
		return append(out, '\\', 't')
	case r < ' ' || r == 0x7f:
		return append(out, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
	case r == utf8.RuneError && len(s) == 1:
		return append(out, `\ufffd`...)
	default:
		return append(out, s...)
	}
}

package logging

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	masked = "[REDACTED]"

	// maxHashed is how large a message may be whose hash is told: it is marshaled.
	maxHashed = 64 << 10

	// hashBytes is how much of a hash is told: enough to compare by.
	hashBytes = 12
)

// Redaction is what records have in the place of a value that they must not have. The
// zero value is Mask("[REDACTED]").
type Redaction struct {
	mode redactionMode
	mask string
	key  []byte
}

type redactionMode uint8

const (
	maskMode redactionMode = iota
	dropMode
	lengthMode
	hashMode
)

// Mask returns the redaction to a fixed text.
func Mask(text string) Redaction { return Redaction{mask: text} }

// Drop returns the redaction that leaves the field out.
func Drop() Redaction { return Redaction{mode: dropMode} }

// Length returns the redaction to the length: of texts and bytes in bytes, of lists and
// maps in elements. Of numbers and the like, whose length would tell their size, nothing
// is told.
func Length() Redaction { return Redaction{mode: lengthMode} }

// Hash returns the redaction to a keyed hash, HMAC-SHA256, by which equal values are
// found without being told. Whoever has the key can guess values of which there are few:
// keep it as secret as they are. It panics if the key is shorter than 16 bytes.
func Hash(key []byte) Redaction {
	if len(key) < 16 {
		panic("logging: Hash: key is shorter than 16 bytes")
	}
	return Redaction{mode: hashMode, key: slices.Clone(key)}
}

// WithRedaction sets what records have in the place of fields of payloads that are to be
// redacted, of headers with secrets and of error texts ([RedactedText]). By default it
// is Mask("[REDACTED]").
func WithRedaction(r Redaction) Option {
	return option(func(c *config) { c.redactor.mode = r })
}

// WithRedactIf redacts fields of payloads for which a function says so, besides those
// that their schema marks. It is asked once for each field and must be safe for
// concurrent use. By default only the schema counts.
func WithRedactIf(secret func(protoreflect.FieldDescriptor) bool) Option {
	if secret == nil {
		panic("logging: WithRedactIf: nil function")
	}
	return option(func(c *config) { c.redactor.secret = secret })
}

// text returns what stands for a text; false for nothing.
func (r Redaction) text(text string) (_ string, ok bool) {
	switch r.mode {
	case dropMode:
		return "", false
	case lengthMode:
		return bytesLong(len(text)), true
	case hashMode:
		return r.digest(func(h hash.Hash) { _, _ = h.Write([]byte(text)) }), true
	default:
		return r.masked(), true
	}
}

func (r Redaction) masked() string {
	if r.mask == "" {
		return masked
	}
	return r.mask
}

// field returns what stands for the value of a field, which may be a list or a map;
// false for nothing.
func (r Redaction) field(fd protoreflect.FieldDescriptor, v protoreflect.Value) (_ string, ok bool) {
	switch r.mode {
	case dropMode:
		return "", false
	case lengthMode:
		return r.length(fd, v), true
	case hashMode:
		return r.hash(fd, v), true
	default:
		return r.masked(), true
	}
}

func (r Redaction) length(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case fd.IsList():
		return elementsLong(v.List().Len())
	case fd.IsMap():
		return elementsLong(v.Map().Len())
	case fd.Kind() == protoreflect.StringKind:
		return bytesLong(len(v.String()))
	case fd.Kind() == protoreflect.BytesKind:
		return bytesLong(len(v.Bytes()))
	default:
		return r.masked()
	}
}

func bytesLong(n int) string    { return "[" + strconv.Itoa(n) + " bytes]" }
func elementsLong(n int) string { return "[" + strconv.Itoa(n) + " elements]" }

// hash returns the hash of a value. Equal values have equal ones, whatever field they
// are in. Maps have no order: the hash of one is made of those of its entries.
func (r Redaction) hash(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	whole := true
	text := r.digest(func(h hash.Hash) {
		switch {
		case fd.IsList():
			list := v.List()
			for i := range list.Len() {
				whole = r.hashElement(h, fd, list.Get(i)) && whole
			}
		case fd.IsMap():
			var sum [sha256.Size]byte
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				entry := hmac.New(sha256.New, r.key)
				whole = r.hashElement(entry, fd.MapKey(), k.Value()) && whole
				whole = r.hashElement(entry, fd.MapValue(), v) && whole
				for i, b := range entry.Sum(nil) {
					sum[i] ^= b
				}
				return true
			})
			_, _ = h.Write(sum[:])
		default:
			whole = hashValue(h, fd, v)
		}
	})
	if !whole {
		return r.masked()
	}
	return text
}

// hashOne returns the hash of an element of a list or a map.
func (r Redaction) hashOne(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	return r.digest(func(h hash.Hash) { hashValue(h, fd, v) })
}

// hashElement hashes one of several values, whose hashes must not depend on where one
// ends and the next begins.
func (r Redaction) hashElement(h hash.Hash, fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	element := hmac.New(sha256.New, r.key)
	whole := hashValue(element, fd, v)
	_, _ = h.Write(element.Sum(nil))
	return whole
}

// hashValue hashes a value that is no list and no map. It reports false if that is
// too large.
func hashValue(h hash.Hash, fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	switch fd.Kind() {
	case protoreflect.StringKind:
		_, _ = h.Write([]byte(v.String()))
	case protoreflect.BytesKind:
		_, _ = h.Write(v.Bytes())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		m := v.Message().Interface()
		if proto.Size(m) > maxHashed {
			return false
		}
		encoded, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(m)
		if err != nil {
			return false
		}
		_, _ = h.Write(encoded)
	default:
		var number [8]byte
		binary.LittleEndian.PutUint64(number[:], numberOf(v))
		_, _ = h.Write(number[:])
	}
	return true
}

// numberOf returns the bits of a number, a boolean or an enum value.
func numberOf(v protoreflect.Value) uint64 {
	switch n := v.Interface().(type) {
	case bool:
		if n {
			return 1
		}
		return 0
	case protoreflect.EnumNumber:
		return uint64(n) //nolint:gosec // they are hashed: only its bits count
	case int32:
		return uint64(n) //nolint:gosec // they are hashed: only its bits count
	case int64:
		return uint64(n) //nolint:gosec // they are hashed: only its bits count
	case uint32:
		return uint64(n)
	case uint64:
		return n
	case float32:
		return math.Float64bits(float64(n))
	case float64:
		return math.Float64bits(n)
	default:
		return 0
	}
}

func (r Redaction) digest(write func(hash.Hash)) string {
	h := hmac.New(sha256.New, r.key)
	write(h)
	return "hmac-sha256:" + hex.EncodeToString(h.Sum(nil)[:hashBytes])
}

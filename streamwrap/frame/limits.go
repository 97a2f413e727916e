package frame

import "fmt"

const (
	// DefaultMaxBytes is the default of [Limits.MaxBytes].
	DefaultMaxBytes = 64 << 10
	// DefaultMaxKeys is the default of [Limits.MaxKeys].
	DefaultMaxKeys = 256
)

// Limits bounds what [ParseEndStream] and [ParseTrailers] accept. What they
// return takes memory in proportion to the size of the payload, up to about
// thirty times as much where it is made of tiny fields.
type Limits struct {
	// MaxBytes is the largest payload in bytes, after decompression. By
	// default, and if not positive, it is 64 KiB.
	MaxBytes int

	// MaxKeys is the largest number of different metadata keys. By default,
	// and if not positive, it is 256.
	MaxKeys int
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.MaxKeys <= 0 {
		l.MaxKeys = DefaultMaxKeys
	}
	return l
}

func (l Limits) checkSize(payload []byte) error {
	if len(payload) <= l.MaxBytes {
		return nil
	}
	return &Error{
		Kind:   ErrTooLarge,
		Offset: int64(l.MaxBytes),
		Detail: fmt.Sprintf("payload of %d bytes exceeds %d", len(payload), l.MaxBytes),
	}
}

func (l Limits) errKeys(offset int) error {
	return &Error{
		Kind:   ErrTooManyKeys,
		Offset: int64(offset),
		Detail: fmt.Sprintf("more than %d", l.MaxKeys),
	}
}

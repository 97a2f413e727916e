package frame

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
)

// EndStream is the message that ends a Connect stream: the result and the
// trailers. On the wire it is JSON, the payload of a frame with
// [FlagEndStream].
type EndStream struct {
	// Error is the stream's error; nil for success.
	Error *EndError

	// Metadata are the trailers, with keys in the canonical form of HTTP
	// headers when they were parsed. Values of keys that end in "-Bin" are
	// base64 text.
	Metadata map[string][]string
}

// EndError is the error of a stream as it travels.
type EndError struct {
	// Code is the name of a code, such as "not_found". It is not checked;
	// receivers take one that they do not know for "unknown".
	Code string

	Message string
	Details []Detail
}

// Detail is a message attached to an error.
type Detail struct {
	// Type is the full name of the message's type, such as
	// "google.rpc.RetryInfo".
	Type string

	// Value is the message in Protobuf's binary format.
	Value []byte

	// Debug is an optional JSON form of the message, for people.
	Debug json.RawMessage
}

type (
	wireEndStream struct {
		Error    *wireEndError       `json:"error,omitempty"`
		Metadata map[string][]string `json:"metadata,omitempty"`
	}
	wireEndError struct {
		Code    string       `json:"code"`
		Message string       `json:"message,omitempty"`
		Details []wireDetail `json:"details,omitempty"`
	}
	wireDetail struct {
		Type  string          `json:"type"`
		Value string          `json:"value"`
		Debug json.RawMessage `json:"debug,omitempty"`
	}
)

// Append appends the message as compact JSON to dst, metadata sorted by key and
// values as unpadded base64. It cannot fail: keys without values and a Debug
// that is not JSON are left out, and what is not UTF-8 is replaced. [Append]
// makes a frame of it.
func (e *EndStream) Append(dst []byte) []byte {
	wire := wireEndStream{Metadata: make(map[string][]string, len(e.Metadata))}
	for key, values := range e.Metadata {
		if len(values) > 0 {
			wire.Metadata[key] = values
		}
	}
	if e.Error != nil {
		wire.Error = e.Error.wire()
	}
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)    // Debug stays as it is
	_ = enc.Encode(wire)        // strings, and JSON that was checked
	buf.Truncate(buf.Len() - 1) // the newline
	return buf.Bytes()
}

func (e *EndError) wire() *wireEndError {
	w := &wireEndError{Code: e.Code, Message: e.Message}
	for _, d := range e.Details {
		detail := wireDetail{
			Type:  d.Type,
			Value: base64.RawStdEncoding.EncodeToString(d.Value),
		}
		if json.Valid(d.Debug) {
			detail.Debug = d.Debug
		}
		w.Details = append(w.Details, detail)
	}
	return w
}

package frame

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
)

// ParseEndStream parses the message that ends a Connect stream. It keeps
// nothing of payload, which must have been decompressed.
//
// It accepts what connect-go accepts: names in any case, unknown names, null for
// anything, base64 with or without padding. Metadata keys get the canonical
// form of HTTP headers; those that then are the same are merged, and those
// without values left out. The error is an [*Error] of the kind [ErrEndStream],
// [ErrTooLarge] or [ErrTooManyKeys].
func ParseEndStream(payload []byte, limits Limits) (*EndStream, error) {
	limits = limits.withDefaults()
	if err := limits.checkSize(payload); err != nil {
		return nil, err
	}
	if err := checkJSON(payload); err != nil {
		return nil, err
	}
	p := &endStreamParser{data: payload, dec: json.NewDecoder(bytes.NewReader(payload)), limits: limits}
	p.dec.UseNumber() // a number that is out of range may hide in unknown fields
	end := new(EndStream)
	err := p.endStream(end)
	if err == nil {
		return end, nil
	}
	if !errors.As(err, new(*Error)) { // from the decoder, for JSON that was checked: never seen
		err = errEndStream(p.position(), err.Error())
	}
	return nil, err
}

// checkJSON finds the first byte at which data is not one JSON value.
func checkJSON(data []byte) error {
	var raw json.RawMessage
	err := json.Unmarshal(data, &raw)
	if err == nil {
		return nil
	}
	at := len(data)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && syntax.Error() != "unexpected end of JSON input" {
		at = int(min(max(syntax.Offset-1, 0), int64(len(data))))
	}
	return &Error{Kind: ErrEndStream, Offset: int64(at), Detail: err.Error()}
}

// endStreamParser walks through JSON that is well-formed.
type endStreamParser struct {
	data   []byte
	dec    *json.Decoder
	limits Limits
}

func (p *endStreamParser) endStream(end *EndStream) error {
	return p.object("message", func(name string, _ int) error {
		switch {
		case strings.EqualFold(name, "error"):
			end.Error = nil
			if p.null() {
				return p.skip()
			}
			end.Error = new(EndError)
			return p.endError(end.Error)
		case strings.EqualFold(name, "metadata"):
			return p.object("metadata", func(key string, at int) error {
				return p.metadata(end, key, at)
			})
		default:
			return p.skip()
		}
	})
}

func (p *endStreamParser) metadata(end *EndStream, key string, at int) error {
	key = textproto.CanonicalMIMEHeaderKey(key)
	values := end.Metadata[key]
	err := p.array("metadata value", func() error {
		value, err := p.text("metadata value")
		values = append(values, value)
		return err
	})
	if err != nil || len(values) == 0 {
		return err
	}
	if end.Metadata == nil {
		end.Metadata = make(map[string][]string)
	}
	end.Metadata[key] = values
	if len(end.Metadata) > p.limits.MaxKeys {
		return p.limits.errKeys(at)
	}
	return nil
}

func (p *endStreamParser) endError(e *EndError) error {
	return p.object("error", func(name string, _ int) (err error) {
		switch {
		case strings.EqualFold(name, "code"):
			e.Code, err = p.text("code")
		case strings.EqualFold(name, "message"):
			e.Message, err = p.text("message")
		case strings.EqualFold(name, "details"):
			e.Details = nil
			err = p.array("details", func() error {
				var d Detail
				err := p.detail(&d)
				e.Details = append(e.Details, d)
				return err
			})
		default:
			err = p.skip()
		}
		return err
	})
}

func (p *endStreamParser) detail(d *Detail) error {
	return p.object("detail", func(name string, _ int) (err error) {
		switch {
		case strings.EqualFold(name, "type"):
			d.Type, err = p.text("type")
		case strings.EqualFold(name, "value"):
			d.Value, err = p.base64("value")
		case strings.EqualFold(name, "debug"):
			err = p.dec.Decode(&d.Debug)
		default:
			err = p.skip()
		}
		return err
	})
}

// object walks through an object, or null. The function takes the value.
func (p *endStreamParser) object(what string, field func(name string, at int) error) error {
	if open, err := p.enter(what, "an object", '{'); err != nil || !open {
		return err
	}
	for p.dec.More() {
		at := p.position()
		name, err := p.text("name")
		if err == nil {
			err = field(name, at)
		}
		if err != nil {
			return err
		}
	}
	_, err := p.dec.Token()
	return err
}

// array walks through an array, or null. The function takes one element.
func (p *endStreamParser) array(what string, element func() error) error {
	if open, err := p.enter(what, "an array", '['); err != nil || !open {
		return err
	}
	for p.dec.More() {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := p.dec.Token()
	return err
}

func (p *endStreamParser) enter(what, kind string, delim json.Delim) (bool, error) {
	at := p.position()
	switch token, err := p.dec.Token(); token {
	case nil:
		return false, err
	case delim:
		return true, nil
	}
	return false, errEndStream(at, what+" is not "+kind)
}

// text takes a string, or null.
func (p *endStreamParser) text(what string) (string, error) {
	at := p.position()
	switch token, err := p.dec.Token(); token := token.(type) {
	case nil:
		return "", err
	case string:
		return token, nil
	}
	return "", errEndStream(at, what+" is not a string")
}

// base64 takes a string of base64, padded or not.
func (p *endStreamParser) base64(what string) ([]byte, error) {
	at := p.position()
	s, err := p.text(what)
	if err != nil {
		return nil, err
	}
	encoding := base64.StdEncoding
	if len(s)%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	value, err := encoding.DecodeString(s)
	if err != nil {
		return nil, errEndStream(at, fmt.Sprintf("%s: %v", what, err))
	}
	return value, nil
}

func (p *endStreamParser) null() bool { return p.data[p.position()] == 'n' }

func (p *endStreamParser) skip() error {
	var raw json.RawMessage
	return p.dec.Decode(&raw)
}

// position returns where the next token begins.
func (p *endStreamParser) position() int {
	at := int(p.dec.InputOffset())
	for at < len(p.data) && strings.IndexByte(" \t\r\n,:", p.data[at]) >= 0 {
		at++
	}
	return at
}

func errEndStream(at int, detail string) error {
	return &Error{Kind: ErrEndStream, Offset: int64(at), Detail: detail}
}

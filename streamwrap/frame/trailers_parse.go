package frame

import (
	"bytes"
	"net/textproto"
)

// ParseTrailers parses the block that ends a gRPC-Web stream. It keeps nothing
// of block, which must have been decompressed.
//
// It accepts what connect-go accepts: keys in any case, lines that end in a bare
// LF, a blank line at the end, and values that go on in lines that begin with a
// space. But a key must not have spaces, and nothing may follow the blank line.
// The error is an [*Error] of the kind [ErrTrailers], [ErrTooLarge] or
// [ErrTooManyKeys].
func ParseTrailers(block []byte, limits Limits) (Trailers, error) {
	limits = limits.withDefaults()
	if err := limits.checkSize(block); err != nil {
		return nil, err
	}
	p := &trailersParser{trailers: make(Trailers), limits: limits}
	for at := 0; at < len(block); {
		line, next, ended := cutLine(block, at)
		if len(line) == 0 {
			if next < len(block) {
				return nil, errTrailers(next, "data after the blank line")
			}
			break
		}
		if err := p.line(line, at); err != nil {
			return nil, err
		}
		if !ended {
			return nil, errTrailers(len(block), "last line has no end")
		}
		at = next
	}
	if err := p.flush(); err != nil {
		return nil, err
	}
	return p.trailers, nil
}

// trailersParser collects fields, which may be several lines long.
type trailersParser struct {
	trailers Trailers
	limits   Limits

	key   string // of the field that may go on; empty before the first
	at    int    // its offset
	value []byte
}

// line takes the line at an offset, without its end.
func (p *trailersParser) line(line []byte, at int) error {
	if line[0] == ' ' || line[0] == '\t' {
		if p.key == "" {
			return errTrailers(at, "first line begins with a space")
		}
		p.value = append(p.value, ' ')
		return p.append(line, at)
	}
	if err := p.flush(); err != nil {
		return err
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return errTrailers(at, "line without a colon")
	}
	if !isToken(line[:colon]) {
		return errTrailers(at, "key is not a token")
	}
	p.key, p.at = textproto.CanonicalMIMEHeaderKey(string(line[:colon])), at
	return p.append(line[colon+1:], at+colon+1)
}

// append adds a part of a value, which begins at an offset.
func (p *trailersParser) append(part []byte, at int) error {
	for i, c := range part {
		if !isValueByte(c) {
			return errTrailers(at+i, "value has a control character")
		}
	}
	p.value = append(p.value, bytes.Trim(part, " \t")...)
	return nil
}

// flush is the end of a field.
func (p *trailersParser) flush() error {
	if p.key == "" {
		return nil
	}
	p.trailers[p.key] = append(p.trailers[p.key], string(bytes.Trim(p.value, " \t")))
	p.value = p.value[:0]
	if len(p.trailers) > p.limits.MaxKeys {
		return p.limits.errKeys(p.at)
	}
	return nil
}

// cutLine returns the line that begins at an offset, without its LF or CRLF,
// the offset of the next one, and whether there was an LF.
func cutLine(block []byte, at int) (line []byte, next int, ended bool) {
	line, _, ended = bytes.Cut(block[at:], []byte{'\n'})
	next = at + len(line)
	if ended {
		next++
	}
	return bytes.TrimSuffix(line, []byte{'\r'}), next, ended
}

func errTrailers(at int, detail string) error {
	return &Error{Kind: ErrTrailers, Offset: int64(at), Detail: detail}
}

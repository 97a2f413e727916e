package auth

import (
	"bytes"
	"hash/maphash"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxNesting is how deep objects and arrays may be, the outermost included.
	maxNesting = 16
	// maxMembers is how many members the outermost object may have.
	maxMembers = 256
	// maxNameBytes is how long a name with escapes can be without an allocation.
	maxNameBytes = 64
)

// jsonText is JSON, as RFC 8259 has it, that is passed over from its begin to its end.
// It allocates nothing.
type jsonText struct {
	data []byte
	at   int
}

// take passes a byte if it comes next, after white space.
func (t *jsonText) take(c byte) bool {
	t.space()
	return t.pass(c)
}

func (t *jsonText) space() {
	for t.at < len(t.data) {
		switch t.data[t.at] {
		case ' ', '\t', '\n', '\r':
			t.at++
		default:
			return
		}
	}
}

// pass passes a byte if it comes next.
func (t *jsonText) pass(c byte) bool {
	if t.at < len(t.data) && t.data[t.at] == c {
		t.at++
		return true
	}
	return false
}

// value passes a value, which it returns; nil if there is none, or one that nests deeper
// than depth.
func (t *jsonText) value(depth int) []byte {
	t.space()
	begin := t.at
	if begin == len(t.data) {
		return nil
	}
	ok := false
	switch t.data[begin] {
	case '"':
		ok = t.text()
	case '{':
		ok = t.nested('}', depth)
	case '[':
		ok = t.nested(']', depth)
	case 't':
		ok = t.word("true")
	case 'f':
		ok = t.word("false")
	case 'n':
		ok = t.word("null")
	default:
		ok = t.number()
	}
	if !ok {
		return nil
	}
	return t.data[begin:t.at]
}

// nested passes an object or an array.
func (t *jsonText) nested(end byte, depth int) bool {
	t.at++
	if depth == 0 {
		return false
	}
	if t.take(end) {
		return true
	}
	for {
		if end == '}' && !t.name() || t.value(depth-1) == nil {
			return false
		}
		if !t.take(',') {
			return t.take(end)
		}
	}
}

// name passes a member's name and its colon.
func (t *jsonText) name() bool {
	t.space()
	return t.text() && t.take(':')
}

// text passes a string.
func (t *jsonText) text() bool {
	if !t.pass('"') {
		return false
	}
	for t.at < len(t.data) {
		switch c := t.data[t.at]; {
		case c == '"':
			t.at++
			return true
		case c < ' ':
			return false
		case c == '\\':
			if !t.escape() {
				return false
			}
		default:
			t.at++
		}
	}
	return false
}

// escape passes an escape in a string.
func (t *jsonText) escape() bool {
	t.at++
	if t.at == len(t.data) {
		return false
	}
	c := t.data[t.at]
	t.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
	default:
		return false
	}
	if len(t.data)-t.at < 4 {
		return false
	}
	for _, digit := range t.data[t.at : t.at+4] {
		if !isHex(digit) {
			return false
		}
	}
	t.at += 4
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// number passes a number.
func (t *jsonText) number() bool {
	t.pass('-')
	if !t.pass('0') && !t.digits() {
		return false
	}
	if t.pass('.') && !t.digits() {
		return false
	}
	if !t.pass('e') && !t.pass('E') {
		return true
	}
	if !t.pass('+') {
		t.pass('-')
	}
	return t.digits()
}

func (t *jsonText) digits() bool {
	begin := t.at
	for t.at < len(t.data) && '0' <= t.data[t.at] && t.data[t.at] <= '9' {
		t.at++
	}
	return t.at > begin
}

func (t *jsonText) word(word string) bool {
	if !bytes.HasPrefix(t.data[t.at:], []byte(word)) {
		return false
	}
	t.at += len(word)
	return true
}

// members are those of a JSON object. They end early if it is none, is not UTF-8, has a
// name twice, nests too deep, has too many members, or if something follows it.
type members struct {
	jsonText

	n     int
	whole bool // they have ended, not early

	// Of names that were seen there is a hash: of 2⁴⁹ tokens that have as many members
	// as they may one is refused that has none twice.
	seen [maxMembers]uint64
}

var nameSeed = maphash.MakeSeed() //nolint:gochecknoglobals // made once, lest somebody makes names with equal hashes

// next returns the next member: its name, without escapes, and its value as it stands.
// Names with escapes are put into scratch.
func (m *members) next(scratch []byte) (name, value []byte, ok bool) {
	switch {
	case m.n == 0:
		if !utf8.Valid(m.data) || !m.take('{') {
			return nil, nil, false
		}
		if m.take('}') {
			m.end()
			return nil, nil, false
		}
	case !m.take(','):
		if m.take('}') {
			m.end()
		}
		return nil, nil, false
	}
	m.space()
	begin := m.at
	if m.n == maxMembers || !m.text() {
		return nil, nil, false
	}
	name = unescape(scratch, m.data[begin+1:m.at-1])
	if !m.take(':') {
		return nil, nil, false
	}
	value = m.value(maxNesting - 1)
	return name, value, value != nil && m.first(name)
}

func (m *members) end() {
	m.space()
	m.whole = m.at == len(m.data)
}

// first reports whether a name was not seen before.
func (m *members) first(name []byte) bool {
	hash := maphash.Bytes(nameSeed, name)
	for _, other := range m.seen[:m.n] {
		if other == hash {
			return false
		}
	}
	m.seen[m.n] = hash
	m.n++
	return true
}

// textOf appends to dst what a JSON string says; false for other values, and for one
// that is no text: of escapes that are half a character all become the same one.
func textOf(dst, value []byte) (text []byte, ok bool) {
	if len(value) == 0 || value[0] != '"' {
		return nil, false
	}
	text = unescape(dst, value[1:len(value)-1])
	return text, !bytes.Contains(text, []byte("\ufffd"))
}

// unescape returns what is between the quotes of a string: as it stands if it has no
// escapes, otherwise appended to dst, which may be its own begin.
func unescape(dst, text []byte) []byte {
	next := bytes.IndexByte(text, '\\')
	if next < 0 {
		return text
	}
	for ; next >= 0; next = bytes.IndexByte(text, '\\') {
		dst = append(dst, text[:next]...)
		c := text[next+1]
		text = text[next+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := hexRune(text)
			text = text[4:]
			if utf16.IsSurrogate(r) {
				second := rune(utf8.RuneError)
				if bytes.HasPrefix(text, []byte(`\u`)) {
					second = hexRune(text[2:])
				}
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					text = text[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
	}
	return append(dst, text...)
}

// hexRune returns what the four digits of an escape say.
func hexRune(text []byte) rune {
	n, _ := strconv.ParseUint(string(text[:4]), 16, 16) // they were checked
	return rune(n)
}

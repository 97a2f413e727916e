package logging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
)

const (
	// maxText is how much of a text of an error, a panic or a header a record has.
	maxText = 1 << 10

	// maxDetails is how many of an error's details a record has.
	maxDetails = 8
)

// ErrorText is how much of an error's text records have.
type ErrorText uint8

const (
	// FullText is the whole text, up to 1 KiB, and the error's details, redacted as
	// payloads are.
	FullText ErrorText = iota
	// CodeOnly is nothing but the code.
	CodeOnly
	// RedactedText is the text after the redaction of [WithRedaction]; its length, say.
	RedactedText
)

// WithErrorText sets how much of an error's text records have. What is in the texts of
// a handler's errors is the handler's choice: redaction does not look into them. By
// default it is [FullText].
func WithErrorText(mode ErrorText) Option {
	if mode > RedactedText {
		panic("logging: WithErrorText: unknown mode")
	}
	return option(func(c *config) { c.errors = mode })
}

func errorOf(err error) (*connect.Error, bool) {
	return errors.AsType[*connect.Error](err)
}

// appendError appends the error's text and details.
func (r *recorder) appendError(attrs []slog.Attr, err error) []slog.Attr {
	failed, coded := errorOf(err)
	text := textOf(err.Error)
	if coded {
		text = textOf(failed.Message)
	}
	switch r.errors {
	case CodeOnly:
		return attrs
	case RedactedText:
		if text, ok := r.redactor.mode.text(text); ok {
			attrs = append(attrs, slog.String(r.names.errorText, text))
		}
		return attrs
	}
	attrs = append(attrs, slog.String(r.names.errorText, clip(text, maxText)))
	if coded && len(failed.Details()) > 0 {
		attrs = append(attrs, slog.Any("error.details", r.redactor.renderDetails(failed.Details())))
	}
	return attrs
}

// isPlain reports whether an error is a context's own, and says no more than the
// outcome does.
func isPlain(err error) bool {
	return err == context.Canceled || err == context.DeadlineExceeded //nolint:errorlint // only the bare errors: a wrapped one has more to say
}

// panicText returns what a handler panicked with.
func panicText(p any) string {
	switch p := p.(type) {
	case nil:
		return "runtime.Goexit"
	case error:
		return textOf(p.Error)
	case string:
		return p
	default:
		return fmt.Sprintf("%T", p) // it may be anything, with anything in it
	}
}

// textOf returns a text that somebody else's code makes, which may panic.
func textOf(text func() string) (_ string) {
	defer func() { _ = recover() }()
	return text()
}

// clip shortens a text that is too long, between characters, and has a "?" where it is
// not UTF-8: not every handler takes such texts.
func clip(text string, most int) string {
	rest := ""
	if len(text) > most {
		cut := most
		for cut > 0 && most-cut < utf8.UTFMax-1 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text, rest = text[:cut], "…"
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "?")
	}
	return text + rest
}

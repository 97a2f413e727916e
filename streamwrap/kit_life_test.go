package streamwrap_test

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// checkMessage checks what every Message keeps.
func (l *life) checkMessage(hook string, m *streamwrap.Message) {
	switch {
	case m.Err != nil && (m.Seq != 0 || !isCoded(m.Err)):
		l.breaks("%s: %+v", hook, *m)
	case m.Err == nil && (m.Seq == 0 || m.Msg == nil):
		l.breaks("%s: %+v", hook, *m)
	case m.Err != nil && hook == "Received" && m.Msg != nil:
		l.breaks("%s: %+v", hook, *m)
	case !l.hasExchange() && (m.WireBytes != -1 || m.Compressed):
		l.breaks("%s: sizes without an Engine: %+v", hook, *m)
	}
}

// checkEnd checks what every End keeps.
func (l *life) checkEnd(e *streamwrap.End) {
	l.mu.Lock()
	results, returned := l.results, l.returned
	sent, received := l.count("Sent("), l.count("Received(")
	l.mu.Unlock()
	success := e.Outcome == streamwrap.Completed
	switch {
	case success != (e.Err == nil), success != (e.Code == 0):
		l.breaks("End: Outcome, Err and Code disagree: %+v", *e)
	case e.Err != nil && (e.Code != connect.CodeOf(e.Err) || !isCoded(e.Err)):
		l.breaks("End: Code is not Err's: %+v", *e)
	case results > 0 && e.Outcome != streamwrap.Panicked && isCoded(returned) && returned != e.Err:
		l.breaks("End: Err %v, but Return handed %v outward", e.Err, returned)
	case e.Sent < sent || e.Received < received:
		l.breaks("End counts %d/%d, hooks saw %d/%d", e.Sent, e.Received, sent, received)
	case !l.hasExchange() && (e.SentBytes != -1 || e.ReceivedBytes != -1):
		l.breaks("End: sizes without an Engine: %+v", *e)
	case e.FirstMessage < 0 || e.FirstMessage > e.Elapsed:
		l.breaks("End: %v to the first message of %v", e.FirstMessage, e.Elapsed)
	}
}

// count counts messages among the events. The caller holds the mutex.
func (l *life) count(prefix string) (n int64) {
	for _, event := range l.events {
		rest, ok := strings.CutPrefix(event, prefix)
		if ok && rest[0] >= '0' && rest[0] <= '9' && !strings.HasSuffix(rest, "!") {
			n++
		}
	}
	return n
}

// seqOrError names a message by its number, or by its error.
func seqOrError(m *streamwrap.Message) string {
	switch {
	case m.Err == nil:
		return strconv.FormatInt(m.Seq, 10)
	case errors.Is(m.Err, io.EOF):
		return "EOF"
	default:
		return codeName(m.Err)
	}
}

func codeName(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}

func isCoded(err error) bool {
	if err == nil {
		return true
	}
	_, ok := errors.AsType[*connect.Error](err)
	return ok
}

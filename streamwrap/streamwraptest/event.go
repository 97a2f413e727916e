package streamwraptest

import (
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// EventKind names what an [Event] tells: the hook that saw it.
type EventKind string

// The kinds of events, one for each hook of [streamwrap.Hooks].
const (
	EventOpen     EventKind = "open"
	EventHeader   EventKind = "header"
	EventSend     EventKind = "send"
	EventSent     EventKind = "sent"
	EventReceive  EventKind = "receive"
	EventReceived EventKind = "received"
	EventReturn   EventKind = "return"
	EventEnd      EventKind = "end"
)

// Event is what a hook of a [Recorder] was told. Fields that do not belong to
// its kind are zero.
type Event struct {
	Kind EventKind
	Call *streamwrap.Call

	// Seq is the message's number, from 1, in sent and received events. It is
	// 0 if there is no message.
	Seq int64

	// Msg is a copy of the message, in send, sent and received events.
	Msg any

	// Err is why there is no message in sent and received events, and the
	// result of the RPC in return events.
	Err error

	// Header is a copy of the headers, in header events.
	Header http.Header

	// End is how the RPC ended, in end events.
	End *streamwrap.End
}

// String returns the event in short:
//
//	open  header  send  receive
//	sent:1  received:2        a message and its number
//	received:EOF              the clean end of the stream
//	sent:unavailable          an error, by its code
//	return  return:not_found  success, an error
//	end:completed(2/3)        the outcome, messages sent and received
//	end:failed(not_found,0/1) with the error's code
func (e Event) String() string {
	kind := string(e.Kind)
	switch {
	case e.End != nil:
		return kind + ":" + formatEnd(e.End)
	case e.Err != nil && e.Kind != EventReturn && isEOF(e.Err):
		return kind + ":EOF"
	case e.Err != nil:
		return kind + ":" + connect.CodeOf(e.Err).String()
	case e.Seq > 0:
		return fmt.Sprintf("%s:%d", kind, e.Seq)
	default:
		return kind
	}
}

func formatEnd(end *streamwrap.End) string {
	if end.Err == nil {
		return fmt.Sprintf("%v(%d/%d)", end.Outcome, end.Sent, end.Received)
	}
	return fmt.Sprintf("%v(%v,%d/%d)", end.Outcome, end.Code, end.Sent, end.Received)
}

// Format joins events in short form with blanks, for comparisons with a golden
// string. The two sides of a stream run concurrently: such a string is
// deterministic only if the RPC takes turns.
func Format(events []Event) string {
	words := make([]string, len(events))
	for i, event := range events {
		words[i] = event.String()
	}
	return strings.Join(words, " ")
}

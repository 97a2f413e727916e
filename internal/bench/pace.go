package bench

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// epoch is what paced messages count from. Client and server are one process,
// so that both read the same monotonic clock.
//
//nolint:gochecknoglobals // one clock for both sides
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// sendAll sends the messages that the order asks for.
func sendAll(o Order, send func(*Message) error) error {
	msg := payload(o.Size)
	if o.Pace > 0 {
		return sendPaced(o, msg, send)
	}
	for range o.Count {
		if err := send(msg); err != nil {
			return err
		}
	}
	return nil
}

// sendPaced sends messages when they are due. A late one does not put off the
// next, and its clock does not start when the sender gets round to it: a
// contender whose Send is slow must not look good.
func sendPaced(o Order, like *Message, send func(*Message) error) error {
	msg := &Message{Value: append([]byte(nil), like.GetValue()...)}
	p, err := newPacer(o.Pace)
	if err != nil {
		return err
	}
	defer p.stop()
	for sent := 0; sent < o.Count; {
		ticks, err := p.wait()
		if err != nil {
			return err
		}
		for range min(ticks, o.Count-sent) {
			binary.LittleEndian.PutUint64(msg.Value, uint64(p.next()))
			if err := send(msg); err != nil {
				return err
			}
			sent++
		}
	}
	return nil
}

// receiveAll receives messages up to the end of the stream. It returns their
// number, and of paced messages how late each one was.
func receiveAll(o Order, receive func() (*Message, error)) (int, []time.Duration, error) {
	var late []time.Duration
	if o.Pace > 0 {
		late = make([]time.Duration, 0, o.Count)
	}
	for n := 0; ; n++ {
		msg, err := receive()
		switch {
		case errors.Is(err, io.EOF):
			return n, late, nil
		case err != nil:
			return n, late, err
		case o.Pace > 0:
			late = append(late, now()-time.Duration(binary.LittleEndian.Uint64(msg.GetValue())))
		}
	}
}

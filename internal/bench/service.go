package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The procedures of the one service that every contender serves.
const (
	serviceName       = "interconnect.bench.v1.Load"
	unaryProcedure    = "/" + serviceName + "/Unary"
	downloadProcedure = "/" + serviceName + "/Download"
	uploadProcedure   = "/" + serviceName + "/Upload"
	echoProcedure     = "/" + serviceName + "/Echo"
)

// service is the handlers' code, shared by all contenders. Their streams come
// as functions: one more call for each message, the same for all.
type service struct{}

// unary returns the message.
func (service) unary(m *Message) *Message { return m }

// download sends what the order asks for.
func (service) download(order *Message, send func(*Message) error) error {
	o, err := parseOrder(order)
	if err != nil {
		return err
	}
	return sendAll(o, send)
}

// upload receives what the order announces. The response has the number of
// messages, and of paced messages how late each was.
func (service) upload(receive func() (*Message, error)) (*Message, error) {
	first, err := receive()
	if err != nil {
		return nil, err
	}
	o, err := parseOrder(first)
	if err != nil {
		return nil, err
	}
	n, late, err := receiveAll(o, receive)
	if err != nil {
		return nil, err
	}
	if n != o.Count {
		return nil, fmt.Errorf("%d messages arrived of %d", n, o.Count)
	}
	data := make([]byte, 0, 8*len(late))
	for _, d := range late {
		data = binary.LittleEndian.AppendUint64(data, uint64(d))
	}
	return &Message{Value: data}, nil
}

// parseLate returns what upload found out about paced messages.
func parseLate(m *Message) []time.Duration {
	data := m.GetValue()
	late := make([]time.Duration, len(data)/8)
	for i := range late {
		late[i] = time.Duration(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return late
}

// echo returns each message as it comes.
func (service) echo(receive func() (*Message, error), send func(*Message) error) error {
	for {
		msg, err := receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(msg); err != nil {
			return err
		}
	}
}

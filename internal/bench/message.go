package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Message is the type of all requests and responses, for every contender.
type Message = wrapperspb.BytesValue

// Order is the first message of a download or an upload: how many messages
// follow, from the server or from the client.
type Order struct {
	Count int // messages after this one
	Size  int // bytes of payload in each

	// Pace is the time from one message to the next; 0 sends them back to
	// back. Paced messages carry the time at which they were due, and whoever
	// receives them notes how late they are.
	Pace time.Duration
}

// message returns the order as a message of 16 bytes, the smallest size there
// is in the tables.
func (o Order) message() *Message {
	data := make([]byte, 0, 16)
	data = binary.LittleEndian.AppendUint32(data, uint32(o.Count))
	data = binary.LittleEndian.AppendUint32(data, uint32(o.Size))
	data = binary.LittleEndian.AppendUint64(data, uint64(o.Pace))
	return &Message{Value: data}
}

func parseOrder(m *Message) (Order, error) {
	data := m.GetValue()
	if len(data) != 16 {
		return Order{}, fmt.Errorf("an order has 16 bytes, not %d", len(data))
	}
	return Order{
		Count: int(binary.LittleEndian.Uint32(data)),
		Size:  int(binary.LittleEndian.Uint32(data[4:])),
		Pace:  time.Duration(binary.LittleEndian.Uint64(data[8:])),
	}, nil
}

// maxSize is the largest payload that there is.
const maxSize = 1 << 20

// text is what all payloads are the beginning of: maxSize bytes that look like
// log lines, always the same. It is what gzip is good at: 64 KiB of it shrink to
// about a fifth.
//
//nolint:gochecknoglobals // made once, never changed
var text = sync.OnceValue(func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"accepted", "rejected", "delivered", "queued", "retried", "expired"}
	text := make([]byte, 0, maxSize+128)
	for len(text) < maxSize {
		text = fmt.Appendf(text, `{"id":%d,"user":"user-%d","state":%q,"ms":%d,"score":%.3f}`+"\n",
			random.Uint32(), random.IntN(1000), words[random.IntN(len(words))], random.IntN(5000), random.Float64())
	}
	return text[:maxSize]
})

// payload returns a message with size bytes in it. Such messages share their
// bytes: nobody may change them.
func payload(size int) *Message {
	return &Message{Value: text()[:size:size]}
}

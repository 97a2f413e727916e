package auth_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
)

// tap is an HTTP client that keeps what the last response was on the wire.
type tap struct {
	client connect.HTTPClient

	mu       sync.Mutex
	response *http.Response
	body     bytes.Buffer
}

func (c *tap) Do(r *http.Request) (*http.Response, error) {
	res, err := c.client.Do(r)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.response = res
	c.body.Reset()
	res.Body = &tapped{res.Body, c}
	return res, nil
}

type tapped struct {
	io.ReadCloser

	tap *tap
}

func (b *tapped) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.tap.mu.Lock()
	defer b.tap.mu.Unlock()
	b.tap.body.Write(p[:n])
	return n, err
}

// wire returns everything of the last response.
func (c *tap) wire() (header, trailer http.Header, all string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	header, trailer = c.response.Header, c.response.Trailer
	return header, trailer, fmt.Sprint(header, trailer, c.body.String())
}

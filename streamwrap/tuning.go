package streamwrap

import (
	"crypto/tls"
	"net/http"
	"time"
)

const (
	// tunedFrameSize is how large HTTP/2 frames may be that this side receives.
	// net/http's clients accept 16 KiB, which costs large messages up to a third
	// of their throughput. Its servers accept 1 MiB, for which every client pays
	// with a buffer of half that per open upload.
	tunedFrameSize = 256 << 10

	// pingAfter is how long a connection may be silent before it is asked for a
	// sign of life, and pingPatience how long that may take: a stream that waits
	// for its peer would otherwise not notice that it is gone.
	pingAfter    = 30 * time.Second
	pingPatience = 15 * time.Second

	// headerPatience is how long a request's headers may take to arrive.
	headerPatience = 10 * time.Second
)

func tuneHTTP2(c *http.HTTP2Config) *http.HTTP2Config {
	if c == nil {
		c = &http.HTTP2Config{}
	}
	if c.MaxReadFrameSize == 0 {
		c.MaxReadFrameSize = tunedFrameSize
	}
	if c.SendPingTimeout == 0 {
		c.SendPingTimeout = pingAfter
	}
	if c.PingTimeout == 0 {
		c.PingTimeout = pingPatience
	}
	return c
}

// NewTransport returns an HTTP transport for RPC clients that stream:
//
//	client := &http.Client{Transport: streamwrap.NewTransport(nil)}
//
// With a nil config it speaks HTTP/2 without TLS to http:// URLs ("h2c", with
// prior knowledge), which net/http's own transport does not, and which bidi
// streams need. With a config it is for https:// URLs, and speaks HTTP/2 or, with
// servers that know no better, HTTP/1.1; the config is cloned.
//
// All else is as in [http.DefaultTransport], but for HTTP/2: frames of 256 KiB
// are accepted instead of 16, and a connection that is silent for 30 s is pinged,
// and closed if no answer comes within 15 s. A [http.Client.Timeout] would end
// long streams; use contexts.
func NewTransport(config *tls.Config) *http.Transport {
	t := &http.Transport{}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		t = standard.Clone()
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP2(true)
	if config == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
		t.TLSClientConfig = config.Clone()
	}
	t.HTTP2 = tuneHTTP2(t.HTTP2)
	return t
}

// TuneServer sets what streams need of an HTTP server, where it is not set
// already, and returns the server. Call it before the server starts.
//
// It serves HTTP/1.1 and HTTP/2, with and without TLS. With HTTP/2 it accepts
// frames of 256 KiB, not 1 MiB: as fast, and net/http's clients need half of the
// memory for each open upload. A connection that is silent for 30 s is
// pinged, and closed if no answer comes within 15 s. Headers must arrive within
// 10 s. ReadTimeout and WriteTimeout stay as they are: if they are set, they end
// streams that live longer.
func TuneServer(s *http.Server) *http.Server {
	if s.Protocols == nil {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetHTTP2(true)
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	if s.ReadHeaderTimeout == 0 {
		s.ReadHeaderTimeout = headerPatience
	}
	s.HTTP2 = tuneHTTP2(s.HTTP2)
	return s
}

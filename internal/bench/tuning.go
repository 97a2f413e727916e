package bench

import "net/http"

// tuningTable compares settings of net/http, one at a time.
func tuningTable(name string, engine bool) Table {
	variants := []struct {
		name     string
		settings HTTPSettings
	}{
		{"default", HTTPSettings{}},
		{"client frame 64K", HTTPSettings{Client: http.HTTP2Config{MaxReadFrameSize: 64 * kib}}},
		{"client frame 256K", HTTPSettings{Client: http.HTTP2Config{MaxReadFrameSize: 256 * kib}}},
		{"client frame 1M", HTTPSettings{Client: http.HTTP2Config{MaxReadFrameSize: 1 << 20}}},
		{"server frame 16K", HTTPSettings{Server: http.HTTP2Config{MaxReadFrameSize: 16 * kib}}},
		{"server frame 64K", HTTPSettings{Server: http.HTTP2Config{MaxReadFrameSize: 64 * kib}}},
		{"server frame 256K", HTTPSettings{Server: http.HTTP2Config{MaxReadFrameSize: 256 * kib}}},
		{"server window 4M", HTTPSettings{Server: http.HTTP2Config{MaxReceiveBufferPerConnection: 4<<20 - 1, MaxReceiveBufferPerStream: 4<<20 - 1}}},
		{"server window 256K", HTTPSettings{Server: http.HTTP2Config{MaxReceiveBufferPerConnection: 256 * kib, MaxReceiveBufferPerStream: 256 * kib}}},
		{"client window 1M", HTTPSettings{Client: http.HTTP2Config{MaxReceiveBufferPerConnection: 4<<20 - 1, MaxReceiveBufferPerStream: 1 << 20}}},
		{"server reads 4K", HTTPSettings{ServerConn: bufferReads(4 * kib)}},
		{"server reads 64K", HTTPSettings{ServerConn: bufferReads(64 * kib)}},
		{"client reads 64K", HTTPSettings{ClientConn: bufferReads(64 * kib)}},
	}
	t := Table{Name: name, Title: "Settings of net/http, one at a time"}
	if engine {
		t.Title += ", with the engine"
	}
	for i, v := range variants {
		t.Contenders = append(t.Contenders, Connect(v.name, ConnectSettings{HTTP: v.settings, Engine: engine}))
		if i > 0 {
			t.Comparisons = append(t.Comparisons, Comparison{v.name, variants[0].name})
		}
	}
	t.Rows = []Row{
		{Name: "server stream 16 B", Do: download(16)},
		{Name: "server stream 1 KiB", Do: download(kib)},
		{Name: "server stream 64 KiB", Do: download(64 * kib)},
		{Name: "server stream 1 MiB", Do: download(1 << 20)},
		{Name: "client stream 16 B", Do: upload(16)},
		{Name: "client stream 1 KiB", Do: upload(kib)},
		{Name: "client stream 64 KiB", Do: upload(64 * kib)},
		{Name: "client stream 1 MiB", Do: upload(1 << 20)},
		{Name: "bidi ping-pong 16 B", Do: pingPong(16)},
		{Name: "unary 16 B", Do: unary(16)},
		{Name: "unary 64 KiB", Do: unary(64 * kib)},
	}
	return t
}

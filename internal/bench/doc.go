// Package bench compares connect-go, the same with streamwrap's Engine, and
// grpc-go, side by side in one process. The program in tables measures and
// prints the tables of the README:
//
//	go run ./tables                            # all of them, some minutes
//	go run ./tables -run 'streams/.*16 B' -v   # some rows, with nanoseconds
//	go run ./tables -experiments               # settings of net/http
//
// The tests of this package also have clients and servers of grpc-go as peers
// of the Engine's.
//
// # What is the same for all
//
// Client and server are one process on loopback TCP, HTTP/2 without TLS, one
// connection. All serve and call one service with wrapperspb.BytesValue
// messages and the same payloads; handlers run the same code. A received
// message is a new one each time, as in generated code. Compression is off for
// all, or gzip at the default level for all in both directions. Without that
// connect's defaults would compress: its clients accept gzip, and its handlers
// then compress every message, however small.
//
// # What is not
//
// Flow control and buffers are each library's defaults, unless a table says that
// it is tuned. [FlowControl] tells them; the program prints them above its
// tables. That net/http's windows are larger than grpc-go's first ones matters
// for large messages only, and grpc-go enlarges its own within the first of them.
//
// # How to read it
//
// Figures are ratios: 2.00× is twice as fast, 0.50× takes twice as long. Each is
// the median over several rounds. In a round all contenders of a row have a turn
// of about the same duration, one right after the other in changing order, so
// that other load on the machine hits them alike; and a ratio is made of two
// turns of the same round. In parentheses are the least and the greatest of these
// ratios. Nanoseconds are never compared between machines or runs.
//
// A machine with other work makes what needs more of the processor look worse
// than what waits more: bare connect's streams mostly wait for one goroutine to
// wake another.
//
// Allocations are those of the whole process for each message or call, both sides
// together.
package bench

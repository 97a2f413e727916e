// Package conformance holds a client and a server under test for the official
// Connect conformance suite, connectrpc.com/conformance: plain connect-go with
// streamwrap in its chains. Every case that the suite has for config.yaml must
// pass; there is no list of known failures.
//
// run.sh does it all: it generates the suite's messages and service into gen,
// builds the suite's runner and the program undertest, and runs both sides in
// each variant it is given.
//
//	./run.sh                                  # every variant
//	./run.sh interceptor                      # one
//	./run.sh none -- --run '**/bidi-stream/**' --trace
//
// What imports gen is built with the tag "conformance" only, so that the
// module builds, vets and tests as it is checked out.
package conformance

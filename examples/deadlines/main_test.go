package main

func Example() {
	main()
	// Output:
	// a call with 20 s: Hello, Ada, your deadline is from max
	// a call without a deadline: deadline_exceeded, RPC_DEADLINE
	// a client that stalls: deadline_exceeded, RECEIVE_IDLE
	// a stream beyond the WriteTimeout: Hello, Grace
	// a stream when the server ends: unavailable, DRAINING
}

package main

import "time"

// cases are what may happen to RPCs.
func cases() []scene {
	return []scene{
		{
			name: "no token", asks: "a greeting, without a token", alien: true, play: greet,
			want: outcome{
				"unauthenticated, CREDENTIALS_MISSING",
				"failed UNAUTHENTICATED",
				"refused UNAUTHENTICATED, 0 in, 0 out", // by the gate, before it was decoded
			},
		},
		{
			name: "no scope", asks: "one greeting for many, with a token that is not for that", play: greetMany("Ada"),
			want: outcome{
				"permission_denied, SCOPE_INSUFFICIENT",
				"failed PERMISSION_DENIED",
				"refused PERMISSION_DENIED, 0 in, 0 out",
			},
		},
		{
			name: "empty message", asks: "an answer to something, and an answer to nothing", play: saySomethingAndNothing,
			want: outcome{
				"invalid_argument: nothing said",
				"failed INVALID_ARGUMENT",
				"refused INVALID_ARGUMENT, 2 in, 1 out",
			},
		},
		{
			name: "burst", asks: "12 greetings at once, by a caller who may have 10 and then 2 a second", rpcs: burst, play: greetAtOnce,
			want: outcome{
				"12 greetings, no sooner than allowed",
				"…completed OK", // some after they were told to come back later
				"…12 × completed OK, 1 in, 1 out",
			},
		},
		{
			name: "retried stream", asks: "three greetings, of a server that is not ready at first", play: greetRepeatedly(godot),
			want: outcome{
				"greetings [1 2 3]",
				"completed OK, 2 attempts",
				"failed UNAVAILABLE, 1 in, 0 out; completed OK, 1 in, 3 out",
			},
		},
		{
			name: "retried upload", asks: "one greeting for many, of a server that is not ready at first", scope: "crowd", play: greetMany(godot, "Ada"),
			want: outcome{
				"Hello, Godot and Ada!",
				"completed OK, 2 attempts",
				"failed UNAVAILABLE, 2 in, 0 out; completed OK, 2 in, 1 out",
			},
		},
		{
			name: "cancel half-way", asks: "two answers, and then to be left alone", play: cancelHalfway,
			want: outcome{
				"canceled: context canceled",
				"canceled CANCELLED",
				"canceled CANCELLED, 2 in, 2 out",
			},
		},
		{
			name: "interrupted Receive", asks: "an answer, and says nothing more while the server waits", play: stall,
			want: outcome{
				"deadline_exceeded, RECEIVE_IDLE", // the server's code
				"deadline_exceeded DEADLINE_EXCEEDED",
				"deadline_exceeded DEADLINE_EXCEEDED, 1 in, 1 out",
			},
		},
		{
			name: "expired token", asks: "a greeting now and one in an hour, with a token of two seconds", life: 2 * time.Second, play: idle,
			want: outcome{
				"unauthenticated, TOKEN_EXPIRED",
				"failed UNAUTHENTICATED",
				"failed UNAUTHENTICATED, 1 in, 1 out",
			},
		},
		{
			name: "panic", asks: "one greeting for nobody, of a handler that did not think of that", scope: "crowd", play: greetMany(),
			want: outcome{
				"internal: internal error",
				"failed INTERNAL",
				"failed INTERNAL, 0 in, 0 out, panicked: runtime error: index out of range [0] with length 0",
			},
		},
	}
}

// ends are what happens when the server shuts down.
func ends(opened chan<- struct{}) []scene {
	return []scene{
		{
			name: "drain", asks: "a greeting now and one in an hour, of a server that shuts down", play: outstay(opened),
			want: outcome{
				"unavailable, DRAINING", // and may come back at once, to another server
				"failed UNAVAILABLE",
				"failed UNAVAILABLE, 1 in, 1 out",
			},
		},
		{
			name: "after the drain", asks: "a greeting now and one in an hour, of a server that is no more", play: late,
			want: outcome{"unavailable", "failed UNAVAILABLE…", "…"},
		},
	}
}

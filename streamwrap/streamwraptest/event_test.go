package streamwraptest_test

import (
	"sync/atomic"
	"time"
)

type event struct {
	at  time.Time
	err error
}

var last atomic.Pointer[event]

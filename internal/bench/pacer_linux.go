package bench

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pacer wakes a goroutine at a steady pace. Go's timers are too coarse for
// that, because an idle process waits for them in whole milliseconds; and a
// goroutine that spins gets in the way of Go's scheduler. The kernel's timer is
// a file, whose reader wakes up as it would for a packet.
type pacer struct {
	file  *os.File
	every time.Duration
	due   time.Duration
}

// newPacer returns a pacer whose first tick is one pace from now.
func newPacer(every time.Duration) (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "timerfd")
	spec := unix.NsecToTimespec(int64(every))
	p := &pacer{file, every, now()}
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: spec, Value: spec}, nil); err != nil {
		_ = file.Close()
		return nil, os.NewSyscallError("timerfd_settime", err)
	}
	return p, nil
}

// wait waits for the next tick, and returns how many have passed.
func (p *pacer) wait() (int, error) {
	var ticks [8]byte
	if _, err := p.file.Read(ticks[:]); err != nil {
		return 0, err
	}
	return int(binary.NativeEndian.Uint64(ticks[:])), nil
}

// next returns when the next message was due.
func (p *pacer) next() time.Duration {
	p.due += p.every
	return p.due
}

func (p *pacer) stop() { _ = p.file.Close() }

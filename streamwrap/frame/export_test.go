package frame

// BufferSize returns how many bytes a Reader holds.
func BufferSize(r *Reader) int { return cap(r.buf) }

// CapturedSize returns how many bytes a Scanner holds.
func CapturedSize(s *Scanner) int { return cap(s.captured()) }

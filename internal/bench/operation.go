package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Operation does something n times. It returns values of its own, or none if
// the time that it took is what counts.
type Operation func(ctx context.Context, client Client, n int) ([]float64, error)

// unary makes n calls, one after the other.
func unary(size int) Operation {
	msg := payload(size)
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		for range n {
			res, err := client.Unary(ctx, msg)
			if err != nil {
				return nil, err
			}
			if len(res.GetValue()) != size {
				return nil, fmt.Errorf("sent %d bytes, got %d", size, len(res.GetValue()))
			}
		}
		return nil, nil
	}
}

// download receives n messages of one server stream.
func download(size int) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		_, err := downloadStream(ctx, client, Order{Count: n, Size: size})
		return nil, err
	}
}

// upload sends n messages on one client stream.
func upload(size int) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		_, err := uploadStream(ctx, client, Order{Count: n, Size: size})
		return nil, err
	}
}

// pingPong sends n messages on one bidi stream, each when the one before it
// has come back.
func pingPong(size int) Operation {
	msg := payload(size)
	return func(ctx context.Context, client Client, n int) (_ []float64, err error) {
		stream, err := client.Echo(ctx)
		if err != nil {
			return nil, err
		}
		for range n {
			if err := stream.Send(msg); err != nil {
				return nil, err
			}
			if _, err := stream.Receive(); err != nil {
				return nil, err
			}
		}
		return nil, finish(stream)
	}
}

// concurrently splits n between several goroutines.
func concurrently(streams int, do Operation) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		var (
			running sync.WaitGroup
			errs    = make([]error, streams)
		)
		for i := range streams {
			// Shares differ by one at most; together they are n.
			if share := (n + i) / streams; share > 0 {
				running.Go(func() { _, errs[i] = do(ctx, client, share) })
			}
		}
		running.Wait()
		return nil, errors.Join(errs...)
	}
}

// pacedDownload returns percentiles of how late the messages of a server
// stream arrive, in nanoseconds.
func pacedDownload(size int, pace time.Duration) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		late, err := downloadStream(ctx, client, Order{Count: n, Size: size, Pace: pace})
		if err != nil {
			return nil, err
		}
		return percentiles(late), nil
	}
}

// pacedUpload is pacedDownload in the other direction.
func pacedUpload(size int, pace time.Duration) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		late, err := uploadStream(ctx, client, Order{Count: n, Size: size, Pace: pace})
		if err != nil {
			return nil, err
		}
		return percentiles(late), nil
	}
}

func downloadStream(ctx context.Context, client Client, o Order) ([]time.Duration, error) {
	stream, err := client.Download(ctx, o.message())
	if err != nil {
		return nil, err
	}
	got, late, err := receiveAll(o, stream.Receive)
	if err != nil {
		return nil, err
	}
	if got != o.Count {
		return nil, fmt.Errorf("%d messages arrived of %d", got, o.Count)
	}
	return late, stream.Close()
}

func uploadStream(ctx context.Context, client Client, o Order) ([]time.Duration, error) {
	stream, err := client.Upload(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(o.message())
	if err == nil {
		err = sendAll(o, stream.Send)
	}
	// The end of the stream says that the other side's error explains more.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	res, err := stream.Receive()
	if err != nil {
		return nil, err
	}
	return parseLate(res), nil
}

// finish ends a bidi stream that has nothing in flight.
func finish(stream Stream) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("instead of the end of the stream: %w", err)
	}
	return stream.Close()
}

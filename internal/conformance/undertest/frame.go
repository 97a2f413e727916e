//go:build conformance

package main

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// readMessage reads a message of the runner: four bytes of length, big endian,
// and so many of protobuf. At the end of the input it returns [io.EOF].
func readMessage(r io.Reader, msg proto.Message) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	data := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("message of %d bytes: %w", len(data), err)
	}
	return proto.Unmarshal(data, msg)
}

// writeMessage writes a message to the runner, with one call to Write.
func writeMessage(w io.Writer, msg proto.Message) error {
	data, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4), msg)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(data, uint32(len(data)-4))
	_, err = w.Write(data)
	return err
}

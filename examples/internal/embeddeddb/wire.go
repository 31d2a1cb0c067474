package embeddeddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The MongoDB wire protocol, as far as the front needs it:
// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const (
	headerLen     = 16 // length, request id, id of the request answered, opcode: four int32
	maxMessageLen = 48_000_000

	opReply = 1    // the answer to an OP_QUERY
	opQuery = 2004 // a driver's very first hello may come as one
	opMsg   = 2013

	flagChecksumPresent = 1 << 0  // a CRC-32C follows the sections
	flagMoreToCome      = 1 << 1  // of a request: it wants no reply
	flagExhaustAllowed  = 1 << 16 // of a request: several replies are welcome

	sectionBody     = 0
	sectionSequence = 1
)

// readMessage reads one whole message into buf, which it empties first.
func readMessage(r io.Reader, buf *bytes.Buffer) error {
	buf.Reset()
	if _, err := io.CopyN(buf, r, headerLen); err != nil {
		return err
	}
	// What speaks another protocol is found out by its first bytes. CopyN then grows buf by what really arrives.
	n := int32(binary.LittleEndian.Uint32(buf.Bytes()))
	if n < headerLen || n > maxMessageLen {
		return fmt.Errorf("message of %d bytes", n)
	}
	switch op := binary.LittleEndian.Uint32(buf.Bytes()[12:]); op {
	case opReply, opQuery, opMsg:
	default:
		// Drivers stopped sending the others years ago, or send them only by agreement (compression).
		return fmt.Errorf("opcode %d", op)
	}
	_, err := io.CopyN(buf, r, int64(n)-headerLen)
	return err
}

// request is a message from a client, made fit for the engine.
type request struct {
	raw     []byte
	id      uint32
	noReply bool

	// Of an OP_MSG:
	command string
	body    bson.Raw
	updates []bson.Raw // the statements of an update command
}

// parseRequest takes a message over; it changes raw's flags.
func parseRequest(raw []byte) (*request, error) {
	r := &request{raw: raw, id: binary.LittleEndian.Uint32(raw[4:])}
	switch op := binary.LittleEndian.Uint32(raw[12:]); op {
	case opQuery:
		return r, nil
	case opMsg:
	default:
		return nil, fmt.Errorf("opcode %d", op)
	}
	if len(raw) < headerLen+4 {
		return nil, errors.New("OP_MSG without flags")
	}

	// The engine always sends exactly one reply and checks no sum, so it gets the message without these flags.
	flags := binary.LittleEndian.Uint32(raw[headerLen:])
	r.noReply = flags&flagMoreToCome != 0
	if flags&flagChecksumPresent != 0 {
		if len(raw) < headerLen+4+4 {
			return nil, errors.New("OP_MSG without checksum")
		}
		r.raw = raw[:len(raw)-4]
		binary.LittleEndian.PutUint32(r.raw, uint32(len(r.raw)))
	}
	binary.LittleEndian.PutUint32(r.raw[headerLen:], flags&^(flagChecksumPresent|flagMoreToCome|flagExhaustAllowed))

	sequences := map[string][]bson.Raw{}
	for rest := r.raw[headerLen+4:]; len(rest) > 0; {
		kind := rest[0]
		section, tail, err := cut(rest[1:])
		if err != nil {
			return nil, err
		}
		switch {
		case kind == sectionBody && r.body == nil:
			r.body = section
		case kind == sectionSequence:
			name, docs, ok := bytes.Cut(section[4:], []byte{0})
			if !ok {
				return nil, errors.New("document sequence without a name")
			}
			for len(docs) > 0 {
				var doc []byte
				if doc, docs, err = cut(docs); err != nil {
					return nil, err
				}
				sequences[string(name)] = append(sequences[string(name)], doc)
			}
		default:
			return nil, fmt.Errorf("section of kind %d", kind)
		}
		rest = tail
	}

	first, err := r.body.IndexErr(0)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if r.command, err = first.KeyErr(); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if r.command == "update" {
		r.updates = sequences["updates"]
		if array, ok := r.body.Lookup("updates").ArrayOK(); ok {
			values, err := array.Values()
			if err != nil {
				return nil, fmt.Errorf("updates: %w", err)
			}
			for _, v := range values {
				doc, ok := v.DocumentOK()
				if !ok || len(doc) < 5 { // DocumentOK does not look at its length
					return nil, errors.New("updates: not a document")
				}
				r.updates = append(r.updates, doc)
			}
		}
	}
	return r, nil
}

// cut splits b after the first document or section, which begin with their own
// length.
func cut(b []byte) (first, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errors.New("message cut short")
	}
	n := int64(int32(binary.LittleEndian.Uint32(b)))
	if n < 5 || n > int64(len(b)) {
		return nil, nil, fmt.Errorf("document of %d bytes in %d", n, len(b))
	}
	return b[:n], b[n:], nil
}

// replyBody returns the document of the engine's reply to an OP_MSG: one
// section, no checksum.
func replyBody(msg []byte) (bson.Raw, error) {
	const start = headerLen + 4 + 1
	if len(msg) < start || binary.LittleEndian.Uint32(msg[12:]) != opMsg || msg[start-1] != sectionBody {
		return nil, errors.New("unexpected reply")
	}
	body, _, err := cut(msg[start:])
	return body, err
}

// writeMessage puts an OP_MSG with one document into buf, which it empties
// first.
func writeMessage(buf *bytes.Buffer, id, responseTo uint32, body any) error {
	doc, err := bson.Marshal(body)
	if err != nil {
		return err
	}
	buf.Reset()
	le := binary.LittleEndian
	b := buf.AvailableBuffer()
	b = le.AppendUint32(b, uint32(headerLen+4+1+len(doc)))
	b = le.AppendUint32(b, id)
	b = le.AppendUint32(b, responseTo)
	b = le.AppendUint32(b, opMsg)
	b = le.AppendUint32(b, 0) // flags
	b = append(b, sectionBody)
	buf.Write(append(b, doc...))
	return nil
}

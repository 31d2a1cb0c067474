package embeddeddb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

// The MongoDB wire protocol, as far as the front needs it. The driver's wiremessage package reads
// and writes the parts of a message.
// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const (
	headerLen      = 16
	flagsLen       = 4
	checksumLen    = 4
	minDocumentLen = 5 // the driver accepts 4, the length alone
	maxMessageLen  = 48_000_000
)

// opQuery is deprecated, but a driver's first hello may still be one.
const opQuery = wiremessage.OpQuery //nolint:staticcheck // see above

// readMessage reads one message into buf, which it empties first.
func readMessage(r io.Reader, buf *bytes.Buffer) error {
	buf.Reset()
	if _, err := io.CopyN(buf, r, headerLen); err != nil {
		return err
	}
	length, _, _, opcode, _, _ := wiremessage.ReadHeader(buf.Bytes())
	if length < headerLen || length > maxMessageLen {
		return fmt.Errorf("message of %d bytes", length)
	}
	switch opcode {
	case wiremessage.OpReply, opQuery, wiremessage.OpMsg:
	default:
		// Drivers no longer send the others, or only by agreement (compression).
		return fmt.Errorf("opcode %d", opcode)
	}
	// CopyN grows buf by what arrives, not by the length that the client claims.
	_, err := io.CopyN(buf, r, int64(length)-headerLen)
	return err
}

// request is a client's message, prepared for the engine.
type request struct {
	raw     []byte
	id      int32
	noReply bool

	// Only of an OP_MSG:
	command string
	body    bson.Raw
	updates []bson.Raw // the statements of an update command
}

// parseRequest takes raw over and changes it.
func parseRequest(raw []byte) (*request, error) {
	_, id, _, opcode, _, ok := wiremessage.ReadHeader(raw)
	if !ok {
		return nil, errors.New("message without a header")
	}
	r := &request{raw: raw, id: id}
	switch opcode {
	case opQuery:
		return r, nil
	case wiremessage.OpMsg:
	default:
		return nil, fmt.Errorf("opcode %d", opcode)
	}
	if err := r.clearFlags(); err != nil {
		return nil, err
	}
	sequence, err := r.readSections()
	if err != nil {
		return nil, err
	}
	first, err := r.body.IndexErr(0)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if r.command, err = first.KeyErr(); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if r.command == "update" {
		inBody, err := updatesIn(r.body)
		if err != nil {
			return nil, err
		}
		r.updates = slices.Concat(sequence, inBody)
	}
	return r, nil
}

// clearFlags removes the flags that the engine ignores: it checks no checksum and always sends one
// reply.
func (r *request) clearFlags() error {
	flags, _, ok := wiremessage.ReadMsgFlags(r.raw[headerLen:])
	if !ok {
		return errors.New("OP_MSG without flags")
	}
	r.noReply = flags&wiremessage.MoreToCome != 0
	if flags&wiremessage.ChecksumPresent != 0 {
		if len(r.raw) < headerLen+flagsLen+checksumLen {
			return errors.New("OP_MSG without checksum")
		}
		r.raw = r.raw[:len(r.raw)-checksumLen]
		bsoncore.UpdateLength(r.raw, 0, int32(len(r.raw)))
	}
	flags &^= wiremessage.ChecksumPresent | wiremessage.MoreToCome | wiremessage.ExhaustAllowed
	wiremessage.AppendMsgFlags(r.raw[:headerLen], flags) // overwrites the flags in raw
	return nil
}

// readSections finds the body, and returns the documents of the sequences named "updates".
func (r *request) readSections() (updates []bson.Raw, err error) {
	for rest := r.raw[headerLen+flagsLen:]; len(rest) > 0; {
		var kind wiremessage.SectionType
		kind, rest, _ = wiremessage.ReadMsgSectionType(rest)
		var name string
		var docs []bsoncore.Document
		var ok bool
		switch kind {
		case wiremessage.SingleDocument:
			if r.body != nil {
				return nil, errors.New("two bodies")
			}
			var body bsoncore.Document
			body, rest, ok = wiremessage.ReadMsgSectionSingleDocument(rest)
			r.body, docs = bson.Raw(body), []bsoncore.Document{body}
		case wiremessage.DocumentSequence:
			name, docs, rest, ok = wiremessage.ReadMsgSectionDocumentSequence(rest)
		}
		if !ok {
			return nil, fmt.Errorf("malformed section of kind %d", kind)
		}
		for _, doc := range docs {
			if len(doc) < minDocumentLen {
				return nil, fmt.Errorf("document of %d bytes", len(doc))
			}
			if name == "updates" {
				updates = append(updates, bson.Raw(doc))
			}
		}
	}
	return updates, nil
}

// updatesIn returns the statements in the body of an update command, which has none if a sequence
// carries them.
func updatesIn(body bson.Raw) ([]bson.Raw, error) {
	array, ok := body.Lookup("updates").ArrayOK()
	if !ok {
		return nil, nil
	}
	values, err := array.Values()
	if err != nil {
		return nil, fmt.Errorf("updates: %w", err)
	}
	var updates []bson.Raw
	for _, v := range values {
		doc, ok := v.DocumentOK()
		if !ok || len(doc) < minDocumentLen {
			return nil, errors.New("updates: not a document")
		}
		updates = append(updates, doc)
	}
	return updates, nil
}

// parseReply returns the id and the document of the engine's reply to an OP_MSG: one section, no
// checksum.
func parseReply(msg []byte) (id int32, body bson.Raw, err error) {
	_, id, _, opcode, rest, ok := wiremessage.ReadHeader(msg)
	if !ok || opcode != wiremessage.OpMsg || len(rest) < flagsLen {
		return 0, nil, errors.New("the engine's reply is not an OP_MSG")
	}
	kind, rest, ok := wiremessage.ReadMsgSectionType(rest[flagsLen:])
	if !ok || kind != wiremessage.SingleDocument {
		return 0, nil, errors.New("the engine's reply does not have a body")
	}
	doc, _, ok := wiremessage.ReadMsgSectionSingleDocument(rest)
	if !ok || len(doc) < minDocumentLen {
		return 0, nil, errors.New("the engine's reply is cut short")
	}
	return id, bson.Raw(doc), nil
}

// writeMessage puts an OP_MSG with one document into buf, which it empties first.
func writeMessage(buf *bytes.Buffer, id, responseTo int32, body any) error {
	doc, err := bson.Marshal(body)
	if err != nil {
		return err
	}
	buf.Reset()
	start, b := wiremessage.AppendHeaderStart(buf.AvailableBuffer(), id, responseTo, wiremessage.OpMsg)
	b = wiremessage.AppendMsgFlags(b, 0)
	b = wiremessage.AppendMsgSectionType(b, wiremessage.SingleDocument)
	b = append(b, doc...)
	buf.Write(bsoncore.UpdateLength(b, start, int32(len(b))))
	return nil
}

package embeddeddb

import (
	"bytes"
	"net"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	codeInternalError = 1
	codeDuplicateKey  = 11000
)

// update sends the engine the statements of an update command one by one, and merges its replies
// into one. If it gets several statements at once, the engine
//   - hangs for good at the hundredth that matches: each keeps a connection to SQLite, which has a hundred;
//   - stops at the first error even if the client asked for unordered execution, and reports it as an
//     error of statement 0;
//   - numbers the upserted documents from 0, whichever statements they came from.
func (f *front) update(engine net.Conn, req *request, out *bytes.Buffer) error {
	base, ordered, err := withoutStatements(req.body)
	if err != nil {
		return err
	}
	var msg bytes.Buffer
	var result updateResult
	var replyID int32
	for i, statement := range req.updates {
		command := slices.Concat(base, bson.D{{Key: "updates", Value: bson.A{statement}}})
		if err := writeMessage(&msg, req.id, 0, command); err != nil {
			return err
		}
		if err := f.exchange(engine, req, msg.Bytes(), out); err != nil {
			return err
		}
		var body bson.Raw
		if replyID, body, err = parseReply(out.Bytes()); err != nil {
			return err
		}
		var reply updateReply
		if err := bson.Unmarshal(body, &reply); err != nil {
			return err
		}
		if reply.OK != 1 && isDuplicateKey(reply.Code, reply.ErrMsg) {
			reply.Code, reply.ErrMsg = codeDuplicateKey, duplicateKeyMessage(req)
		} else if reply.OK != 1 && len(req.updates) == 1 {
			return nil // out holds the engine's reply, which is right
		}
		result.add(int32(i), &reply)
		if ordered && len(result.writeErrors) > 0 {
			break
		}
	}
	return writeMessage(out, replyID, req.id, result.document())
}

// withoutStatements returns an update command without its statements, and its ordered option.
func withoutStatements(body bson.Raw) (command bson.D, ordered bool, err error) {
	elements, err := body.Elements()
	if err != nil {
		return nil, false, err
	}
	ordered = true
	for _, e := range elements {
		if e.Key() == "updates" {
			continue
		}
		if e.Key() == "ordered" {
			if b, ok := e.Value().BooleanOK(); ok {
				ordered = b
			}
		}
		command = append(command, bson.E{Key: e.Key(), Value: e.Value()})
	}
	return command, ordered, nil
}

// updateReply is the engine's reply to one statement.
type updateReply struct {
	OK        float64 `bson:"ok"`
	Code      int32   `bson:"code"`
	ErrMsg    string  `bson:"errmsg"`
	N         int64   `bson:"n"`
	NModified int64   `bson:"nModified"`
	Upserted  []struct {
		ID bson.RawValue `bson:"_id"`
	} `bson:"upserted"`
	WriteErrors []struct {
		Code   int32  `bson:"code"`
		ErrMsg string `bson:"errmsg"`
	} `bson:"writeErrors"`
}

// updateResult merges the replies to the statements of one command.
type updateResult struct {
	matched, modified     int64
	upserted, writeErrors bson.A
}

// add merges the reply to the statement with this index.
func (r *updateResult) add(index int32, reply *updateReply) {
	r.matched += reply.N
	r.modified += reply.NModified
	for _, u := range reply.Upserted {
		u.ID.Value = bytes.Clone(u.ID.Value) // it may alias a buffer that the next reply overwrites
		r.upserted = append(r.upserted, bson.D{{Key: "index", Value: index}, {Key: "_id", Value: u.ID}})
	}
	for _, e := range reply.WriteErrors {
		r.addError(index, e.Code, e.ErrMsg)
	}
	if reply.OK != 1 {
		r.addError(index, reply.Code, reply.ErrMsg)
	}
}

func (r *updateResult) addError(index, code int32, message string) {
	r.writeErrors = append(r.writeErrors, bson.D{
		{Key: "index", Value: index}, {Key: "code", Value: code}, {Key: "errmsg", Value: message},
	})
}

// document is the reply to the client.
func (r *updateResult) document() bson.D {
	doc := bson.D{{Key: "n", Value: int32(r.matched)}}
	if len(r.upserted) > 0 {
		doc = append(doc, bson.E{Key: "upserted", Value: r.upserted})
	}
	doc = append(doc, bson.E{Key: "nModified", Value: int32(r.modified)})
	if len(r.writeErrors) > 0 {
		doc = append(doc, bson.E{Key: "writeErrors", Value: r.writeErrors})
	}
	return append(doc, bson.E{Key: "ok", Value: 1.0})
}

// correctDuplicateKey replaces the engine's internal error with MongoDB's duplicate key error if a
// unique index refused a findAndModify, or could not be built over duplicates.
func correctDuplicateKey(req *request, out *bytes.Buffer) error {
	if req.command == "" || !bytes.Contains(out.Bytes(), []byte(uniqueFailed)) {
		return nil
	}
	id, body, err := parseReply(out.Bytes())
	if err != nil {
		return err
	}
	code, _ := body.Lookup("code").AsInt64OK()
	message, _ := body.Lookup("errmsg").StringValueOK()
	if !isDuplicateKey(int32(code), message) {
		return nil // a document contains those words
	}
	return writeMessage(out, id, req.id, bson.D{
		{Key: "ok", Value: 0.0},
		{Key: "errmsg", Value: duplicateKeyMessage(req)},
		{Key: "code", Value: int32(codeDuplicateKey)},
		{Key: "codeName", Value: "DuplicateKey"},
	})
}

const uniqueFailed = "UNIQUE constraint failed" // SQLite's message

func isDuplicateKey(code int32, message string) bool {
	return code == codeInternalError && strings.Contains(message, uniqueFailed)
}

func duplicateKeyMessage(req *request) string {
	collection, _ := req.body.Lookup(req.command).StringValueOK()
	db, _ := req.body.Lookup("$db").StringValueOK()
	return "E11000 duplicate key error collection: " + db + "." + collection
}

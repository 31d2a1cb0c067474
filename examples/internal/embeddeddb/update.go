package embeddeddb

import (
	"bytes"
	"encoding/binary"
	"net"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	codeInternalError = 1
	codeDuplicateKey  = 11000
)

// update gives the engine the statements of an update command one by one, and
// makes one reply of its replies. Given several at once the engine
//   - hangs for good at the hundredth that matches: each keeps a connection to SQLite, of which there are a hundred;
//   - stops at the first error even where the client asked for unordered execution, and reports it as that of
//     statement 0;
//   - numbers the upserted documents from 0, whichever statements they came from.
func (f *front) update(engine net.Conn, req *request, out *bytes.Buffer) error {
	command, err := req.body.Elements()
	if err != nil {
		return err
	}
	base := bson.D{}
	ordered := true
	for _, e := range command {
		switch e.Key() {
		case "updates":
			continue
		case "ordered":
			if b, ok := e.Value().BooleanOK(); ok {
				ordered = b
			}
		}
		base = append(base, bson.E{Key: e.Key(), Value: e.Value()})
	}

	var msg bytes.Buffer
	var n, modified int64
	var upserted, writeErrors bson.A
	for i, statement := range req.updates {
		if err := writeMessage(&msg, req.id, 0, append(base, bson.E{Key: "updates", Value: bson.A{statement}})); err != nil {
			return err
		}
		if err := f.exchange(engine, msg.Bytes(), out); err != nil {
			return err
		}
		body, err := replyBody(out.Bytes())
		if err != nil {
			return err
		}
		var reply struct {
			OK        float64 `bson:"ok"`
			Code      int32   `bson:"code"`
			ErrMsg    string  `bson:"errmsg"`
			N         int64   `bson:"n"`
			NModified int64   `bson:"nModified"`
			Upserted  []struct {
				ID bson.RawValue `bson:"_id"`
			}
			WriteErrors []struct {
				Code   int32  `bson:"code"`
				ErrMsg string `bson:"errmsg"`
			} `bson:"writeErrors"`
		}
		if err := bson.Unmarshal(body, &reply); err != nil {
			return err
		}
		n += reply.N
		modified += reply.NModified
		for _, u := range reply.Upserted {
			u.ID.Value = bytes.Clone(u.ID.Value) // it may lie in out, which the next reply overwrites
			upserted = append(upserted, bson.D{{Key: "index", Value: int32(i)}, {Key: "_id", Value: u.ID}})
		}
		failed := func(code int32, message string) {
			writeErrors = append(writeErrors, bson.D{
				{Key: "index", Value: int32(i)}, {Key: "code", Value: code}, {Key: "errmsg", Value: message},
			})
		}
		for _, e := range reply.WriteErrors {
			failed(e.Code, e.ErrMsg)
		}
		if reply.OK != 1 {
			switch {
			case isDuplicateKey(reply.Code, reply.ErrMsg):
				failed(codeDuplicateKey, duplicateKeyMessage(req))
			case len(req.updates) == 1:
				return nil // the engine's reply stands
			default:
				failed(reply.Code, reply.ErrMsg)
			}
		}
		if ordered && len(writeErrors) > 0 {
			break
		}
	}

	merged := bson.D{{Key: "n", Value: int32(n)}}
	if len(upserted) > 0 {
		merged = append(merged, bson.E{Key: "upserted", Value: upserted})
	}
	merged = append(merged, bson.E{Key: "nModified", Value: int32(modified)})
	if len(writeErrors) > 0 {
		merged = append(merged, bson.E{Key: "writeErrors", Value: writeErrors})
	}
	id := binary.LittleEndian.Uint32(out.Bytes()[4:]) // of the engine's last reply
	return writeMessage(out, id, req.id, append(merged, bson.E{Key: "ok", Value: 1.0}))
}

// correctDuplicateKey gives a reply the code that MongoDB gives when a unique
// index refuses a findAndModify, or refuses to be built over duplicates. The
// engine calls both an internal error.
func correctDuplicateKey(req *request, out *bytes.Buffer) error {
	if req.command == "" || !bytes.Contains(out.Bytes(), []byte(uniqueFailed)) {
		return nil
	}
	body, err := replyBody(out.Bytes())
	if err != nil {
		return err
	}
	code, _ := body.Lookup("code").AsInt64OK()
	message, _ := body.Lookup("errmsg").StringValueOK()
	if !isDuplicateKey(int32(code), message) {
		return nil // those words stand in somebody's document
	}
	id := binary.LittleEndian.Uint32(out.Bytes()[4:])
	return writeMessage(out, id, req.id, bson.D{
		{Key: "ok", Value: 0.0},
		{Key: "errmsg", Value: duplicateKeyMessage(req)},
		{Key: "code", Value: int32(codeDuplicateKey)},
		{Key: "codeName", Value: "DuplicateKey"},
	})
}

const uniqueFailed = "UNIQUE constraint failed" // SQLite's words

func isDuplicateKey(code int32, message string) bool {
	return code == codeInternalError && strings.Contains(message, uniqueFailed)
}

func duplicateKeyMessage(req *request) string {
	collection, _ := req.body.Lookup(req.command).StringValueOK()
	db, _ := req.body.Lookup("$db").StringValueOK()
	return "E11000 duplicate key error collection: " + db + "." + collection
}

package fakeclerk

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// fieldsOf decodes the JSON object that is a request's body. Without one there are no
// fields, where the body is not required.
func fieldsOf(r *http.Request, required bool) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	err := json.NewDecoder(r.Body).Decode(&fields)
	if errors.Is(err, io.EOF) && !required {
		return nil, nil
	}
	if err != nil {
		return nil, apiError{
			Code: "request_body_invalid", Message: "Request body invalid",
			LongMessage: "The request body is not a JSON object.", status: http.StatusBadRequest,
		}
	}
	return fields, nil
}

// param decodes a parameter; null leaves a value that is not a pointer as it was.
func param[T any](name string, value json.RawMessage, to *T) error {
	if err := json.Unmarshal(value, to); err != nil {
		return badParam("format_invalid", name, "is of the wrong type")
	}
	return nil
}

// text decodes a nullable string; an empty one is null too.
func text(name string, value json.RawMessage, to **string) error {
	*to = nil
	if err := param(name, value, to); err != nil {
		return err
	}
	*to = orNil(deref(*to))
	return nil
}

// olderThan reports whether a request asks for an API version before the given one,
// which is a date. Without the header it gets the newest.
func olderThan(r *http.Request, version string) bool {
	asked := r.Header.Get("Clerk-API-Version")
	return asked != "" && asked < version
}

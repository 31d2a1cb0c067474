package fakeclerk

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// fieldsOf decodes the JSON object in a request's body. If the body is not required and is empty, it
// returns no fields.
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

// param decodes a parameter. null leaves a value that is not a pointer unchanged.
func param[T any](name string, value json.RawMessage, to *T) error {
	if err := json.Unmarshal(value, to); err != nil {
		return badParam("format_invalid", name, "is of the wrong type")
	}
	return nil
}

// text decodes a nullable string. An empty string is null too.
func text(name string, value json.RawMessage, to **string) error {
	*to = nil
	if err := param(name, value, to); err != nil {
		return err
	}
	*to = orNil(deref(*to))
	return nil
}

// olderThan reports whether a request asks for an API version before the given one, a date. A
// request without the header gets the newest version.
func olderThan(r *http.Request, version string) bool {
	asked := r.Header.Get("Clerk-API-Version")
	return asked != "" && asked < version
}

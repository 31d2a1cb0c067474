package fakeclerk

import (
	"encoding/json"
	"maps"
	"net/http"
)

// mergeMetadata is PATCH /users/{id}/metadata. It merges deeply, and null removes a key.
func (s *Server) mergeMetadata(r *http.Request) answer { return s.changeMetadata(r, merge) }

// replaceMetadata is PUT /users/{id}/metadata. It replaces each kind of metadata in the request, and
// leaves the other kinds unchanged.
func (s *Server) replaceMetadata(r *http.Request) answer { return s.changeMetadata(r, replace) }

func (s *Server) changeMetadata(r *http.Request, combine func(old, patch map[string]any)) answer {
	fields, err := fieldsOf(r, false)
	if err != nil {
		return s.failed(err, "")
	}
	return s.changeUser(r, func(u *UserObject) error {
		for name, value := range fields {
			m := u.metadata(name)
			if m == nil {
				return badParam("unknown", name, "is not a valid parameter for this request")
			}
			if err := setMetadata(m, name, value, combine); err != nil {
				return err
			}
		}
		return nil
	})
}

// metadata returns the metadata of a parameter's name, or nil if there is no such metadata.
func (u *UserObject) metadata(name string) *json.RawMessage {
	switch name {
	case "public_metadata":
		return &u.PublicMetadata
	case "private_metadata":
		return &u.PrivateMetadata
	case "unsafe_metadata":
		return &u.UnsafeMetadata
	}
	return nil
}

// setMetadata decodes a parameter and combines it with the present metadata.
func setMetadata(
	to *json.RawMessage, name string, value json.RawMessage, combine func(old, patch map[string]any),
) error {
	var old, patch map[string]any
	if err := param(name, value, &patch); err != nil {
		return err
	}
	if json.Unmarshal(*to, &old) != nil || old == nil {
		old = make(map[string]any)
	}
	combine(old, patch)
	*to = mustMarshal(old)
	return nil
}

// replace makes old equal to patch.
func replace(old, patch map[string]any) {
	clear(old)
	maps.Copy(old, patch)
}

// merge merges patch into a map. A nil value removes the key.
func merge(into, patch map[string]any) {
	for k, v := range patch {
		if v == nil {
			delete(into, k)
			continue
		}
		child, isMap := v.(map[string]any)
		if !isMap {
			into[k] = v
			continue
		}
		old, isMap := into[k].(map[string]any)
		if !isMap {
			old = map[string]any{}
		}
		merge(old, child)
		into[k] = old
	}
}

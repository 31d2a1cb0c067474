package embeddeddb

import "path/filepath"

// EngineSocket is where the engine listens, without the front.
func (s *Server) EngineSocket() string { return filepath.Join(s.socketDir, socketName) }

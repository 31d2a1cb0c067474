package fakeclerk

// session is Clerk's SessionEventPayload schema.
type session struct {
	Object         string          `json:"object"`
	ID             string          `json:"id"`
	UserID         string          `json:"user_id"`
	User           *UserObject     `json:"user"`
	ClientID       string          `json:"client_id"`
	Actor          *struct{}       `json:"actor"`
	Status         string          `json:"status"`
	LastActiveOrg  *string         `json:"last_active_organization_id"`
	LastActiveAt   int64           `json:"last_active_at"`
	LatestActivity sessionActivity `json:"latest_activity"`
	ExpireAt       int64           `json:"expire_at"`
	AbandonAt      int64           `json:"abandon_at"`
	UpdatedAt      int64           `json:"updated_at"`
	CreatedAt      int64           `json:"created_at"`
}

// sessionActivity is Clerk's SessionActivityResponse schema.
type sessionActivity struct {
	Object         string `json:"object"`
	ID             string `json:"id"`
	DeviceType     string `json:"device_type"`
	IsMobile       bool   `json:"is_mobile"`
	BrowserName    string `json:"browser_name"`
	BrowserVersion string `json:"browser_version"`
	IPAddress      string `json:"ip_address"`
	City           string `json:"city"`
	Country        string `json:"country"`
}

// newSession makes the data of session.created for a user who has just signed in. It expires after 7
// days, Clerk's default: https://clerk.com/docs/guides/secure/session-options.
func (s *Server) newSession(u *UserObject) session {
	const day = 24 * 60 * 60 * 1000
	now := *u.LastSignInAt
	return session{
		Object: "session", ID: s.ids.id("sess_"), UserID: u.ID, User: u, ClientID: s.ids.id("client_"),
		Status: "active", LastActiveAt: now, CreatedAt: now, UpdatedAt: now,
		ExpireAt: now + 7*day, AbandonAt: now + 30*day,
		LatestActivity: sessionActivity{
			Object: "session_activity", ID: s.ids.id("sess_activity_"), DeviceType: "Macintosh",
			BrowserName: "Chrome", BrowserVersion: "128.0.0.0", IPAddress: clientIP,
			City: "San Francisco", Country: "US",
		},
	}
}

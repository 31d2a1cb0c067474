// Package fakeclerk is Clerk in a Go process: one Clerk instance with its Backend API,
// its JWKS and session tokens, and its webhooks signed as Svix signs them, all over real
// HTTP. It is for the tests of apps and libraries that talk to Clerk, and for trying them
// without an account. It needs no network beyond the loopback interface, no testing
// package and no sleeping.
//
//   - [Start] starts a [Server]. Its [Server.APIURL] and [Server.SecretKey] go where
//     https://api.clerk.com/v1 and the real key would.
//   - Users come and go by [Server.CreateUser], [Server.UpdateUser], [Server.DeleteUser],
//     [Server.BanUser] and [Server.SignIn], or by the official SDK through the API.
//     Either way webhooks are sent.
//   - [Config.Population] adds users by the million for load tests, made up as they are
//     asked for.
//   - [Server.SessionToken] and [Server.Token] make tokens: valid, expired, of every
//     class, forged.
//   - [Server.AddEndpoint] has the webhooks delivered, with Svix's retries. An [Endpoint]
//     can lose, delay, repeat and reorder them, have an outage, and replay.
//     [SignedRequest] makes one webhook request for a handler's unit test, without a
//     server.
//   - [Server.SetFault] makes the Backend API fail: errors, rate limits, a proxy's pages,
//     wrong or broken answers, slowness, silence.
//   - [Server.Calls] tells how many requests the code under test has made.
//
// # A test
//
// A [Clock] stands still until the test moves it, and webhooks are delivered as it moves:
// the test sees every state between, and a day of retries takes a moment. A test of an
// app whose newApp returns its http.Handler, and which greets a user by name:
//
//	func TestRenamedUserIsGreetedByNewName(t *testing.T) {
//		const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
//		clock := fakeclerk.NewClock(time.Now())
//		srv, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
//		if err != nil {
//			t.Fatal(err)
//		}
//		defer srv.Close()
//		app := httptest.NewServer(newApp(srv.APIURL(), srv.SecretKey(), secret, clock.Now))
//		defer app.Close()
//		endpoint := srv.AddEndpoint(app.URL+"/webhooks/clerk", fakeclerk.EndpointOptions{Secret: secret})
//
//		id := srv.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
//		clock.Advance(0) // delivers user.created
//
//		endpoint.SetOutage(true) // user.updated meets an outage
//		err = srv.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Augusta") })
//		if err != nil {
//			t.Fatal(err)
//		}
//		clock.Advance(0)
//		endpoint.SetOutage(false)
//		clock.Advance(5 * time.Second) // Svix tries again
//
//		r, err := http.NewRequest("GET", app.URL+"/greeting", nil)
//		if err != nil {
//			t.Fatal(err)
//		}
//		r.Header.Set("Authorization", "Bearer "+srv.SessionToken(id))
//		res, err := http.DefaultClient.Do(r)
//		if err != nil {
//			t.Fatal(err)
//		}
//		defer res.Body.Close()
//		if body, _ := io.ReadAll(res.Body); string(body) != "Hello Augusta" {
//			t.Errorf("got %q", body)
//		}
//	}
//
// Code that reads the real time, as svix-go's Verify and the official SDK's middleware do,
// follows a Clock that stays within a few seconds of it, or a server without one.
//
// # What it is not
//
// It has users, and of sessions what session.created says of them. It has no
// organizations, sign-in flows, Frontend API or Dashboard. What it does is from Clerk's
// OpenAPI files, version 2026-05-12 of the Backend API, and from Svix's documentation;
// where they are silent the comments say what was assumed.
package fakeclerk

// Package fakeclerk runs a fake Clerk in your Go process: one Clerk instance with its Backend API,
// its JWKS, its session tokens and its webhooks, signed as Svix signs them, all over real HTTP. Use
// it to test apps and libraries that talk to Clerk, or to try them without an account. It needs only
// the loopback interface, does not import the testing package and never makes a test sleep.
//
//   - [Start] starts a [Server]. Point your code at [Server.APIURL] and [Server.SecretKey] instead
//     of https://api.clerk.com/v1 and the real key.
//   - [Server.CreateUser], [Server.UpdateUser], [Server.DeleteUser], [Server.BanUser] and
//     [Server.SignIn] change users. So does the official SDK, through the API. Both send webhooks.
//   - [Config.Population] adds millions of users for load tests. They are generated on request.
//   - [Server.SessionToken] and [Server.Token] make tokens: valid, expired, of each class, or forged.
//   - [Server.AddEndpoint] delivers the webhooks, with Svix's retries. An [Endpoint] can lose, delay,
//     repeat, reorder and replay them, or have an outage. [SignedRequest] makes a single webhook
//     request for a handler's unit test, without a server.
//   - [Server.SetFault] makes the Backend API fail: with errors, rate limits, a proxy's error page,
//     wrong or broken answers, delays, or no answer at all.
//   - [Server.Calls] reports how many requests your code has made.
//   - [Config.Addr] and the control API ([ControlHelp]) let other programs use the server.
//
// # A test
//
// A [Clock] stands still until the test moves it, and webhooks wait for it. So the test sees each
// state in between, and a day of retries takes a moment. This test is for an app that greets users by
// name, whose newApp returns its http.Handler:
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
// Some code reads the real time, such as svix-go's Verify and the official SDK's middleware. For
// such code, keep the Clock within a few seconds of the real time, or run the server without one.
//
// # Other programs
//
// Command clerksync/cmd/fakeclerk serves a fake Clerk at a fixed address, for apps in any language and
// for Clerk's own command line:
//
//	go run github.com/clerksync/clerksync-go/clerksync/cmd/fakeclerk@latest \
//		-users 3 -webhook http://127.0.0.1:8080/api/webhooks/clerk
//
// Every Server, also one in a test, has a control API at [Server.ControlURL] for what Clerk's Backend
// API cannot do: people who sign up and sign in, session tokens, outages, and webhooks that are lost,
// doubled, late or out of order. [ControlHelp] lists its routes. It needs no key; a Server listens on
// the loopback interface only. [Server.Environ] is the environment of an app that uses the server.
//
// # What it does not model
//
// It models users. Of sessions, it models only the session.created event. It does not have sign-in
// flows or the Dashboard, and of the Frontend API only the JWKS. Organizations are switched off: their
// endpoints answer 403, as Clerk's do then.
//
// Its behaviour follows Clerk's OpenAPI files (https://github.com/clerk/openapi-specs, version
// 2026-05-12 of the Backend API) and Svix's documentation (https://docs.svix.com). If they do not
// say what happens, a comment in the code says what fakeclerk assumes.
package fakeclerk

package fakeclerk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	svix "github.com/svix/svix-webhooks/go"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// This tests an app that learns its users' names from webhooks.
func Example() {
	// The app. In a real test, this is your own package's handler.
	names := map[string]string{}
	webhook, err := svix.NewWebhook(webhookSecret)
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(body, r.Header); err != nil {
			http.Error(w, "bad signature", http.StatusBadRequest)
			return
		}
		var event struct{ Data clerk.User }
		if err := json.Unmarshal(body, &event); err != nil {
			http.Error(w, "bad event", http.StatusUnprocessableEntity)
			return
		}
		names[event.Data.ID] = *event.Data.FirstName
	}))
	defer app.Close()

	// Clerk, with a webhook endpoint for the app.
	clock := fakeclerk.NewClock(time.Now())
	srv, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	endpoint := srv.AddEndpoint(app.URL, fakeclerk.EndpointOptions{Secret: webhookSecret})

	// Ada signs up. The webhook is delivered when the clock advances, even by 0.
	id := srv.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	fmt.Printf("signed up: %q\n", names[id])
	clock.Advance(0)
	fmt.Printf("delivered: %q\n", names[id])

	// The next webhook meets an outage. Svix tries again five seconds later.
	endpoint.SetOutage(true)
	err = srv.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Augusta") })
	if err != nil {
		log.Fatal(err)
	}
	clock.Advance(0)
	fmt.Printf("outage: %q\n", names[id])
	endpoint.SetOutage(false)
	clock.Advance(5 * time.Second)
	fmt.Printf("retried: %q after %d attempts\n", names[id], len(endpoint.Messages()[1].Attempts))

	// The official SDK works as it does with the real Clerk.
	users := user.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: clerk.String(srv.APIURL()), Key: clerk.String(srv.SecretKey()), HTTPClient: http.DefaultClient,
	}})
	u, err := users.Get(context.Background(), id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Backend API: %q in %d call\n", *u.FirstName, srv.Calls("GET /v1/users/{id}"))

	// Output:
	// signed up: ""
	// delivered: "Ada"
	// outage: "Ada"
	// retried: "Augusta" after 2 attempts
	// Backend API: "Augusta" in 1 call
}

// A unit test of a webhook handler needs only a signed request, not a server.
func ExampleSignedRequest() {
	webhook, err := svix.NewWebhook(webhookSecret)
	if err != nil {
		log.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if webhook.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})

	for _, secret := range []string{webhookSecret, "whsec_c29tZWJvZHkgZWxzZSdz"} {
		r := fakeclerk.SignedRequest(context.Background(), "/webhooks/clerk", secret, fakeclerk.Event{
			Type: "user.created",
			Data: fakeclerk.NewUser{FirstName: "Ada"}.Object(time.Now()),
		})
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// 204
	// 400
}

// An app must not accept the last two of these tokens, although Clerk's key signed them.
func ExampleServer_Token() {
	clock := fakeclerk.NewClock(time.Now())
	srv, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	key, err := clerk.JSONWebKeyFromPEM(srv.JWTKey())
	if err != nil {
		log.Fatal(err)
	}
	for _, opts := range []fakeclerk.TokenOptions{
		{AuthorizedParty: "https://app.example.com"},
		{AuthorizedParty: "https://evil.example.com"},
		{AuthorizedParty: "https://app.example.com", ExpiresAt: clock.Now().Add(-time.Hour)},
	} {
		token, err := srv.Token("user_ada", opts)
		if err != nil {
			log.Fatal(err)
		}
		_, err = jwt.Verify(context.Background(), &jwt.VerifyParams{
			Token: token, JWK: key, Clock: clock,
			AuthorizedPartyHandler: func(azp string) bool { return azp == "https://app.example.com" },
		})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// invalid authorized party https://evil.example.com
	// go-jose/go-jose/jwt: validation failed, token is expired (exp)
}

// This shows the official SDK a rate limit and a proxy's error page, then Clerk's own answer.
func ExampleServer_SetFault() {
	srv, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	id := srv.CreateUser(fakeclerk.NewUser{})
	users := user.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: clerk.String(srv.APIURL()), Key: clerk.String(srv.SecretKey()), HTTPClient: http.DefaultClient,
	}})

	limited := fakeclerk.ErrorFault(http.StatusTooManyRequests, "too_many_requests")
	limited.Header.Set("Retry-After", "2")
	page := &fakeclerk.Fault{Status: http.StatusBadGateway, ContentType: "text/html", Body: "<html>502</html>"}
	for _, fault := range []*fakeclerk.Fault{limited, page, nil} {
		srv.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
		u, err := users.Get(context.Background(), id)
		if apiErr, ok := err.(*clerk.APIErrorResponse); ok {
			fmt.Println(apiErr.HTTPStatusCode, "Retry-After", apiErr.Response.Header.Get("Retry-After"))
		} else if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println(u.ID == id)
		}
	}
	// Output:
	// 429 Retry-After 2
	// <html>502</html>
	// true
}

// Other programs use the control API. Here, somebody signs up and signs in.
func ExampleServer_ControlURL() {
	srv, err := fakeclerk.Start(fakeclerk.Config{Addr: "127.0.0.1:0"}) // a program of its own has a fixed port
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	post := func(route, body string, to any) {
		res, err := http.Post(srv.ControlURL()+route, "application/json", strings.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(to); err != nil {
			log.Fatal(err)
		}
	}
	var ada clerk.User
	post("/users", `{"first_name": "Ada", "email": "ada@example.com"}`, &ada)
	var session struct {
		UserID string `json:"user_id"`
		Token  string `json:"token"`
	}
	post("/sessions", `{"user_id": "`+ada.ID+`", "seconds": 3600}`, &session)
	fmt.Println(*ada.FirstName, session.UserID == ada.ID, strings.Count(session.Token, "."))
	// Output:
	// Ada true 2
}

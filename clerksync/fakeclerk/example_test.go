package fakeclerk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	svix "github.com/svix/svix-webhooks/go"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// An app that keeps its users' names up to date by webhooks, and its test.
func Example() {
	// The app: in real life the handler of a package of your own.
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

	// Clerk, and its webhook endpoint for the app.
	clock := fakeclerk.NewClock(time.Now())
	srv, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	endpoint := srv.AddEndpoint(app.URL, fakeclerk.EndpointOptions{Secret: webhookSecret})

	// Somebody signs up. The webhook arrives when the clock is told to go on.
	id := srv.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	fmt.Printf("signed up: %q\n", names[id])
	clock.Advance(0)
	fmt.Printf("delivered: %q\n", names[id])

	// A webhook meets an outage; Svix tries again five seconds later.
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

	// The official SDK talks to it as to the real one.
	users := user.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: clerk.String(srv.APIURL()), Key: clerk.String(srv.SecretKey()),
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

// A webhook handler's unit test needs no server, just a signed request.
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

// Tokens that an app must refuse, though Clerk's key signed each of them.
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

// How an app takes a rate limit, and a proxy's error page in Clerk's place.
func ExampleServer_SetFault() {
	srv, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	id := srv.CreateUser(fakeclerk.NewUser{})
	users := user.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: clerk.String(srv.APIURL()), Key: clerk.String(srv.SecretKey()),
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

//go:build browser

package story

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "a folder for pictures of the page")

// step presses a button and waits until the page shows what the button is for. Before it, the page
// must not show that, so that a button that does nothing is found.
type step struct {
	press   string // the button's data-do
	nth     int    // of "send": which webhook, newest first
	until   string // JavaScript
	picture string
	delay   time.Duration // of webhooks, from now on
}

// These are conditions in JavaScript, with the functions of conditions.
const conditions = `(() => {
	const text = id => document.getElementById(id).textContent;
	const is = (id, want) => text(id) === want;
	const status = want => document.getElementById("verdict").className === want;
	const value = key => { const tr = document.querySelector("#record tr[data-key=" + key + "]"); return tr ? tr.querySelector("td span").textContent : ""; };
	const differs = key => document.querySelector("#record tr[data-key=" + key + "] .differs").textContent;
	const changed = key => document.querySelector("#record tr[data-key=" + key + "]").classList.contains("changed");
	const webhook = n => { const li = document.querySelectorAll("#deliveries li")[n]; return li ? li.querySelector(".text").textContent : ""; };
	const pressed = name => document.querySelector("button[data-do=" + name + "]").getAttribute("aria-pressed") === "true";
	const disabled = name => document.querySelector("button[data-do=" + name + "]").getAttribute("aria-disabled") === "true";
	const label = name => document.querySelector("button[data-do=" + name + "]").textContent;
	const last = () => document.querySelector("#lines li").textContent;
	const said = want => [...document.querySelectorAll("#lines li")].slice(0, 4).some(li => li.textContent.includes(want));
	return %s;
})()`

var steps = []step{
	{press: "signup", until: `status("in") && value("name") === "Mary Fairfax" && webhook(0) === "arrived: record created" && text("facts").endsWith("Welcome mails sent: 1")`, picture: "1-signed-up"},

	// A lost webhook, and the visit that repairs the record.
	{press: "drop", until: `pressed("drop")`},
	{press: "rename", until: `status("out") && differs("name") === "≠ Clerk: Mary Greig" && webhook(0) === "lost on its way" && !pressed("drop") && said("out of step")`, picture: "2-lost"},
	{press: "visit", until: `status("in") && value("name") === "Mary Greig" && changed("name") && !changed("email") && said("asked Clerk first: record updated") && said("in step again")`, picture: "3-visited"},
	{press: "send", until: `webhook(0) === "arrived: record already in step"`},

	{press: "double", until: `pressed("double")`},
	{press: "ban", until: `status("in") && value("banned") === "yes" && label("ban") === "Unban" && webhook(0).startsWith("arrived 2 times: record updated; then record already in step")`},
	{press: "visit", until: `said("refused with 403 (user_inactive)")`},
	{press: "ban", until: `status("in") && value("banned") === "no" && label("ban") === "Ban"`},

	{press: "delay", until: `pressed("delay")`, delay: time.Hour}, // until "Deliver now"
	{press: "rename", until: `status("out") && webhook(0).startsWith("late: arrives in ")`, picture: "4-late"},
	{press: "send", until: `status("in") && value("name") === "Mary Somerville" && webhook(0) === "arrived: record updated"`},

	{press: "reorder", until: `pressed("reorder")`},
	{press: "rename", until: `status("out") && webhook(0) === "waits until the next one has gone"`},
	{press: "ban", until: `status("in") && webhook(0) === "arrived: record updated" && webhook(1) === "arrived: older than the record, ignored"`, picture: "5-reordered"},
	{press: "ban", until: `status("in") && value("banned") === "no"`},

	// Clerk's API is down: a visit cannot ask it.
	{press: "clerk", until: `pressed("clerk")`},
	{press: "drop", until: `pressed("drop")`},
	{press: "rename", until: `status("out")`},
	{press: "visit", until: `said("Visit: answered with the record") && status("out")`},
	{press: "clerk", until: `!pressed("clerk")`},
	{press: "reconcile", until: `status("in") && value("name") === "Mary Greig"`},

	// MongoDB is down: Clerk sends the webhook again.
	{press: "mongo", until: `pressed("mongo")`},
	{press: "rename", until: `status("out") && webhook(0).startsWith("failed: Clerk tries again in ")`, picture: "6-mongo-down"},
	{press: "mongo", until: `!pressed("mongo")`},
	{press: "visit", until: `status("in") && value("name") === "Mary Somerville" && said("Visit: ")`},

	// A deletion is final.
	{press: "drop", until: `pressed("drop")`},
	{press: "delete", until: `status("out") && disabled("rename") && disabled("ban") && disabled("delete")`},
	{press: "reconcile", until: `status("in") && value("deleted").startsWith("at ") && changed("deleted")`, picture: "7-deleted"},
	{press: "send", nth: -1, until: `status("in") && said("the user is deleted, ignored")`},
	{press: "drop", until: `pressed("drop")`},
	{press: "drop", until: `!pressed("drop")`},
	{press: "signup", until: `status("in") && value("name") === "Hedy Kiesler" && !disabled("rename")`},

	// A late webhook arrives by itself.
	{press: "delay", until: `pressed("delay")`, delay: time.Millisecond},
	{press: "rename", until: `status("in") && value("name") === "Hedy Lamarr" && webhook(0) === "arrived: record updated" && text("facts").endsWith("Welcome mails sent: 1")`},
}

// Every button of the page does what it says, in a real browser.
func TestPageInBrowser(t *testing.T) {
	t.Parallel()
	d, err := startDemo(t.Context(), &Printer{out: new(bytes.Buffer)}, demoOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = d.close()
		}
	}()
	d.serving.Store(true)
	b := openBrowser(t)
	b.do(t, chromedp.EmulateViewport(1280, 800), emulate("light"), chromedp.Navigate(d.pageURL))
	b.wait(t, `status("nobody") && disabled("rename") && disabled("visit") && !disabled("signup")`)
	b.picture(t, "0-nobody")

	pressed := make(map[string]bool)
	for i, s := range steps {
		if b.eval(t, s.until) {
			t.Fatalf("step %d: before %q was pressed, the page already shows %s", i, s.press, s.until)
		}
		if s.delay != 0 {
			d.page.mu.Lock()
			d.page.delay = s.delay
			d.page.mu.Unlock()
		}
		selector := "button[data-do=" + s.press + "]"
		if s.nth < 0 {
			selector = "#deliveries li:last-child " + selector
		}
		b.do(t, chromedp.ScrollIntoView(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
		b.wait(t, s.until)
		if s.picture != "" {
			b.picture(t, s.picture)
		}
		pressed[s.press] = true
	}
	actions, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](`[...document.querySelectorAll("button")].map(b => b.dataset.do)`))
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range actions {
		if !pressed[action] {
			t.Errorf("the button %q was never pressed", action)
		}
	}

	// Neither size needs scrolling sideways, and a page that is opened later shows the same.
	for _, width := range []int64{1280, 768, 360} {
		b.do(t, chromedp.EmulateViewport(width, 800), chromedp.Navigate(d.pageURL))
		b.wait(t, `status("in") && document.documentElement.scrollWidth <= innerWidth`)
	}
	b.do(t, chromedp.EmulateViewport(390, 844))
	b.picture(t, "8-phone")
	b.do(t, chromedp.EmulateViewport(1280, 800), emulate("dark"))
	b.picture(t, "9-dark")

	if messages := b.console(); len(messages) > 0 {
		t.Errorf("the browser's console has %q", messages)
	}

	closed = true
	if err := d.close(); err != nil {
		t.Error(err)
	}
	b.wait(t, `text("error").startsWith("The quickstart has ended")`)
}

// emulate also turns off animations, so that pictures do not depend on the moment.
func emulate(colours string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: colours}, {Name: "prefers-reduced-motion", Value: "reduce"},
			},
		})
		return err
	})
}

type browser struct {
	ctx context.Context

	mu       sync.Mutex
	messages []string
}

// console returns what the browser has complained about.
func (b *browser) console() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// openBrowser starts Chromium, without its sandbox because CI runs as root.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
	)
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), opts...) // it ends in Cleanup
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("the browser did not end: %v", err)
		}
		cancel()
		cancelAllocator()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium (Debian's package chromium has it): %v", err)
	}
	b := &browser{ctx: ctx}
	console := chromedp.Console(ctx)
	go func() {
		for m, err := range console {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.messages = append(b.messages, m.String())
			b.mu.Unlock()
		}
	}()
	return b
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

func (b *browser) eval(t *testing.T, condition string) bool {
	t.Helper()
	holds, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](fmt.Sprintf(conditions, "!!("+condition+")")))
	if err != nil {
		t.Fatalf("%s: %v", condition, err)
	}
	return holds
}

// wait waits for a condition of the page.
func (b *browser) wait(t *testing.T, condition string) {
	t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](fmt.Sprintf(conditions, "!!("+condition+")"), chromedp.WithPollingTimeout(time.Minute)))
	if err != nil {
		page, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("waiting for %s: %v; the page:\n%s", condition, err, page)
	}
}

func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(*screenshots, "page-"+name+".png"), png, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

package web

import (
	_ "embed"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"

	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/oauth"
)

// The pages are made by functions and not by html/template, which calls methods by name, so that the linker keeps every method of
// every package in each worker (docs/adr/0016). What is shown is escaped where it is put, by g.Text and the attributes; an address
// of somebody else's in href must have been checked to be https before (oauth.Client).

//go:embed style.css
var style string

// page is what the pages show. Each uses a part of it.
type page struct {
	Title, Server, Problem, Said string

	Path     string
	Client   *oauth.Client
	Request  string // sealed: the request, or the ticket of who logged in
	Username string

	Registers, Creating, NeedsToken bool

	Session, Token, Next, NextHost string
	Email, Letter                  string
	Terms, Links                   []account.Document

	Action, DeviceID, Ask, Button string
	Devices                       []account.Device
	DisplayName                   string
}

// frame is what all pages have around their body.
func frame(p *page, body ...g.Node) g.Node {
	return h.Doctype(h.HTML(
		h.Lang("en"),
		h.Head(
			h.Meta(h.Charset("utf-8")),
			h.Meta(h.Name("viewport"), h.Content("width=device-width, initial-scale=1")),
			h.Meta(h.Name("robots"), h.Content("noindex")),
			h.TitleEl(g.Text(p.Title+" · "+p.Server)),
			h.StyleEl(g.Raw(style)),
		),
		h.Body(h.Main(
			h.P(h.Class("server"), g.Text(p.Server)),
			h.H1(g.Text(p.Title)),
			g.If(p.Problem != "", h.P(h.Class("problem"), h.Role("alert"), g.Text(p.Problem))),
			g.Group(body),
		)),
	))
}

func messagePage(p *page) g.Node { return frame(p, h.P(g.Text(p.Said))) }

// loginPage asks for what an app may do, and who allows it.
func loginPage(p *page) g.Node {
	swap, swapText := doCreate, "I have no account yet"
	if p.Creating {
		swap, swapText = doHave, "I have an account"
	}
	return frame(p,
		h.P(h.Class("client"), h.Strong(g.Text(p.Client.Title())), g.Text(" ("+p.Client.Host()+
			") wants to use your account: to read and send messages and to change your settings in your name.")),
		document(p.Client.TermsURI, "Its terms"),
		document(p.Client.PolicyURI, "Its privacy policy"),
		h.Form(
			h.Method("post"), h.Action(p.Path),
			hidden("request", p.Request),
			g.If(p.Letter != "", sent(p)),
			credentials(p),
			g.If(p.Creating && p.NeedsToken, h.Label(g.Text("Registration token"),
				h.Input(h.Name("token"), h.AutoComplete("off"), h.MaxLength("64"), h.Required()))),
			g.If(p.Creating, terms(p.Terms)),
			g.If(p.Creating, button("", doRegister, "Create the account and allow")),
			g.If(!p.Creating, button("", doLogin, "Log in and allow")),
			button("second", doDeny, "Refuse", h.FormNoValidate()),
			g.If(p.Registers, button("link", swap, swapText, h.FormNoValidate())),
		),
	)
}

// emailPage asks for an e-mail address, before an account is made.
func emailPage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("An account needs an e-mail address, which you confirm first.")),
		h.Form(
			h.Method("post"), h.Action(p.Path),
			hidden("request", p.Request),
			emailInput(p),
			button("", doLetter, "Send a mail"),
			button("second", doDeny, "Refuse", h.FormNoValidate()),
			button("link", doHave, "I have an account", h.FormNoValidate()),
		),
	)
}

func emailInput(p *page) g.Node {
	return h.Label(g.Text("E-mail address"), h.Input(h.Name("email"), h.Type("email"), h.Value(p.Email), h.AutoComplete("email"), h.MaxLength("254"),
		h.Required(), h.AutoFocus()))
}

// sent says that a letter was sent, and keeps what shows that its link was opened.
func sent(p *page) g.Node {
	return g.Group{
		hidden("letter", p.Letter), hidden("email", p.Email),
		h.P(h.Class("said"), g.Text("A mail is on its way to "+p.Email+". Open the link in it, and then go on here.")),
	}
}

// letterPage is where the link of a letter leads.
func letterPage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("Press the button to confirm that you read what is sent to your e-mail address.")),
		h.Form(
			h.Method("post"), h.Action(p.Path),
			hidden("session", p.Session), hidden("token", p.Token),
			h.Button(g.Text("Confirm")),
		),
		h.P(h.Class("small"), g.Text("If you did not ask for this, close the page.")),
	)
}

func confirmedPage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("Your e-mail address is confirmed. Go back to where you were asked for it.")),
		g.If(p.Next != "", h.P(h.Class("small"), g.Text("Your app says that you go on at "), h.A(h.Href(p.Next), h.Rel("noreferrer"), g.Text(p.NextHost)),
			g.Text(". Follow this only if you know it."))),
	)
}

// choicePage lets the person choose a provider.
func choicePage(p *page) g.Node {
	return frame(p, h.Ul(g.Map(p.Links, func(d account.Document) g.Node { return h.Li(h.A(h.Href(d.URL), g.Text("Log in with "+d.Name))) })))
}

// namePage asks for the name of a new account, for somebody who has logged in at a provider.
func namePage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("You have no account here yet. How do you want to be called? This name stays.")),
		h.Form(
			h.Method("post"), h.Action(p.Path),
			hidden("state", p.Session), hidden("request", p.Request),
			h.Label(g.Text("User name"), h.Input(h.Name("username"), h.Value(p.Username), h.AutoComplete("username"), autoCapitalize("none"),
				noSpellcheck(), h.MaxLength("255"), h.Required(), h.AutoFocus())),
			terms(p.Terms),
			button("", doCreate, "Create the account"),
		),
	)
}

// handOverPage asks whether to go on to an app: whoever it is can then act as the person.
func handOverPage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("You are about to log in as "+p.Username+" in the app at "), h.Strong(g.Text(p.NextHost)),
			g.Text(", which can then read and send messages in your name. Go on only if you have just begun to log in there.")),
		h.Form(
			h.Method("post"), h.Action(p.Path),
			hidden("state", p.Session), hidden("request", p.Request),
			button("", "go", "Go on to "+p.NextHost),
		),
	)
}

// stagePage asks whether the person has begun what is to be confirmed.
func stagePage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("An app asks you to confirm something that changes your account, such as the removal of a device. Go on only if you have just begun "+
			"that yourself.")),
		g.Map(p.Links, func(d account.Document) g.Node {
			return h.Form(
				h.Method("post"), h.Action(p.Path),
				hidden("session", p.Session), hidden("provider", d.URL),
				h.Button(g.Text("Confirm with "+d.Name)),
			)
		}),
	)
}

// doneScript tells an app that a stage was passed (spec: "Fallback").
const doneScript = `if(window.onAuthDone){window.onAuthDone()}else if(window.opener&&window.opener.postMessage){window.opener.postMessage("authDone","*")}`

func donePage(p *page) g.Node {
	return frame(p, h.P(g.Text("This is confirmed. Go back to the app; you can close this page.")), h.Script(g.Raw(doneScript)))
}

// terms are what somebody agrees to; their addresses are the configuration's.
func terms(list []account.Document) g.Node {
	if len(list) == 0 {
		return nil
	}
	return h.Label(h.Class("check"), h.Input(h.Type("checkbox"), h.Name("agree"), h.Value("yes"), h.Required()), g.Text(" I agree to: "),
		g.Map(list, func(d account.Document) g.Node {
			return h.Span(h.A(h.Href(d.URL), h.Target("_blank"), h.Rel("noreferrer noopener"), g.Text(d.Name)), g.Text(" "))
		}))
}

// linkPage asks for the code that a device without a browser shows.
func linkPage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("Enter the code that your other device shows. Go on only if you have just begun to log in there yourself.")),
		h.Form(
			h.Method("get"), h.Action(p.Path),
			h.Label(g.Text("Code"), h.Input(h.Name("code"), h.Value(p.Username), h.AutoComplete("off"), autoCapitalize("characters"),
				noSpellcheck(), h.MaxLength("16"), h.Required(), h.AutoFocus())),
			h.Button(g.Text("Go on")),
		),
	)
}

// accountPage asks who it is, before an action.
func accountPage(p *page) g.Node {
	return frame(p, h.Form(
		h.Method("post"), h.Action(p.Path),
		hidden("action", p.Action),
		hidden("device_id", p.DeviceID),
		h.P(g.Text(p.Ask)),
		credentials(p),
		h.Button(g.Text(p.Button)),
	))
}

// devicesPage is where people look after their account once they have logged in.
func devicesPage(p *page) g.Node {
	form := func(nodes ...g.Node) g.Node {
		return h.Form(h.Method("post"), h.Action(p.Path), hidden("ticket", p.Request), g.Group(nodes))
	}
	devices := g.Map(p.Devices, func(d account.Device) g.Node {
		name, seen := d.DisplayName, d.DeviceID
		if name == "" {
			name = d.DeviceID
		}
		if d.LastSeenIP != "" {
			seen += " · last seen from " + d.LastSeenIP
		}
		return h.Li(form(
			hidden("device_id", d.DeviceID),
			h.Span(h.Strong(g.Text(name)), h.Br(), h.Small(g.Text(seen))),
			action(oauth.ActionDelete, "Log it out"),
		))
	})
	return frame(p,
		g.If(p.Said != "", h.P(h.Class("said"), h.Role("status"), g.Text(p.Said))),
		h.P(g.Text("Logged in as "+p.Username+".")),
		h.H2(g.Text("Devices")),
		h.Ul(devices, g.If(len(p.Devices) == 0, h.Li(g.Text("None.")))),
		h.H2(g.Text("Profile")),
		form(
			h.Label(g.Text("Display name"), h.Input(h.Name("displayname"), h.Value(p.DisplayName), h.MaxLength("256"))),
			action(oauth.ActionProfile, "Save"),
		),
		h.H2(g.Text("Encryption")),
		form(
			h.P(g.Text("If you have lost all your devices and your recovery key, your identity can be made anew. Others will be told that it changed.")),
			action(oauth.ActionReset, "Let an app make it anew"),
		),
		h.H2(g.Text("End of the account")),
		h.P(h.A(h.Href(p.Path+"?action="+oauth.ActionDeactivate), g.Text("Deactivate the account"))),
	)
}

// credentials are the fields for who somebody is.
func credentials(p *page) g.Node {
	kind := "current-password"
	if p.Creating {
		kind = "new-password"
	}
	return g.Group{
		h.Label(g.Text("User name"), h.Input(h.Name("username"), h.Value(p.Username), h.AutoComplete("username"), autoCapitalize("none"),
			noSpellcheck(), h.MaxLength("255"), h.Required(), g.If(p.Username == "", h.AutoFocus()))),
		h.Label(g.Text("Password"), h.Input(h.Name("password"), h.Type("password"), h.AutoComplete(kind), h.MaxLength("512"), h.Required())),
	}
}

func document(uri, text string) g.Node {
	return g.If(uri != "", h.P(h.Class("small"), h.A(h.Href(uri), h.Rel("noreferrer"), g.Text(text))))
}

func hidden(name, value string) g.Node {
	return h.Input(h.Type("hidden"), h.Name(name), h.Value(value))
}

// button is one of several that tell what to do.
func button(class, do, text string, more ...g.Node) g.Node {
	return h.Button(g.If(class != "", h.Class(class)), h.Name("do"), h.Value(do), g.Group(more), g.Text(text))
}

func action(do, text string) g.Node {
	return h.Button(h.Class("second"), h.Name("action"), h.Value(do), g.Text(text))
}

func autoCapitalize(v string) g.Node { return g.Attr("autocapitalize", v) }
func noSpellcheck() g.Node           { return g.Attr("spellcheck", "false") }

package letter

import (
	"html"
	"strings"

	"github.com/heddle-im/heddle/pkg/service/account"
)

// text is what a letter says, apart from its form.
type text struct {
	subject string
	// before stands above the link, after below it.
	before       string
	button, link string
	after        string
}

// textOf words the letter for a purpose, or why the address does not fit it. (Not by templates: docs/adr/0016.)
func textOf(p account.Purpose, fits bool, server string) text {
	const once = "The link is good once, and for an hour. "
	const nothing = "If you did not ask for this, there is nothing to do."
	who := "Somebody, hopefully you, "
	switch {
	case p == account.PurposeReset && fits:
		return text{
			subject: "A new password for " + server,
			before:  who + "wants to set a new password for your account on " + server + ". If it is you, confirm that here, and then go back to your app.",
			button:  "Yes, it is me",
			after: once + "If you did not ask for this, leave it: your password stays as it is. Whoever asks you for this link is not from " +
				server + ".",
		}
	case p == account.PurposeReset:
		return text{
			subject: "No account on " + server + " has this address",
			before: who + "wants to set a new password for an account on " + server + " with this e-mail address. There is no account with it: " +
				"perhaps yours has another address.",
			after: nothing,
		}
	case p == account.PurposeAdd && fits:
		return text{
			subject: "Confirm your e-mail address for " + server,
			before:  who + "wants to add this e-mail address to an account on " + server + ".",
			button:  "Confirm the address",
			after:   once + "If you did not ask for this, leave it: nothing happens then.",
		}
	case p == account.PurposeAdd:
		return text{
			subject: "Your e-mail address on " + server,
			before: who + "wants to add this e-mail address to an account on " + server + ". It belongs to an account there already. To use it with " +
				"another, remove it from the first.",
			after: nothing,
		}
	case fits:
		return text{
			subject: "Confirm your e-mail address for " + server,
			before:  who + "is making an account on " + server + " with this e-mail address.",
			button:  "Confirm the address",
			after:   once + "If you did not ask for this, leave it: no account is made.",
		}
	}
	return text{
		subject: "You have an account on " + server + " already",
		before: who + "wants to make an account on " + server + " with this e-mail address. There is an account with it already. If it is yours, " +
			"log in with it; if you do not remember the password, ask your app to set a new one.",
		after: nothing,
	}
}

func (t *text) plain() string {
	parts := []string{t.before}
	if t.link != "" {
		parts = append(parts, "Open this page and press the button:", t.link)
	}
	return strings.Join(append(parts, t.after), "\n\n") + "\n"
}

func (t *text) html(server string) string {
	e := html.EscapeString
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>` + e(t.subject) + `</title></head>
<body style="font:16px/1.5 sans-serif;max-width:32em;margin:2em auto;padding:0 1em">
<p style="opacity:.75;font-size:13px">` + e(server) + `</p>
<h1 style="font-size:20px">` + e(t.subject) + `</h1>
<p>` + e(t.before) + `</p>
`)
	if t.link != "" {
		b.WriteString(`<p><a href="` + e(t.link) + `" style="display:inline-block;padding:10px 18px;border-radius:6px;background:#0b6e5f;color:#ffffff;` +
			`text-decoration:none">` + e(t.button) + `</a></p>
<p style="font-size:13px">If the button does not work, open<br><a href="` + e(t.link) + `">` + e(t.link) + `</a></p>
`)
	}
	b.WriteString(`<p style="font-size:13px">` + e(t.after) + "</p>\n</body></html>\n")
	return b.String()
}

// Package preview reads from a page of the web what it says of itself: OpenGraph, and where that is missing, what comes near it.
//
// Guarantees: it reads no more than it is given leave to; what it gives is bounded in number and length, valid UTF-8 and free of control
// characters; it runs nothing, and asks nobody. It computes: bytes in, values out, and belongs to service/media.
package preview

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

// Bounds of what is read and given.
const (
	maxPage       = 1 << 20
	maxProperties = 50
	maxValue      = 1000
	maxName       = 100
	maxText       = 500
	maxToken      = 256 << 10
)

// Page is what a page says of itself.
type Page struct {
	// Properties are those whose names begin with "og:"; og:image is left out.
	Properties map[string]string
	// Image is the URL of a picture of it, nil if there is none.
	Image *url.URL
}

// reader is a page that is being read.
type reader struct {
	page                                   Page
	title, heading, description, firstText strings.Builder
	ogImage, otherImage, firstImage        string
	in                                     atom.Atom // the element whose text is being read
	hidden                                 int       // how many elements are open whose text nobody sees
}

// Read reads a page that was found at a URL. contentType is what its server said of it.
func Read(r io.Reader, contentType string, at *url.URL) (Page, error) {
	decoded, err := charset.NewReader(io.LimitReader(r, maxPage), contentType)
	if errors.Is(err, io.EOF) {
		decoded, err = strings.NewReader(""), nil
	}
	if err != nil {
		return Page{}, err
	}
	p := &reader{page: Page{Properties: map[string]string{}}}
	z := html.NewTokenizer(decoded)
	z.SetMaxBuf(maxToken)
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			break // the end, or what cannot be read any more: what came before it counts
		}
		p.token(z, kind)
	}
	return p.finish(at), nil
}

func (p *reader) token(z *html.Tokenizer, kind html.TokenType) {
	switch kind {
	case html.TextToken:
		p.text(z.Text())
	case html.StartTagToken, html.SelfClosingTagToken:
		name, more := z.TagName()
		a := atom.Lookup(name)
		switch a {
		case atom.Meta, atom.Link, atom.Img:
			if more {
				p.element(a, attributes(z))
			}
		case atom.Title, atom.H1, atom.P:
			p.in = a
		case atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Nav, atom.Header, atom.Footer, atom.Svg:
			if kind == html.StartTagToken {
				p.hidden++
			}
		}
	case html.EndTagToken:
		name, _ := z.TagName()
		switch a := atom.Lookup(name); a {
		case atom.Title, atom.H1, atom.P:
			if a == atom.P {
				write(&p.firstText, []byte(" "))
			}
			p.in = 0
		case atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Nav, atom.Header, atom.Footer, atom.Svg:
			p.hidden = max(0, p.hidden-1)
		}
	}
}

// maxAttributes bounds what is looked at of an element.
const maxAttributes = 30

func attributes(z *html.Tokenizer) map[string]string {
	out := map[string]string{}
	for range maxAttributes {
		k, v, more := z.TagAttr()
		if _, twice := out[string(k)]; !twice {
			out[string(k)] = string(v)
		}
		if !more {
			break
		}
	}
	return out
}

func (p *reader) element(a atom.Atom, at map[string]string) {
	switch a {
	case atom.Meta:
		name := at["property"]
		if name == "" {
			name = at["name"]
		}
		p.meta(strings.ToLower(strings.TrimSpace(name)), at["content"])
	case atom.Link:
		for rel := range strings.FieldsSeq(strings.ToLower(at["rel"])) {
			if rel == "image_src" || rel == "apple-touch-icon" {
				first(&p.otherImage, at["href"])
			}
		}
	case atom.Img:
		if p.hidden == 0 {
			first(&p.firstImage, at["src"])
		}
	}
}

func first(to *string, v string) {
	if v = strings.TrimSpace(v); *to == "" && v != "" && !strings.HasPrefix(v, "data:") {
		*to = v
	}
}

func (p *reader) meta(name, content string) {
	switch name {
	case "description":
		write(&p.description, []byte(content))
		return
	case "og:image", "og:image:url", "og:image:secure_url":
		first(&p.ogImage, content)
		return
	case "twitter:image", "twitter:image:src":
		first(&p.otherImage, content)
		return
	case "twitter:title", "twitter:description", "twitter:site":
		name = map[string]string{"twitter:title": "og:title", "twitter:description": "og:description", "twitter:site": "og:site_name"}[name]
		if _, ok := p.page.Properties[name]; ok {
			return
		}
	}
	// What is said of the picture is found out by looking at it.
	if !strings.HasPrefix(name, "og:") || strings.HasPrefix(name, "og:image") || len(name) > maxName || !printable(name) {
		return
	}
	content = clean(content, maxValue)
	_, known := p.page.Properties[name]
	if content != "" && !known && len(p.page.Properties) < maxProperties {
		p.page.Properties[name] = content
	}
}

func (p *reader) text(b []byte) {
	if p.hidden > 0 && p.in != atom.Title {
		return
	}
	switch p.in {
	case atom.Title:
		write(&p.title, b)
	case atom.H1:
		write(&p.heading, b)
	case atom.P:
		write(&p.firstText, b)
	}
}

// write adds to a text that has an end.
func write(to *strings.Builder, b []byte) {
	if left := 4*maxText - to.Len(); left > 0 {
		to.Write(b[:min(left, len(b))])
	}
}

func (p *reader) finish(at *url.URL) Page {
	fallback := func(name string, from ...string) {
		for _, s := range from {
			if s = clean(s, maxText); s != "" && p.page.Properties[name] == "" {
				p.page.Properties[name] = s
			}
		}
	}
	fallback("og:title", p.title.String(), p.heading.String())
	fallback("og:description", p.description.String(), p.firstText.String())
	for _, s := range []string{p.ogImage, p.otherImage, p.firstImage} {
		if s == "" || len(s) > 4<<10 {
			continue
		}
		if u, err := at.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
			p.page.Image = u
			break
		}
	}
	return p.page
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= utf8.RuneSelf }) < 0
}

// clean makes a text of one line that is not too long.
func clean(s string, most int) string {
	var b bytes.Buffer
	space := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case r == utf8.RuneError, unicode.Is(unicode.C, r):
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		if b.Len()+utf8.RuneLen(r) > most {
			return strings.TrimSpace(b.String()) + "…"
		}
		b.WriteRune(r)
	}
	return b.String()
}

package preview

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func read(t testing.TB, page, contentType string) Page {
	t.Helper()
	at, err := url.Parse("https://example.org/dir/page.html")
	require.NoError(t, err)
	p, err := Read(strings.NewReader(page), contentType, at)
	require.NoError(t, err)
	return p
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		page, contentType string
		want              map[string]string
		image             string
	}{
		"OpenGraph": {
			`<html prefix="og: http://ogp.me/ns#"><head><title>The Rock (1996)</title><meta property="og:title" content="The Rock" />
			<meta property="og:type" content="video.movie" /><meta property="og:url" content="http://www.imdb.com/title/tt0117500/" />
			<meta property="og:image" content="test.png" /><meta property="og:image:width" content="9"></head><body></body></html>`, "text/html",
			map[string]string{"og:title": "The Rock", "og:type": "video.movie", "og:url": "http://www.imdb.com/title/tt0117500/"},
			"https://example.org/dir/test.png",
		},
		"title and description": {
			`<title> A
			page &amp; more</title><meta name=description content="about it"><link rel="icon apple-touch-icon" href="/icon.png">`, "text/html",
			map[string]string{"og:title": "A page & more", "og:description": "about it"},
			"https://example.org/icon.png",
		},
		"text": {
			`<body><nav><p>menu</p></nav><h1>Heading</h1><script>var x = "<p>no</p>"</script><p>First <b>words</b>.</p><p>Others.</p><img src="//cdn.example.org/a.jpg">`,
			"text/html",
			map[string]string{"og:title": "Heading", "og:description": "First words. Others."},
			"https://cdn.example.org/a.jpg",
		},
		"twitter": {
			`<meta name="twitter:title" content="T"><meta name="twitter:image" content="https://example.org/t.png"><meta property="og:title" content="O">`,
			"text/html",
			map[string]string{"og:title": "T"},
			"https://example.org/t.png",
		},
		"charset of the header":  {"<title>Gr\xfc\xdfe</title>", "text/html; charset=iso-8859-1", map[string]string{"og:title": "Grüße"}, ""},
		"charset of the page":    {"<meta charset=windows-1251><title>\xcf\xf0\xe8\xe2\xe5\xf2</title>", "text/html", map[string]string{"og:title": "Привет"}, ""},
		"no page":                {"", "text/html", map[string]string{}, ""},
		"other schemes":          {`<meta property="og:image" content="file:///etc/passwd"><img src="javascript:alert(1)">`, "text/html", map[string]string{}, ""},
		"data":                   {`<img src="data:image/png;base64,xxxx"><img src="b.png">`, "text/html", map[string]string{}, "https://example.org/dir/b.png"},
		"control characters":     {"<title>a\x00b\u202ec\r\nd</title>", "text/html; charset=utf-8", map[string]string{"og:title": "abc d"}, ""},
		"the first counts":       {`<meta property="og:title" content="1"><meta property="og:title" content="2">`, "text/html", map[string]string{"og:title": "1"}, ""},
		"what is not of the set": {`<meta property="fb:app" content="1"><meta property="og:ä" content="2">`, "text/html", map[string]string{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := read(t, c.page, c.contentType)
			require.Equal(t, c.want, p.Properties)
			if c.image == "" {
				require.Nil(t, p.Image)
			} else {
				require.Equal(t, c.image, p.Image.String())
			}
		})
	}
}

func TestBounds(t *testing.T) {
	p := read(t, `<meta property="og:title" content="`+strings.Repeat("ä", 5000)+`">`, "text/html; charset=utf-8")
	require.LessOrEqual(t, len(p.Properties["og:title"]), maxValue+len("…"))
	var b strings.Builder
	for i := range 1000 {
		b.WriteString(`<meta property="og:x` + strings.Repeat("y", i%90) + `" content="1">`)
	}
	require.LessOrEqual(t, len(read(t, b.String(), "text/html").Properties), maxProperties)
	require.Empty(t, read(t, strings.Repeat(" ", maxPage)+"<title>late</title>", "text/html").Properties)
	require.Empty(t, read(t, "<title "+strings.Repeat("a", maxToken*2), "text/html").Properties)
}

func FuzzRead(f *testing.F) {
	f.Add("<title>x</title><meta property='og:image' content='//[::1'>", "text/html; charset=utf-16")
	f.Add("<p>a<p>b<svg><title>x", "text/html")
	f.Fuzz(func(t *testing.T, page, contentType string) {
		at := &url.URL{Scheme: "https", Host: "example.org"}
		p, err := Read(strings.NewReader(page), contentType, at)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(p.Properties), maxProperties+2)
		for k, v := range p.Properties {
			require.True(t, utf8.ValidString(k+v))
			require.LessOrEqual(t, len(v), maxValue+len("…"))
			require.NotContains(t, v, "\n")
		}
		if p.Image != nil {
			require.Contains(t, []string{"http", "https"}, p.Image.Scheme)
		}
	})
}

package account

// Policy is a document that people must agree to who make an account, in one or more languages.
type Policy struct {
	ID, Version string
	Documents   []Document
}

// Document is a policy in one language.
type Document struct {
	Lang, Name, URL string
}

// Title is what the policy is called: in English, or as the first document has it.
func (p *Policy) Title() Document {
	for _, d := range p.Documents {
		if d.Lang == "en" {
			return d
		}
	}
	if len(p.Documents) == 0 {
		return Document{Name: p.ID}
	}
	return p.Documents[0]
}

// Consents are the policies in their present versions, as somebody agrees to them.
func (c Config) Consents() []Consent {
	var out []Consent
	for _, p := range c.Terms {
		out = append(out, Consent{Policy: p.ID, Version: p.Version})
	}
	return out
}

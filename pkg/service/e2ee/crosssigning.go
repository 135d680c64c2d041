package e2ee

import (
	"bytes"
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

func (h *Host) crossKeys(ctx context.Context, user string) (map[string][]byte, error) {
	rows, err := h.DB.CrossSigning(ctx, h.Shards, []string{user})
	keys := make(map[string][]byte, len(rows))
	for _, k := range rows {
		keys[k.Usage] = k.JSON
	}
	return keys, err
}

// putCrossSigning sets cross-signing keys. Whoever has a master key must confirm to replace keys; the first ones come without that (MSC3967).
func (h *Host) putCrossSigning(ctx context.Context, p *PutCrossSigning) (change, error) {
	var c change
	stored, err := h.crossKeys(ctx, p.UserID)
	if err != nil {
		return c, err
	}
	body := &entry.DeviceListBody{CrossSigning: true}
	at := len(c.Entries)
	for _, k := range []struct {
		usage string
		json  []byte
	}{{e2eedb.Master, p.Master}, {e2eedb.SelfSigning, p.SelfSigning}, {e2eedb.UserSigning, p.UserSigning}} {
		if len(k.json) == 0 {
			continue
		}
		next := k.json
		if old := stored[k.usage]; old != nil {
			if merged, same := mergeSignatures(old, next); same {
				next = merged
			}
			if bytes.Equal(old, next) {
				continue
			}
			if err := bounded(next); err != nil {
				return change{}, err
			}
		}
		c.Rows = append(c.Rows, &e2eedb.CrossSigningKey{UserID: p.UserID, Usage: k.usage, JSON: next, Entry: at})
	}
	if len(c.Rows) == 0 {
		return c, nil
	}
	if stored[e2eedb.Master] != nil && !p.Confirmed {
		return change{Answer: Answer{Unconfirmed: true}}, nil
	}
	master := p.Master
	if len(master) == 0 {
		if master = stored[e2eedb.Master]; master == nil {
			return change{}, mxerr.New(mxerr.MissingParam, "There is no master key")
		}
	}
	m, err := checkCrossKey(p.UserID, e2eedb.Master, master)
	if err != nil {
		return change{}, err
	}
	for _, k := range [][]byte{p.SelfSigning, p.UserSigning} {
		if len(k) > 0 && !signedBy(k, p.UserID, m) {
			return change{}, mxerr.New(mxerr.InvalidSignature, "A key is not signed by the master key")
		}
	}
	return c, listChanged(&c, p.UserID, body)
}

// putSignatures adds verified signatures to what is stored, if it is still what was signed.
func (h *Host) putSignatures(ctx context.Context, p *PutSignatures) (change, error) {
	var c change
	devices, err := h.deviceKeys(ctx, p.UserID)
	if err != nil {
		return c, err
	}
	cross, err := h.crossKeys(ctx, p.UserID)
	if err != nil {
		return c, err
	}
	body := &entry.DeviceListBody{}
	for _, s := range p.Own {
		name, old := s.DeviceID, devices[s.DeviceID]
		if name == "" {
			name, old = e2eedb.Master, cross[e2eedb.Master]
		}
		merged, same := mergeSignatures(old, s.Key)
		switch {
		case old == nil || !same:
			c.Answer.Unknown = append(c.Answer.Unknown, name)
		case bytes.Equal(merged, old):
		case bounded(merged) != nil:
			return change{}, bounded(merged)
		case s.DeviceID == "":
			cross[e2eedb.Master] = merged
			body.CrossSigning = true
			c.Rows = append(c.Rows, &e2eedb.CrossSigningKey{UserID: p.UserID, Usage: e2eedb.Master, JSON: merged})
		default:
			devices[s.DeviceID] = merged
			body.Changed = append(body.Changed, s.DeviceID)
			c.Rows = append(c.Rows, &e2eedb.DeviceKey{UserID: p.UserID, DeviceID: s.DeviceID, JSON: merged})
		}
	}
	if len(c.Rows) > 0 {
		if err := listChanged(&c, p.UserID, body); err != nil {
			return c, err
		}
	}
	return c, noteSigned(&c, p)
}

// noteSigned stores signatures under keys of others. They are nobody's business but the signer's, whose other devices are told whose keys to
// ask for again.
func noteSigned(c *change, p *PutSignatures) error {
	if len(p.Other) == 0 {
		return nil
	}
	body := &entry.DeviceListBody{}
	for _, s := range p.Other {
		body.Signed = append(body.Signed, s.Target)
		c.Rows = append(c.Rows, &e2eedb.KeySignature{
			UserID: p.UserID, Target: s.Target, TargetKey: s.TargetKey, KeyID: s.KeyID, Signature: s.Signature, Entry: len(c.Entries),
		})
	}
	e, err := entry.DeviceList(p.UserID, body)
	c.Entries = append(c.Entries, e)
	return err
}

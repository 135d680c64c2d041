package e2ee

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

// maxOneTimeKeys bounds the one-time keys of one device. Clients keep some fifty.
const maxOneTimeKeys = 1000

func (h *Host) uploadKeys(ctx context.Context, s shard.ID, u *UploadKeys) (change, error) {
	var c change
	if len(u.Device) > 0 {
		if err := h.putDeviceKeys(ctx, &c, u); err != nil {
			return change{}, err
		}
	}
	return c, h.addKeys(ctx, s, &c, u)
}

// putDeviceKeys stores a device's identity keys, unless they are what is stored.
func (h *Host) putDeviceKeys(ctx context.Context, c *change, u *UploadKeys) error {
	stored, err := h.deviceKeys(ctx, u.UserID)
	if err != nil {
		return err
	}
	keys := []byte(u.Device)
	if old := stored[u.DeviceID]; old != nil {
		if merged, same := mergeSignatures(old, keys); same {
			keys = merged // signatures that came since, by cross-signing, stay
		}
		if bytes.Equal(keys, old) {
			return nil
		}
		if err := bounded(keys); err != nil {
			return err
		}
	}
	c.Rows = append(c.Rows, &e2eedb.DeviceKey{UserID: u.UserID, DeviceID: u.DeviceID, JSON: keys, Entry: len(c.Entries)})
	return listChanged(c, u.UserID, &entry.DeviceListBody{Changed: []string{u.DeviceID}})
}

// deviceKeys reads the identity keys of a user's devices; those without keys are left out.
func (h *Host) deviceKeys(ctx context.Context, user string) (map[string][]byte, error) {
	devices, err := h.DB.Devices(ctx, h.Shards, []string{user})
	if err != nil {
		return nil, err
	}
	keys := make(map[string][]byte)
	for _, d := range devices {
		if d.JSON != nil {
			keys[d.DeviceID] = d.JSON
		}
	}
	return keys, nil
}

// addKeys stores one-time and fallback keys. A device whose upload was not answered sends it again, and some of its keys may have been handed
// out meanwhile: those are not taken a second time. It is told from a new upload by having a key in common with what came before.
func (h *Host) addKeys(ctx context.Context, s shard.ID, c *change, u *UploadKeys) error {
	device := []e2eedb.DeviceName{{UserID: u.UserID, DeviceID: u.DeviceID}}
	stored, spent, err := h.DB.OneTimeKeys(ctx, s, u.UserID, u.DeviceID)
	if err != nil {
		return err
	}
	fallback, err := h.DB.FallbackKeys(ctx, s, device)
	if err != nil {
		return err
	}
	type name struct{ algorithm, id string }
	have := make(map[name][]byte, len(stored))
	counts := make(map[string]int64)
	for _, k := range stored {
		have[name{k.Algorithm, k.KeyID}] = k.JSON
		counts[k.Algorithm]++
	}
	handedOut := make(map[name][]byte, len(spent))
	for _, k := range spent {
		handedOut[name{k.Algorithm, k.KeyID}] = k.JSON
	}
	added, again := 0, false
	at := len(c.Entries) // of the entry of the counts
	for _, k := range u.OneTime {
		if old, ok := have[name{k.Algorithm, k.KeyID}]; ok {
			if !bytes.Equal(old, k.JSON) {
				return mxerr.New(mxerr.InvalidParam, "There is another one-time key "+k.Algorithm+":"+k.KeyID)
			}
			again = true
			continue
		}
		if old, ok := handedOut[name{k.Algorithm, k.KeyID}]; ok && bytes.Equal(old, k.JSON) {
			again = true
			continue
		}
		have[name{k.Algorithm, k.KeyID}] = k.JSON
		counts[k.Algorithm]++
		added++
		c.Rows = append(c.Rows, &e2eedb.OneTimeKey{
			UserID: u.UserID, DeviceID: u.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.JSON, Entry: at,
		})
	}
	if added > 0 && len(have) > maxOneTimeKeys {
		return mxerr.New(mxerr.ResourceLimitExceeded, "The device has too many one-time keys")
	}
	if len(spent) > 0 && added > 0 && (!again || len(spent) > maxOneTimeKeys) {
		c.Rows = append(c.Rows, &e2eedb.SpentKeysForgotten{UserID: u.UserID, DeviceID: u.DeviceID})
	}
	unused := make(map[string]bool)
	for i := range fallback {
		unused[fallback[i].Algorithm] = !fallback[i].Used
	}
	for _, k := range u.Fallback {
		i := slices.IndexFunc(fallback, func(f e2eedb.FallbackKey) bool { return f.Algorithm == k.Algorithm })
		if i >= 0 && fallback[i].KeyID == k.KeyID && bytes.Equal(fallback[i].JSON, k.JSON) {
			continue // the same: whether it was used stays
		}
		added++
		unused[k.Algorithm] = true
		c.Rows = append(c.Rows, &e2eedb.FallbackKey{
			UserID: u.UserID, DeviceID: u.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.JSON,
		})
	}
	c.Answer.Counts = counts
	if added == 0 {
		return nil
	}
	return countsChanged(c, u.UserID, u.DeviceID, counts, unused)
}

// countsChanged tells how many keys of a device are left.
func countsChanged(c *change, user, device string, counts map[string]int64, unused map[string]bool) error {
	body := &entry.KeyCountsBody{DeviceId: device}
	for _, a := range slices.Sorted(maps.Keys(counts)) {
		body.Counts = append(body.Counts, &entry.KeyCount{Algorithm: a, Count: counts[a]})
	}
	for _, a := range slices.Sorted(maps.Keys(unused)) {
		if unused[a] {
			body.UnusedFallback = append(body.UnusedFallback, a)
		}
	}
	e, err := entry.KeyCounts(user, body)
	if err != nil {
		return err
	}
	c.Entries = append(c.Entries, e)
	return nil
}

// claim hands out one key for each that is wanted: the oldest one-time key, or, if there is none, the fallback key. The turns of the users
// are held until it is committed, so nobody else is handed the same.
func (h *Host) claim(ctx context.Context, s shard.ID, q *Claim) (change, error) {
	var c change
	wanted := make([]e2eedb.Wanted, 0, len(q.Wanted))
	devices := make([]e2eedb.DeviceName, 0, len(q.Wanted))
	seen := make(map[Wanted]bool)
	for _, w := range q.Wanted {
		if seen[w] {
			continue
		}
		seen[w] = true
		wanted = append(wanted, e2eedb.Wanted(w))
		devices = append(devices, e2eedb.DeviceName{UserID: w.UserID, DeviceID: w.DeviceID})
	}
	devices = slices.Compact(devices)
	keys, err := h.DB.Oldest(ctx, s, wanted)
	if err != nil {
		return c, err
	}
	fallback, err := h.DB.FallbackKeys(ctx, s, devices)
	if err != nil {
		return c, err
	}
	left, err := h.DB.Counts(ctx, s, devices)
	if err != nil {
		return c, err
	}
	counts := make(map[e2eedb.DeviceName]map[string]int64)
	unused := make(map[e2eedb.DeviceName]map[string]bool)
	for _, d := range devices {
		counts[d], unused[d] = make(map[string]int64), make(map[string]bool)
	}
	for _, k := range left {
		counts[e2eedb.DeviceName{UserID: k.UserID, DeviceID: k.DeviceID}][k.Algorithm] = k.N
	}
	for i := range fallback {
		f := &fallback[i]
		unused[e2eedb.DeviceName{UserID: f.UserID, DeviceID: f.DeviceID}][f.Algorithm] = !f.Used
	}
	touched := make(map[e2eedb.DeviceName]bool)
	got := make(map[e2eedb.Wanted]bool, len(keys))
	for i := range keys {
		k := &keys[i]
		d := e2eedb.DeviceName{UserID: k.UserID, DeviceID: k.DeviceID}
		got[e2eedb.Wanted{UserID: k.UserID, DeviceID: k.DeviceID, Algorithm: k.Algorithm}] = true
		touched[d] = true
		counts[d][k.Algorithm]--
		c.Rows = append(c.Rows, &e2eedb.OneTimeKeyGone{UserID: k.UserID, DeviceID: k.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID})
		c.Answer.Keys = append(c.Answer.Keys, ClaimedKey{UserID: k.UserID, DeviceID: k.DeviceID, KeyID: k.Algorithm + ":" + k.KeyID, JSON: k.JSON})
	}
	for i := range fallback {
		f := &fallback[i]
		w := e2eedb.Wanted{UserID: f.UserID, DeviceID: f.DeviceID, Algorithm: f.Algorithm}
		if got[w] || !seen[Wanted(w)] {
			continue
		}
		c.Answer.Keys = append(c.Answer.Keys, ClaimedKey{UserID: f.UserID, DeviceID: f.DeviceID, KeyID: f.Algorithm + ":" + f.KeyID, JSON: f.JSON})
		if f.Used {
			continue
		}
		d := e2eedb.DeviceName{UserID: f.UserID, DeviceID: f.DeviceID}
		touched[d] = true
		unused[d][f.Algorithm] = false
		c.Rows = append(c.Rows, &e2eedb.FallbackKey{
			UserID: f.UserID, DeviceID: f.DeviceID, Algorithm: f.Algorithm, KeyID: f.KeyID, JSON: f.JSON, Used: true,
		})
	}
	for _, d := range devices {
		if touched[d] {
			if err := countsChanged(&c, d.UserID, d.DeviceID, counts[d], unused[d]); err != nil {
				return change{}, err
			}
		}
	}
	return c, nil
}

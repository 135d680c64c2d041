package presence

// Looked is how many changes readers have looked at.
func (h *Hub) Looked() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.looked
}

// Held is how many changes are held, and of how many rooms.
func (h *Hub) Held() (changes, places int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.places {
		changes += len(p.changes)
	}
	return changes, len(h.places)
}

package canonjson

// fixed is how many items a stack holds before it allocates.
const fixed = 40

// A stack is a slice whose first items are part of its owner: a slice in a struct would make what it
// points to escape to the heap.
type stack[T any] struct {
	n     int
	first [fixed]T
	more  []T
}

func (s *stack[T]) push(item T) {
	if s.n < fixed {
		s.first[s.n] = item
	} else {
		s.more = append(s.more, item)
	}
	s.n++
}

func (s *stack[T]) at(i int) *T {
	if i < fixed {
		return &s.first[i]
	}
	return &s.more[i-fixed]
}

func (s *stack[T]) cut(n int) {
	s.n = n
	s.more = s.more[:max(0, n-fixed)]
}

// appendFrom appends the items from the i-th on.
func (s *stack[T]) appendFrom(dst []T, i int) []T {
	if i < fixed {
		dst = append(dst, s.first[i:min(s.n, fixed)]...)
		i = fixed
	}
	if i < s.n {
		dst = append(dst, s.more[i-fixed:]...)
	}
	return dst
}

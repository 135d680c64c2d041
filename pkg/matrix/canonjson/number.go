package canonjson

import "strconv"

// MaxInt and MinInt bound the integers of canonical JSON.
const (
	MaxInt = 1<<53 - 1
	MinInt = -MaxInt
)

const maxIntText = "9007199254740991"

// number reads the number at src[i].
func (c *canon) number(i int) int {
	start := i
	if c.src[i] == '-' {
		i++
	}
	first := i
	for i < len(c.src) && isDigit(c.src[i]) {
		i++
	}
	digits := c.src[first:i]
	if len(digits) == 0 || (digits[0] == '0' && len(digits) > 1) {
		return c.fail(ErrSyntax, start)
	}
	if i < len(c.src) && (c.src[i] == '.' || c.src[i]|0x20 == 'e') {
		return c.float(start, first, i)
	}
	if digits[0] == '0' && first > start {
		c.replace(start, i, '0')
		return i
	}
	if c.mode != Lax && !inRange(digits) {
		return c.fail(ErrNumber, start)
	}
	return i
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func inRange(digits []byte) bool {
	return len(digits) < len(maxIntText) || (len(digits) == len(maxIntText) && string(digits) <= maxIntText)
}

// float reads the rest of the number src[start:], whose integer part is src[first:i].
func (c *canon) float(start, first, i int) int {
	whole := c.src[first:i]
	var fraction, exponent []byte
	if c.src[i] == '.' {
		i++
		from := i
		for i < len(c.src) && isDigit(c.src[i]) {
			i++
		}
		if fraction = c.src[from:i]; len(fraction) == 0 {
			return c.fail(ErrSyntax, start)
		}
	}
	if i < len(c.src) && c.src[i]|0x20 == 'e' {
		i++
		from := i
		if i < len(c.src) && (c.src[i] == '+' || c.src[i] == '-') {
			i++
		}
		firstDigit := i
		for i < len(c.src) && isDigit(c.src[i]) {
			i++
		}
		if i == firstDigit {
			return c.fail(ErrSyntax, start)
		}
		exponent = c.src[from:i]
	}
	switch c.mode {
	case Lax:
		return i
	case Normalise:
		var buf [len(maxIntText) + 1]byte
		text, ok := integral(buf[:0], first > start, whole, fraction, exponent)
		if !ok {
			return c.fail(ErrNumber, start)
		}
		c.replace(start, i, text...)
		return i
	default:
		return c.fail(ErrNumber, start)
	}
}

// integral appends the integer that whole.fraction × 10^exponent is; ok is false if it is none in range.
func integral(dst []byte, negative bool, whole, fraction, exponent []byte) (text []byte, ok bool) {
	shift := 0
	if len(exponent) > 0 {
		e, err := strconv.Atoi(string(exponent))
		if err != nil {
			e = 1 << 30
			if exponent[0] == '-' {
				e = -e
			}
		}
		shift = max(-1<<30, min(e, 1<<30))
	}
	shift -= len(fraction)
	digit := func(n int) byte {
		if n < len(whole) {
			return whole[n]
		}
		return fraction[n-len(whole)]
	}
	from, to := 0, len(whole)+len(fraction)
	for from < to && digit(from) == '0' {
		from++
	}
	for to > from && digit(to-1) == '0' {
		to--
		shift++
	}
	if from == to {
		return append(dst, '0'), true
	}
	if shift < 0 || to-from+shift > len(maxIntText) {
		return nil, false
	}
	if negative {
		dst = append(dst, '-')
	}
	mark := len(dst)
	for ; from < to; from++ {
		dst = append(dst, digit(from))
	}
	for ; shift > 0; shift-- {
		dst = append(dst, '0')
	}
	return dst, inRange(dst[mark:])
}

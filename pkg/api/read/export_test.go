package read

// NewFilters and FilterOf are newFilters and filters.of, for tests.
var (
	NewFilters = newFilters
	FilterOf   = (*filters).of
)

// Package archtest holds the architecture of Heddle as a test: which package may import
// which, what the pure core may not touch, who may talk to a driver, and that every
// package says what it is for.
//
// The table in table_test.go is the law. A new package is a new row, in the same commit,
// and a row is changed on purpose, with its reason in an ADR when the change is more than a
// detail. The files are parsed inside the test process rather than listed with the go
// command, so that the test's cached result never outlives an edit.
//
// Nothing imports this package.
package archtest

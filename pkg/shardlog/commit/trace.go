package commit

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const (
	tracerName = "github.com/heddle-im/heddle/pkg/shardlog/commit"
	// maxLinks bounds how many of a batch's requests its span names.
	maxLinks = 16
)

// trace begins the span of a batch. A transaction that does the work of many requests can be a part of only one trace: that of
// the first request that is recorded. The others' are linked.
func (c *Committer) trace(group []*pending) (context.Context, trace.Span) {
	var parent trace.SpanContext
	for _, w := range group {
		if sc := w.proposal.Trace; sc.IsSampled() {
			parent = sc
			break
		} else if !parent.IsValid() { // so that what is not recorded does not begin a trace of its own
			parent = sc
		}
	}
	var links []trace.Link
	for _, w := range group {
		sc := w.proposal.Trace
		if sc.IsSampled() && sc.SpanID() != parent.SpanID() && len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	return c.tracer.Start(trace.ContextWithSpanContext(c.ctx, parent), "commit", trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("heddle.proposals", len(group))))
}

package accountdb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// ProofKind says what a proof is of.
type ProofKind int16

// The kinds of proof. The numbers rest in databases.
const (
	ProofAddress ProofKind = 1 // that letters to an address are read
	ProofClaim   ProofKind = 2 // that something which one user can have is being given to one
	ProofStage   ProofKind = 3 // that a stage of an authentication was passed on a page
)

// Proof makes a proof, or replaces it. Its shard is that of what its hash is of.
type Proof struct {
	Hash    [32]byte
	Kind    ProofKind
	Body    []byte // JSON
	Expires int64  // ms
	// Before is a time (ms): some proofs that ended before it go.
	Before int64
}

// Cost implements entry.Row.
func (r *Proof) Cost() int { return 96 + len(r.Body) }

// ProofGone removes a proof.
type ProofGone struct{ Hash [32]byte }

// Cost implements entry.Row.
func (r *ProofGone) Cost() int { return 96 }

// QueueProofs makes proofs.
func QueueProofs(b *pgx.Batch, rows []entry.Placed[*Proof]) {
	type placed = *entry.Placed[*Proof]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Proof]) [32]byte { return p.Row.Hash })
	b.Queue(upsertProofs,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Kind) }),
		entry.Column(rows, func(p placed) []byte { return notNull(p.Row.Body) }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Expires }))
	swept := map[shard.ID]bool{}
	for _, p := range rows {
		if !swept[p.Shard] && p.Row.Before > 0 {
			swept[p.Shard] = true
			b.Queue(deleteExpiredProofs, int16(p.Shard), p.Row.Before)
		}
	}
}

// QueueProofsGone removes proofs.
func QueueProofsGone(b *pgx.Batch, rows []entry.Placed[*ProofGone]) {
	type placed = *entry.Placed[*ProofGone]
	b.Queue(deleteProofs,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }))
}

// Proof reads a proof, whether it has ended or not.
func (r *Reader) Proof(ctx context.Context, s shard.ID, hash [32]byte) (p Proof, ok bool, err error) {
	g, err := r.q.GetProof(ctx, GetProofParams{Shard: int16(s), Hash: hash[:]})
	if ok, err = found("proof", err); !ok {
		return p, false, err
	}
	return Proof{Hash: hash, Kind: ProofKind(g.Kind), Body: g.Body, Expires: g.Expires}, true, nil
}

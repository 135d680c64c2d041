package room

import "context"

// Writer has commands done by whoever writes the room's shard, until ctx ends.
//
// key makes the command safe to repeat: the same key has its effect once, and the same answer. nil lets the writer take one: from the
// client's transaction id if the command carries one ([Origin]), or else a random one, so that the writer itself may
// try again.
//
// What a command's rules refuse comes as a *mxerr.Error: M_FORBIDDEN, M_NOT_FOUND for a room that this server does not
// have, M_BAD_JSON, M_TOO_LARGE and so on. command.ErrNotOwner says that the shard is held elsewhere; a router asks there. Any other error
// is a failure of this server, after which the command may or may not have been done: repeated with the same key it is done
// once.
type Writer interface {
	Do(ctx context.Context, key []byte, cmd Command) (Answer, error)
}

package commitdb

import (
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// This is the one place that knows all types of rows. To add one, write its multi-row writer beside it in its store package and
// add a line to the set that its table belongs to.
//
// Sets are written in their order. Within a set, rows of different types may touch the same table row, so their order matters:
// the steps of a set are written in order, and rows that come again after a later step's begin another round. A login that
// follows a logout in one transaction is a device that goes and comes, not one that comes and goes. Types of one step
// do not disturb each other.
func newSets() []*set {
	return []*set{
		newSet(step(table(roomdb.QueueAtoms))),
		newSet(step(table(roomdb.QueueRooms))),
		newSet(step(table(roomdb.QueueStateSnapshots))),
		newSet(step(table(roomdb.QueueForkedStates))),
		newSet(
			step(table(roomdb.QueueEvents)),
			step(table(roomdb.QueueEventsPlaced), table(roomdb.QueueThreadParts)),
			step(table(roomdb.QueueRedactions)),
		),
		newSet(step(table(roomdb.QueueGapsGone)), step(table(roomdb.QueueGaps))),
		newSet(step(table(roomdb.QueueStateLoads)), step(table(roomdb.QueueCurrentState))),
		newSet(step(table(roomdb.QueueMemberLoads)), step(table(roomdb.QueueMembers)), step(table(roomdb.QueueMembersForgotten))),
		newSet(step(table(roomdb.QueueReceipts))),
		newSet(step(table(pushdb.QueueTallies))),
		newSet(step(table(pushdb.QueueThreads))),
		newSet(step(table(pushdb.QueueExceptions))),
		newSet(step(table(pushdb.QueueCorrections))),
		newSet(step(table(pushdb.QueueClasses))),
		newSet(step(table(pushdb.QueueSent))),
		newSet(step(table(roomdb.QueueAliases)), step(table(roomdb.QueueAliasesMoved)), step(table(roomdb.QueueAliasesGone))),
		newSet(step(table(roomdb.QueuePublishedRooms)), step(table(roomdb.QueuePublishedRoomsGone))),

		newSet(step(table(accountdb.QueueAccounts))),
		newSet(
			step(table(accountdb.QueueDevices), table(accountdb.QueueAccessTokens), table(accountdb.QueueRefreshTokens), table(accountdb.QueuePushers)),
			step(table(accountdb.QueueDevicesGone), table(accountdb.QueueAccessTokensGone), table(accountdb.QueueRefreshTokensGone), table(accountdb.QueuePushersGone)),
		),
		newSet(step(table(accountdb.QueueRegistrationTokens)), step(table(accountdb.QueueRegistrationTokensGone))),
		newSet(step(table(accountdb.QueueProfiles))),
		newSet(step(table(accountdb.QueueLoginTokens)), step(table(accountdb.QueueLoginTokensGone))),
		newSet(
			step(table(accountdb.QueueAccountData), table(accountdb.QueueFilters), table(accountdb.QueueThreadSubscriptions),
				table(accountdb.QueueConsents), table(accountdb.QueueExternalLogins)),
			step(table(accountdb.QueueDataGone)),
		),
		newSet(
			step(table(accountdb.QueueThreepids), table(accountdb.QueueBinds)),
			step(table(accountdb.QueueThreepidsGone), table(accountdb.QueueBindsGone)),
			step(table(accountdb.QueueThreepidsOfGone)),
		),
		newSet(step(table(accountdb.QueueProofs)), step(table(accountdb.QueueProofsGone))),

		newSet(step(table(accountdb.QueueReports))),
		newSet(step(table(accountdb.QueueDeviceLists))),
		newSet(step(table(accountdb.QueueDevicesSeen))),

		// After the devices: what belongs to a device is written only while there is the device.
		newSet(step(table(e2eedb.QueueDeviceKeys))),
		newSet(step(table(e2eedb.QueueOneTimeKeys)), step(table(e2eedb.QueueOneTimeKeysGone)), step(table(e2eedb.QueueSpentKeysForgotten))),
		newSet(step(table(e2eedb.QueueFallbackKeys))),
		newSet(step(table(e2eedb.QueueCrossSigningKeys))),
		newSet(step(table(e2eedb.QueueKeySignatures))),
		newSet(step(table(e2eedb.QueueToDevice)), step(table(e2eedb.QueueToDeviceGone))),
		newSet(step(table(e2eedb.QueueDehydrated))),
		newSet(step(table(e2eedb.QueueBackupVersions))),
		newSet(step(table(e2eedb.QueueBackupKeys)), step(table(e2eedb.QueueBackupKeysGone))),

		newSet(step(table(feddb.QueueStagedGone))),
		newSet(step(table(feddb.QueueStripped)), step(table(feddb.QueueStrippedGone))),
		newSet(step(table(feddb.QueueEDUs))),
	}
}

// tableWriter gathers the rows of one type and writes them.
type tableWriter interface {
	rowType() reflect.Type
	add(r entry.Row, at entry.Place)
	// queue queues what was gathered, and forgets it.
	queue(b *pgx.Batch)
}

// rows is the tableWriter of one type.
type rows[R entry.Row] struct {
	write func(*pgx.Batch, []entry.Placed[R])
	held  []entry.Placed[R]
}

func table[R entry.Row](write func(*pgx.Batch, []entry.Placed[R])) tableWriter {
	return &rows[R]{write: write}
}

func (t *rows[R]) rowType() reflect.Type { return reflect.TypeFor[R]() }

func (t *rows[R]) add(r entry.Row, at entry.Place) {
	if row, ok := r.(R); ok { // as the index says
		t.held = append(t.held, entry.Placed[R]{Place: at, Row: row})
	}
}

func (t *rows[R]) queue(b *pgx.Batch) {
	if len(t.held) > 0 {
		t.write(b, t.held)
		t.held = nil
	}
}

func step(writers ...tableWriter) []tableWriter { return writers }

// set is types of rows whose order matters.
type set struct {
	steps [][]tableWriter
	// at is the furthest step that has rows; -1 for none.
	at int
}

func newSet(steps ...[]tableWriter) *set { return &set{steps: steps, at: -1} }

// queue queues what was gathered.
func (s *set) queue(b *pgx.Batch) {
	if s.at < 0 {
		return
	}
	for _, st := range s.steps {
		for _, w := range st {
			w.queue(b)
		}
	}
	s.at = -1
}

// tables gathers the rows of one transaction.
type tables struct {
	sets  []*set
	index map[reflect.Type]slot
}

type slot struct {
	set    *set
	step   int
	writer tableWriter
}

func newTables() *tables {
	t := &tables{sets: newSets(), index: map[reflect.Type]slot{}}
	for _, s := range t.sets {
		for i, st := range s.steps {
			for _, w := range st {
				t.index[w.rowType()] = slot{s, i, w}
			}
		}
	}
	return t
}

// add takes a row. Rounds that are complete are queued at once.
func (t *tables) add(b *pgx.Batch, r entry.Row, at entry.Place) error {
	sl, ok := t.index[reflect.TypeOf(r)]
	if !ok {
		return fmt.Errorf("row of type %T is not known to commitdb", r)
	}
	if sl.step < sl.set.at {
		sl.set.queue(b)
	}
	sl.set.at = sl.step
	sl.writer.add(r, at)
	return nil
}

// queue queues all that was gathered.
func (t *tables) queue(b *pgx.Batch) {
	for _, s := range t.sets {
		s.queue(b)
	}
}

// reset forgets what was gathered.
func (t *tables) reset() { t.queue(&pgx.Batch{}) }

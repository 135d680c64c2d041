package app

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Print writes the overview for people.
func (v *Overview) Print(out io.Writer) error {
	p := &printer{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	p.line("server\t%s", v.ServerName)
	p.line("database\tPostgreSQL %s, %s, incarnation %d%s", v.Database.Version, bytesOf(v.Database.Bytes), v.Incarnation.Number,
		ordinal(v.Incarnation.Count))
	p.line("failover\t%s", v.failover())
	held := ""
	if n := len(v.FeatureLevelHeldBy); n > 0 {
		held = ", held there by " + strings.Join(v.FeatureLevelHeldBy, ", ")
	}
	p.line("feature level\t%d%s", v.FeatureLevel, held)
	p.section("WORKER\tKIND\tADDRESS\tVERSION\tSTATE\tNATS\tLAG\tMEMORY\tCPU\tUP")
	for _, w := range v.Workers {
		p.line("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s", w.Instance, w.Kind, w.Address, w.Version, w.State, yesNo(w.NATS), w.Lag,
			bytesOf(w.Memory), share(w.CPUSeconds, w.UpSeconds), time.Duration(w.UpSeconds)*time.Second)
	}
	p.section("SHARD\tOWNER\tADDRESS\tEPOCH\tHEAD\tTRIMMED TO")
	for _, s := range v.Shards {
		p.line("%d\t%s\t%s\t%d\t%d\t%d", s.Shard, orNobody(s.Owner), s.Address, s.Epoch, s.Head, s.Trimmed)
	}
	if len(v.Roles) > 0 {
		p.section("ROLE\tSLOT\tOWNER\tEPOCH")
		for _, r := range v.Roles {
			p.line("%s\t%d\t%s\t%d", r.Role, r.Slot, orNobody(r.Owner), r.Epoch)
		}
	}
	if len(v.Consumers) > 0 {
		p.section("CONSUMER\tLAG\tPOSITIONS")
		for _, c := range v.Consumers {
			p.line("%s\t%d\t%s", c.Consumer, c.Lag, positions(c.Positions))
		}
	}
	if len(v.Problems) > 0 {
		p.section("PROBLEMS")
		for _, s := range v.Problems {
			p.line("%s", s)
		}
	}
	if p.err != nil {
		return p.err
	}
	return p.w.Flush()
}

// failover tells how far the promise reaches that what was acknowledged is not lost.
func (v *Overview) failover() string {
	var standbys string
	if n := len(v.Database.Standbys); n > 0 {
		names := make([]string, n)
		for i, s := range v.Database.Standbys {
			names[i] = strings.TrimSpace(fmt.Sprintf("%s %s", s.Name, s.Sync))
		}
		slices.Sort(names)
		standbys = " (" + strings.Join(names, ", ") + ")"
	}
	switch v.Database.Survives {
	case "yes":
		return "what was acknowledged survives the loss of the primary: a commit waits for a synchronous standby" + standbys
	case "unknown":
		return "synchronous standbys are named, but this role may not see whether any is there (grant it pg_monitor)"
	}
	return "what was acknowledged can be lost with the primary: no synchronous standby" + standbys
}

// printer remembers the first error.
type printer struct {
	w   *tabwriter.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) section(head string) {
	if p.err == nil { // so that each table has columns of its own
		p.err = p.w.Flush()
	}
	p.line("")
	p.line("%s", head)
}

func ordinal(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(" (of %d: there was a failover or a restore)", n)
}

func orNobody(s string) string {
	if s == "" {
		return "nobody"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func bytesOf(n int64) string {
	const k = 1 << 10
	switch {
	case n < k*k:
		return fmt.Sprintf("%d KiB", n/k)
	case n < 10*k*k*k:
		return fmt.Sprintf("%d MiB", n/(k*k))
	}
	return fmt.Sprintf("%d GiB", n/(k*k*k))
}

// share is the part of one core that was used on average.
func share(cpu, up int64) string {
	if up <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", float64(cpu)*100/float64(up))
}

func positions(v shard.Vector) string {
	s := make([]string, len(v))
	for i, p := range v {
		s[i] = fmt.Sprint(int64(p))
	}
	return strings.Join(s, " ")
}

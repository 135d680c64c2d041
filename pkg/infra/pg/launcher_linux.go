package pg

import "syscall"

// sysProcAttr: the server runs as the owner, gets death when this process
// dies, and is in a group of its own so that a terminal's Ctrl-C reaches only
// this process, which then stops it in its turn.
func (o owner) sysProcAttr(death syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
	if o.switchUser {
		a.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	}
	return a
}

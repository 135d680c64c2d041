//go:build !linux

package pg

import "syscall"

// sysProcAttr is as on Linux, without a parent-death signal: there is none.
func (o owner) sysProcAttr(syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if o.switchUser {
		a.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	}
	return a
}

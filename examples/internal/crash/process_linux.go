package main

import "syscall"

// childAttributes has a child die with this program, however that ends, and keeps
// Ctrl-C from it: this program sees to its end.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

package main

import "syscall"

// childAttributes lets a child die with this program, however that ends. Ctrl-C does not reach the
// child: this program ends it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

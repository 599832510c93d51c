#ifndef CLINUX_H
#define CLINUX_H

#include <spawn.h>

/* Calls of Linux that the C library declares only with _GNU_SOURCE, which Swift's importer does not define. */

/* Moves the calling thread into a new network namespace; -1 and errno when that fails. */
int clinux_unshare_network(void);

/* The calling thread's id, as /proc and the kernel know it. */
int clinux_thread_id(void);

/* The started process closes every descriptor from this one on. */
int clinux_spawn_closefrom(posix_spawn_file_actions_t *actions, int from);

/* Opens a file for reading past the page cache; -1 and errno where the file system cannot do that. */
int clinux_open_direct(const char *path);

/* Drops IPv6 router advertisements (RFC 4861: ICMPv6 type 134), also behind extension headers, that come in from the
   device with this index, before anybody on the host sees them; with `on` 0 lets them in again. -1 and errno on failure. */
int clinux_router_guard(unsigned index, int on);

/* AUDIT_ARCH_… of this processor for seccomp(2); 0 where there is no list of system calls for it. */
extern const unsigned clinux_seccomp_architecture;

/* The numbers of clone(2) and clone3(2). */
extern const unsigned clinux_clone_number, clinux_clone3_number;

/* Writes up to `max` numbers of the system calls that a sandboxed tool may not make; returns how many there are. */
int clinux_denied_calls(unsigned *numbers, int max);

#endif

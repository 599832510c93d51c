#ifndef CLINUX_H
#define CLINUX_H

/* Calls of Linux that the C library declares only with _GNU_SOURCE, which Swift's importer does not define. */

/* Moves the calling thread into a new network namespace; -1 and errno when that fails. */
int clinux_unshare_network(void);

/* The calling thread's id, as /proc and the kernel know it. */
int clinux_thread_id(void);

/* Opens a file for reading past the page cache; -1 and errno where the file system cannot do that. */
int clinux_open_direct(const char *path);

#endif

#include "CLinux.h"

#include <linux/audit.h>
#include <sys/syscall.h>

/* Numbers come from the kernel's headers for the processor that this is compiled for. What a processor does not have
   (modify_ldt and port access outside x86) is left out there; a call that any other list misses does not compile. */

#if defined(__x86_64__)
const unsigned clinux_seccomp_architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
const unsigned clinux_seccomp_architecture = AUDIT_ARCH_AARCH64;
#else
const unsigned clinux_seccomp_architecture = 0;
#endif

const unsigned clinux_clone_number = SYS_clone;
const unsigned clinux_clone3_number = SYS_clone3;

static const unsigned denied[] = {
    /* sockets */
    SYS_socket, SYS_connect, SYS_accept, SYS_accept4, SYS_bind, SYS_listen,
    /* other processes */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd, SYS_pidfd_open,
    /* namespaces and mounts */
    SYS_pivot_root, SYS_chroot, SYS_mount, SYS_umount2, SYS_unshare, SYS_setns, SYS_open_tree, SYS_move_mount, SYS_fsopen,
    SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr,
    /* rarely used parts of the kernel */
    SYS_add_key, SYS_request_key, SYS_keyctl, SYS_perf_event_open, SYS_bpf, SYS_userfaultfd, SYS_io_uring_setup,
    SYS_io_uring_enter, SYS_io_uring_register, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
    /* the host */
    SYS_syslog, SYS_personality, SYS_vhangup, SYS_acct, SYS_settimeofday, SYS_swapon, SYS_swapoff, SYS_reboot,
    SYS_sethostname, SYS_setdomainname, SYS_quotactl, SYS_clock_settime, SYS_move_pages,
#ifdef SYS_lookup_dcookie
    SYS_lookup_dcookie,
#endif
#if defined(__x86_64__)
    SYS_modify_ldt, SYS_iopl, SYS_ioperm,
#endif
};

int clinux_denied_calls(unsigned *numbers, int max) {
    int count = (int)(sizeof denied / sizeof denied[0]);
    for (int i = 0; i < count && i < max; i++) numbers[i] = denied[i];
    return count;
}

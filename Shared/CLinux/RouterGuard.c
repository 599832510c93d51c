#define _GNU_SOURCE
#include "CLinux.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* An XDP program in the kernel's instruction set (RFC 9669). It is small enough to be written by hand, and so needs neither
   a compiler for it nor a library on the hosts. */

enum { R0, R1, R2, R3, R4, R5, R6, R7 };
enum { PASS = 1, DROP = 2 };                /* labels */
enum { IPV6_HEADER = 40, HEADERS_MAX = 8, ICMPV6 = 58, ROUTER_ADVERTISEMENT = 134, LENGTH_MAX = 256 };

struct program {
    struct bpf_insn code[LENGTH_MAX];
    int label[LENGTH_MAX];                  /* where a jump leads; 0 for a known distance */
    int length;
};

static int emit(struct program *p, uint8_t code, int to, int from, int16_t offset, int32_t value) {
    p->code[p->length] = (struct bpf_insn){ .code = code, .dst_reg = to, .src_reg = from, .off = offset, .imm = value };
    return p->length++;
}

static int jump(struct program *p, uint8_t operation, int left, int32_t value, int label) {
    int at = emit(p, BPF_JMP | operation | BPF_K, left, 0, 0, value);
    p->label[at] = label;
    return at;
}

/* Goes to `label` unless `bytes` from the pointer in R5 on are in the packet, whose end is in R7. */
static void require(struct program *p, int bytes, int label) {
    emit(p, BPF_ALU64 | BPF_MOV | BPF_X, R2, R5, 0, 0);
    emit(p, BPF_ALU64 | BPF_ADD | BPF_K, R2, 0, 0, bytes);
    int at = emit(p, BPF_JMP | BPF_JGT | BPF_X, R2, R7, 0, 0);
    p->label[at] = label;
}

static void land(struct program *p, int at) { p->code[at].off = (int16_t)(p->length - at - 1); }

static void build(struct program *p) {
    memset(p, 0, sizeof *p);
    emit(p, BPF_LDX | BPF_MEM | BPF_W, R6, R1, offsetof(struct xdp_md, data), 0);
    emit(p, BPF_LDX | BPF_MEM | BPF_W, R7, R1, offsetof(struct xdp_md, data_end), 0);
    emit(p, BPF_ALU64 | BPF_MOV | BPF_X, R5, R6, 0, 0);
    require(p, ETH_HLEN + IPV6_HEADER, PASS);
    emit(p, BPF_LDX | BPF_MEM | BPF_H, R3, R6, 12, 0);
    jump(p, BPF_JNE, R3, htons(ETH_P_IPV6), PASS);
    emit(p, BPF_LDX | BPF_MEM | BPF_B, R4, R6, ETH_HLEN + 6, 0);
    emit(p, BPF_ALU64 | BPF_ADD | BPF_K, R5, 0, 0, ETH_HLEN + IPV6_HEADER);
    /* R4: what the next header is, R5: where it begins. Receivers read past extension headers, so this does. */
    for (int i = 0; i < HEADERS_MAX; i++) {
        int other = jump(p, BPF_JNE, R4, ICMPV6, 0);
        require(p, 1, PASS);
        emit(p, BPF_LDX | BPF_MEM | BPF_B, R0, R5, 0, 0);
        jump(p, BPF_JEQ, R0, ROUTER_ADVERTISEMENT, DROP);
        jump(p, BPF_JA, 0, 0, PASS);
        land(p, other);
        int hop = jump(p, BPF_JEQ, R4, 0, 0), routing = jump(p, BPF_JEQ, R4, 43, 0), options = jump(p, BPF_JEQ, R4, 60, 0);
        jump(p, BPF_JNE, R4, 44, PASS);
        /* A fragment: only the first one has the header that follows. */
        require(p, 8, PASS);
        emit(p, BPF_LDX | BPF_MEM | BPF_H, R0, R5, 2, 0);
        emit(p, BPF_ALU64 | BPF_AND | BPF_K, R0, 0, 0, htons(0xfff8));
        jump(p, BPF_JNE, R0, 0, PASS);
        emit(p, BPF_LDX | BPF_MEM | BPF_B, R4, R5, 0, 0);
        emit(p, BPF_ALU64 | BPF_ADD | BPF_K, R5, 0, 0, 8);
        int next = jump(p, BPF_JA, 0, 0, 0);
        land(p, hop), land(p, routing), land(p, options);
        require(p, 8, PASS);
        emit(p, BPF_LDX | BPF_MEM | BPF_B, R4, R5, 0, 0);
        emit(p, BPF_LDX | BPF_MEM | BPF_B, R0, R5, 1, 0);
        emit(p, BPF_ALU64 | BPF_LSH | BPF_K, R0, 0, 0, 3);
        emit(p, BPF_ALU64 | BPF_ADD | BPF_K, R0, 0, 0, 8);
        emit(p, BPF_ALU64 | BPF_ADD | BPF_X, R5, R0, 0, 0);
        land(p, next);
    }
    /* Nobody needs so many headers. */
    int drop = p->length;
    emit(p, BPF_ALU64 | BPF_MOV | BPF_K, R0, 0, 0, XDP_DROP);
    emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    int pass = p->length;
    emit(p, BPF_ALU64 | BPF_MOV | BPF_K, R0, 0, 0, XDP_PASS);
    emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    for (int i = 0; i < p->length; i++)
        if (p->label[i]) p->code[i].off = (int16_t)((p->label[i] == PASS ? pass : drop) - i - 1);
}

static int load(void) {
    struct program program;
    build(&program);
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_type = BPF_PROG_TYPE_XDP;
    attributes.insns = (uintptr_t)program.code;
    attributes.insn_cnt = (uint32_t)program.length;
    attributes.license = (uintptr_t) "GPL";
    memcpy(attributes.prog_name, "router_guard", sizeof "router_guard");
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
}

/* Sets the XDP program of a device; -1 takes it away. */
static int attach(unsigned index, int32_t program) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
        struct rtattr nest, descriptor;
        int32_t value;
    } request;
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char echo[512];
    } reply;
    memset(&request, 0, sizeof request);
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_SETLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    request.link.ifi_family = AF_UNSPEC;
    request.link.ifi_index = (int)index;
    request.descriptor.rta_type = IFLA_XDP_FD;
    request.descriptor.rta_len = RTA_LENGTH(sizeof request.value);
    request.nest.rta_type = IFLA_XDP | NLA_F_NESTED;
    request.nest.rta_len = RTA_LENGTH(request.descriptor.rta_len);
    request.value = program;
    int channel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), problem = 0;
    if (channel < 0) return -1;
    if (send(channel, &request, sizeof request, 0) < 0 || recv(channel, &reply, sizeof reply, 0) < (ssize_t)sizeof reply.header)
        problem = errno ? errno : EIO;
    else if (reply.header.nlmsg_type != NLMSG_ERROR)
        problem = EIO;
    else
        problem = -reply.error.error;
    close(channel);
    errno = problem;
    return problem ? -1 : 0;
}

int clinux_router_guard(unsigned index, int on) {
    if (!on) return attach(index, -1);
    int program = load();
    if (program < 0) return -1;
    int result = attach(index, program), problem = errno;
    close(program);
    errno = problem;
    return result;
}

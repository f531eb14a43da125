// SPDX-License-Identifier: BSD-3-Clause
// Lets one system call of a program fail, once:
//
//     cc -shared -fPIC -o faults.so faults.c -ldl
//     FAULT=send:17:104 FAULT_COUNTS=file LD_PRELOAD=./faults.so program
//
// the 17th send() fails with errno 104; with send:0:0 none does, and all are counted.  The
// counts begin at write(-77, ...) and end up in the file, an int for each of NAMES; they show
// whether the call was reached.  What libc calls within itself can't be seen from here.
// Children are spared.  A connection of which send() or recv() fails has ended.  read() and
// write() count at files and devices alone: what a pipe or a socket can give is something
// else.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT, MMAP, FORK, THREAD, POLL, RECV, SEND, CONNECT, READ, WRITE, NUMBER };
static const char *NAMES[NUMBER] = {
    "waitpid", "mmap", "fork", "pthread_create", "poll", "recv", "send", "connect", "read",
    "write" };

static int counts_without_file[NUMBER], *counts = counts_without_file;
static int which = -1, occurrence, code;
static pid_t process;               // that counts; 0 before it begins

__attribute__((constructor)) static void prepare(void)
{
    const char *fault = getenv("FAULT"), *path = getenv("FAULT_COUNTS");
    char name[32];
    if (fault && sscanf(fault, "%31[a-z_]:%d:%d", name, &occurrence, &code) == 3)
        for (int i = 0; i < NUMBER; i++)
            if (!strcmp(name, NAMES[i]))
                which = i;
    int file = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
    if (file >= 0 && !ftruncate(file, sizeof counts_without_file)) {
        void *shared = mmap(NULL, sizeof counts_without_file, PROT_READ | PROT_WRITE, MAP_SHARED,
                            file, 0);
        if (shared != MAP_FAILED)
            counts = shared;
    }
    if (file >= 0)
        close(file);
    unsetenv("LD_PRELOAD");
    unsetenv("FAULT");
    unsetenv("FAULT_COUNTS");
}

// Whether this call is the one; errno is set then.
static int strikes(int function)
{
    if (!process || process != getpid())
        return 0;
    int count = __atomic_add_fetch(&counts[function], 1, __ATOMIC_SEQ_CST);
    if (function != which || count != occurrence)
        return 0;
    errno = code;
    return 1;
}

static int at_file(int descriptor)
{
    int before = errno;
    struct stat found;
    int is = !fstat(descriptor, &found) && !S_ISFIFO(found.st_mode) && !S_ISSOCK(found.st_mode);
    errno = before;
    return is;
}

static int broken(int connection)
{
    shutdown(connection, SHUT_RDWR);
    errno = code;
    return -1;
}

#define OTHERWISE(type, name, types, values) \
    { \
        static type (*real) types; \
        if (!real) \
            real = (type (*) types) dlsym(RTLD_NEXT, #name); \
        return real values; \
    }

#define FAIL(function, failed, type, name, types, values) \
    type name types \
    { \
        if (strikes(function)) \
            return failed; \
        OTHERWISE(type, name, types, values) \
    }

FAIL(WAIT, -1, pid_t, waitpid, (pid_t p, int *s, int o), (p, s, o))
FAIL(WAIT, -1, pid_t, wait4, (pid_t p, int *s, int o, struct rusage *r), (p, s, o, r))
FAIL(WAIT, -1, int, waitid, (idtype_t t, id_t p, siginfo_t *s, int o), (t, p, s, o))
FAIL(MMAP, MAP_FAILED, void *, mmap, (void *a, size_t n, int p, int f, int d, off_t o),
     (a, n, p, f, d, o))
FAIL(MMAP, MAP_FAILED, void *, mmap64, (void *a, size_t n, int p, int f, int d, off64_t o),
     (a, n, p, f, d, o))
FAIL(FORK, -1, pid_t, fork, (void), ())
FAIL(POLL, -1, int, poll, (struct pollfd *f, nfds_t n, int t), (f, n, t))
FAIL(POLL, -1, int, __poll_chk, (struct pollfd *f, nfds_t n, int t, size_t s), (f, n, t, s))
FAIL(RECV, broken(d), ssize_t, recv, (int d, void *b, size_t n, int f), (d, b, n, f))
FAIL(RECV, broken(d), ssize_t, __recv_chk, (int d, void *b, size_t n, size_t s, int f),
     (d, b, n, s, f))
FAIL(SEND, broken(d), ssize_t, send, (int d, const void *b, size_t n, int f), (d, b, n, f))
FAIL(CONNECT, -1, int, connect, (int d, const struct sockaddr *a, socklen_t n), (d, a, n))

// A vfork() can't return through this function twice; a fork() may stand for it.
pid_t vfork(void)
{
    return fork();
}

// This one returns its error.
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *v)
{
    if (strikes(THREAD))
        return errno;
    OTHERWISE(int, pthread_create,
              (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *), (t, a, f, v))
}

ssize_t read(int d, void *b, size_t n)
{
    if (at_file(d) && strikes(READ))
        return -1;
    OTHERWISE(ssize_t, read, (int, void *, size_t), (d, b, n))
}

ssize_t __read_chk(int d, void *b, size_t n, size_t s)
{
    if (at_file(d) && strikes(READ))
        return -1;
    OTHERWISE(ssize_t, __read_chk, (int, void *, size_t, size_t), (d, b, n, s))
}

ssize_t write(int d, const void *b, size_t n)
{
    if (d == -77) {
        process = getpid();
        return 0;
    }
    if (at_file(d) && strikes(WRITE))
        return -1;
    OTHERWISE(ssize_t, write, (int, const void *, size_t), (d, b, n))
}

/* Between the exporter and the C library: counts its calls, and at one of them kills
 * the process, lets the call fail or wait. `calls.py` says which, in memory that both map.
 *
 * Only what a scrape does with files and sockets is counted. A call belongs to the
 * state file (its temporary file and its folder are of it), to a socket, or to a
 * database; the others pass.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STATE = 1, SOCKET = 2, DATABASE = 4 };
enum { WATCH, KILL, KILL_HALFWAY, FAIL, FAIL_FROM_THERE_ON, SLOW };
enum { MOST = 4096 };

static struct control {
    volatile uint32_t kinds; /* 0: nothing is counted */
    volatile uint32_t at;
    volatile uint32_t action;
    volatile uint32_t error;
    uint32_t count;
    uint32_t done;
    struct { uint32_t kind; char name[12]; } calls[MOST];
} *control;

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv("TORTURE_CALLS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    control = memory == MAP_FAILED ? NULL : memory;
    syscall(SYS_close, fd);
}

static uint32_t kind_of_path(const char *path)
{
    const char *state = path ? strstr(path, "/state") : NULL;
    if (state && (!state[6] || state[6] == '/')) /* the folder, or what is in it */
        return STATE;
    return path && strstr(path, ".db") ? DATABASE : 0;
}

static uint32_t kind_of_fd(int fd)
{
    char link[40], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return strncmp(path, "socket:", 7) ? kind_of_path(path) : SOCKET;
}

static void end_now(void)
{
    for (;;)
        kill(getpid(), SIGKILL);
}

/* Returns whether the call is to fail; `halfway` whether it is to be cut in two. */
static int befall(const char *name, uint32_t kind, int *halfway)
{
    if (!(control->kinds & kind))
        return 0;
    uint32_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (number <= MOST) {
        control->calls[number - 1].kind = kind;
        strncpy(control->calls[number - 1].name, name, 11);
    }
    int is_here = number == control->at;
    if (control->action >= FAIL_FROM_THERE_ON && number > control->at)
        is_here = 1;
    if (!is_here || control->action == WATCH)
        return 0;
    control->done = number;
    if (control->action == KILL_HALFWAY && halfway) {
        *halfway = 1;
        return 0;
    }
    if (control->action <= KILL_HALFWAY)
        end_now();
    if (control->action == SLOW) {
        usleep(control->error * 1000);
        return 0;
    }
    errno = (int)control->error;
    return 1;
}

static int befall_fd(const char *name, int fd, int *halfway)
{
    if (!control || !control->kinds)
        return 0;
    int before = errno;
    uint32_t kind = kind_of_fd(fd);
    errno = before;
    return befall(name, kind, halfway);
}

static int befall_path(const char *name, const char *path)
{
    return control && control->kinds ? befall(name, kind_of_path(path), NULL) : 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(type, name, parameters, arguments)                                        \
    type name parameters                                                                \
    {                                                                                   \
        return befall_fd(#name, fd, NULL) ? (type)-1 : NEXT(name) arguments;            \
    }
#define ON_PATH(type, name, parameters, arguments)                                      \
    type name parameters                                                                \
    {                                                                                   \
        return befall_path(#name, path) ? (type)-1 : NEXT(name) arguments;              \
    }
/* Writes a part, and then no more. */
#define OUTPUT(name, parameters, part, whole)                                           \
    ssize_t name parameters                                                             \
    {                                                                                   \
        int halfway = 0;                                                                \
        if (befall_fd(#name, fd, &halfway))                                             \
            return -1;                                                                  \
        if (halfway) {                                                                  \
            NEXT(name) part;                                                            \
            end_now();                                                                  \
        }                                                                               \
        return NEXT(name) whole;                                                        \
    }
#define OPENING(name)                                                                   \
    int name(const char *path, int flags, ...)                                          \
    {                                                                                   \
        va_list more;                                                                   \
        va_start(more, flags);                                                          \
        mode_t mode = va_arg(more, mode_t);                                             \
        va_end(more);                                                                   \
        return befall_path("open", path) ? -1 : NEXT(name)(path, flags, mode);          \
    }
#define CONTROLLING(name)                                                               \
    int name(int fd, int command, ...)                                                  \
    {                                                                                   \
        va_list more;                                                                   \
        va_start(more, command);                                                        \
        void *argument = va_arg(more, void *);                                          \
        va_end(more);                                                                   \
        return befall_fd("fcntl", fd, NULL) ? -1 : NEXT(name)(fd, command, argument);   \
    }

OPENING(open)
OPENING(open64)
CONTROLLING(fcntl)
CONTROLLING(fcntl64)
OUTPUT(write, (int fd, const void *data, size_t size), (fd, data, size / 2), (fd, data, size))
OUTPUT(send, (int fd, const void *data, size_t size, int flags), (fd, data, size / 2, flags),
       (fd, data, size, flags))

int close(int fd)
{
    if (befall_fd("close", fd, NULL)) {
        int error = errno;
        NEXT(close)(fd); /* Linux does so, whatever it says */
        errno = error;
        return -1;
    }
    return NEXT(close)(fd);
}

ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, shutdown, (int fd, int how), (fd, how))
ON_FD(int, fstat64, (int fd, struct stat64 *stat), (fd, stat))
ON_FD(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, recv, (int fd, void *data, size_t size, int flags), (fd, data, size, flags))
ON_FD(ssize_t, pread64, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FD(int, accept4, (int fd, struct sockaddr *from, socklen_t *size, int flags),
      (fd, from, size, flags))
ON_PATH(int, rename, (const char *path, const char *to), (path, to))
ON_PATH(int, stat64, (const char *path, struct stat64 *stat), (path, stat))

void *mmap64(void *where, size_t size, int protection, int flags, int fd, off64_t at)
{
    if (fd >= 0 && befall_fd("mmap", fd, NULL))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, where, size, protection, flags, fd, at);
}

/* A wall clock that a test sets. Preloaded, it adds to what time it is as many seconds as the file has at its beginning that
 * CLOCK_SHIFT names: a 64-bit number in the machine's order. The product starts its worker with an empty environment; this
 * puts itself into that one, too, and into no other program's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES_MAX 64

typedef int (*clock_reader)(clockid_t, struct timespec *);
typedef int (*spawner)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[],
                       char *const[]);

static const volatile int64_t *shift_s;
static clock_reader read_clock;
static char preload[4096], shift_file[4096];

__attribute__((constructor)) static void begin(void) {
    read_clock = (clock_reader)dlsym(RTLD_NEXT, "clock_gettime");
    const char *library = getenv("LD_PRELOAD"), *path = getenv("CLOCK_SHIFT");
    if (!library || !path)
        return;
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    snprintf(shift_file, sizeof shift_file, "CLOCK_SHIFT=%s", path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *shift_s, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        abort();
    shift_s = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = read_clock ? read_clock(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && shift_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *shift_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec read = {0};
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &read);
    now->tv_sec = read.tv_sec;
    now->tv_usec = read.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec read = {0};
    clock_gettime(CLOCK_REALTIME, &read);
    if (told)
        *told = read.tv_sec;
    return read.tv_sec;
}

int posix_spawnp(pid_t *restrict pid, const char *restrict file, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *restrict attributes, char *const arguments[restrict], char *const entries[restrict]) {
    spawner spawn = (spawner)dlsym(RTLD_NEXT, "posix_spawnp");
    if (!shift_s || strcmp(file, "/proc/self/exe") != 0)
        return spawn(pid, file, actions, attributes, arguments, entries);
    char *more[ENTRIES_MAX + 3] = {preload, shift_file};
    for (int n = 0; entries[n] && n < ENTRIES_MAX; n++)
        more[n + 2] = entries[n];
    return spawn(pid, file, actions, attributes, arguments, more);
}

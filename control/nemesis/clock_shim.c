/* A clock of its own for one process: preloaded, it answers for the C library's clocks and waits.
 *
 * The problem. A machine has one wall clock, and containers share it: setting it hurts everybody.
 * The idea. A process asks the C library for the time, so a library that is loaded before it
 * (LD_PRELOAD) can add an offset to what the kernel says. How much stands in a page of memory that
 * is a file (LABRYS_CLOCK_PAGE, written by clock_page.py): a change holds from the next call on, in
 * every process that has mapped it. Without a page, or with one that says nothing, all is as ever.
 *
 * Both offsets are functions of the kernel's monotonic clock m, which nobody can set:
 *
 *     wall(m)      = wall_ns + (m - base_ns) * wall_drift, and strobe_ns more in every other half
 *     monotonic(m) = mono_ns + (m - base_ns) * mono_drift
 *
 * Invariants
 * - The monotonic clock never steps back in a process. Who changes its rate puts what it has gained
 *   so far into mono_ns; and since a thread may have read the clock between that moment and the
 *   publication, no thread is ever told less than another was told before (`ratchet`).
 * - A reader never sees half a change: there are two slots, the generation says which one holds,
 *   and it is written last and read twice.
 * - Waits last as long as the process thinks: time-outs are divided by the rate, deadlines carried
 *   over to the kernel's clock. A wait that has begun keeps its length when the rate changes.
 *
 * Out of reach: programs that do not call the C library (Go, static binaries), timerfd, setitimer,
 * locks with deadlines other than those below, and system calls made directly.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* Times further off mean "never" and do not fit into nanoseconds: they are left as they are. */
#define FOREVER_S 9000000000LL

/* Both as in clock_page.py. */
struct settings {
    int64_t base_ns;
    int64_t wall_ns;
    double wall_drift;
    int64_t strobe_ns;
    int64_t strobe_half_ns;
    int64_t mono_ns;
    double mono_drift;
    int64_t unused;
};

struct page {
    char magic[8];
    _Atomic uint64_t generation;
    struct settings slots[2];
};

enum kind { OTHER, WALL, MONO };

static struct page *page;

/* The function of that name in the library that would have been called. */
#define REAL(name)                                                        \
    ({                                                                    \
        static __typeof__(name) *found_;                                  \
        if (!found_) found_ = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
        found_;                                                           \
    })

__attribute__((constructor)) static void map_page(void) {
    const char *path = getenv("LABRYS_CLOCK_PAGE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct page), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return;
    if (memcmp(mapped, "labrys 1", 8) == 0) page = mapped;
}

/* ---- reading ------------------------------------------------------------------------------- */

static int get_settings(struct settings *into) {
    struct page *here = page;
    if (!here) return 0;
    uint64_t generation;
    do {
        generation = atomic_load_explicit(&here->generation, memory_order_acquire);
        *into = *(volatile struct settings *)&here->slots[generation & 1];
        atomic_thread_fence(memory_order_acquire);
    } while (atomic_load_explicit(&here->generation, memory_order_relaxed) != generation);
    return 1;
}

static enum kind kind_of(clockid_t clock) {
    switch (clock) {
        case CLOCK_REALTIME:
        case CLOCK_REALTIME_COARSE:
        case CLOCK_REALTIME_ALARM:
        case CLOCK_TAI: return WALL;
        case CLOCK_MONOTONIC:
        case CLOCK_MONOTONIC_RAW:
        case CLOCK_MONOTONIC_COARSE:
        case CLOCK_BOOTTIME:
        case CLOCK_BOOTTIME_ALARM: return MONO;
        default: return OTHER; /* CPU time is spent, not told */
    }
}

static int64_t to_ns(const struct timespec *time) {
    return time->tv_sec * SECOND + time->tv_nsec;
}

static struct timespec from_ns(int64_t ns) {
    int64_t seconds = ns / SECOND - (ns % SECOND < 0);
    return (struct timespec){.tv_sec = seconds, .tv_nsec = ns - seconds * SECOND};
}

static int ask_kernel(clockid_t clock, struct timespec *into) {
    __typeof__(clock_gettime) *real = REAL(clock_gettime);
    return real ? real(clock, into) : (int)syscall(SYS_clock_gettime, clock, into);
}

/* What the clock says without us; for clock_page.py, which compares. */
int64_t labrys_true_ns(int clock) {
    struct timespec now;
    return ask_kernel(clock, &now) == 0 ? to_ns(&now) : -1;
}

static int64_t offset_at(const struct settings *s, enum kind kind, int64_t mono_ns) {
    int64_t elapsed_ns = mono_ns - s->base_ns;
    if (kind == MONO) return s->mono_ns + (int64_t)((double)elapsed_ns * s->mono_drift);
    int64_t offset = s->wall_ns + (int64_t)((double)elapsed_ns * s->wall_drift);
    if (s->strobe_half_ns > 0 && ((elapsed_ns / s->strobe_half_ns) & 1)) offset += s->strobe_ns;
    return offset;
}

/* The greatest that anybody in this process was told of this clock, `ns` included. */
static int64_t ratchet(clockid_t clock, int64_t ns) {
    static _Atomic int64_t told[CLOCK_TAI + 1];
    int64_t last = atomic_load_explicit(&told[clock], memory_order_relaxed);
    while (last < ns)
        if (atomic_compare_exchange_weak_explicit(
                &told[clock], &last, ns, memory_order_relaxed, memory_order_relaxed))
            return ns;
    return last;
}

int clock_gettime(clockid_t clock, struct timespec *into) {
    enum kind kind = kind_of(clock);
    struct settings s;
    if (kind == OTHER || !get_settings(&s)) return ask_kernel(clock, into);
    int failed = ask_kernel(clock, into);
    if (failed) return failed;
    int64_t ns = to_ns(into);
    ns += offset_at(&s, kind, clock == CLOCK_MONOTONIC ? ns : labrys_true_ns(CLOCK_MONOTONIC));
    *into = from_ns(kind == MONO ? ratchet(clock, ns) : ns);
    return 0;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    struct timespec now;
    if (zone) memset(zone, 0, sizeof(struct timezone));
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed) *into = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *into) {
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *into, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, into) == 0 ? base : 0;
}

/* ---- waiting ------------------------------------------------------------------------------- */

/* How many seconds the process counts while one passes. */
static double rate_of(const struct settings *s, enum kind kind) {
    return 1 + (kind == WALL ? s->wall_drift : s->mono_drift);
}

static double rate_now(void) {
    struct settings s;
    return get_settings(&s) ? rate_of(&s, MONO) : 1;
}

/* Never shorter than it should be, or the process would find that it woke too early. */
static int64_t rounded_up(double number) {
    int64_t whole = (int64_t)number;
    return whole + (number > (double)whole);
}

static struct timespec scaled(const struct timespec *time, double by) {
    if (by == 1 || time->tv_sec < 0 || time->tv_sec > FOREVER_S) return *time;
    double ns = (double)to_ns(time) * by;
    return from_ns(ns > 9e18 ? FOREVER_S * SECOND : rounded_up(ns));
}

static int scaled_ms(int timeout_ms) {
    double rate = rate_now();
    if (timeout_ms <= 0 || rate == 1) return timeout_ms;
    double real_ms = timeout_ms / rate;
    return real_ms > INT_MAX ? INT_MAX : (int)rounded_up(real_ms);
}

/* When the kernel's clock will read what the process's clock reads at `deadline`. */
static struct timespec real_deadline(clockid_t clock, const struct timespec *deadline) {
    enum kind kind = kind_of(clock);
    struct settings s;
    if (kind == OTHER || deadline->tv_sec < 0 || deadline->tv_sec > FOREVER_S ||
        !get_settings(&s))
        return *deadline;
    int64_t true_ns = labrys_true_ns(clock);
    int64_t told_ns = true_ns + offset_at(&s, kind, labrys_true_ns(CLOCK_MONOTONIC));
    double left_ns = (double)(to_ns(deadline) - told_ns) / rate_of(&s, kind);
    if (left_ns > 5e18) left_ns = 5e18;
    int64_t real_ns = true_ns + rounded_up(left_ns);
    return from_ns(real_ns < 0 ? 0 : real_ns);
}

/* A condition does not tell its clock, but no two clocks are nearly alike: the nearer one it is. */
static clockid_t clock_of(const struct timespec *deadline) {
    struct timespec wall, mono;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &mono);
    double midway = ((double)wall.tv_sec + (double)mono.tv_sec) / 2;
    return ((double)deadline->tv_sec > midway) == (wall.tv_sec > mono.tv_sec) ? CLOCK_REALTIME
                                                                              : CLOCK_MONOTONIC;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    double rate = rate_now();
    struct timespec real = scaled(wanted, 1 / rate);
    int failed = REAL(nanosleep)(&real, left);
    if (failed && errno == EINTR && left) *left = scaled(left, rate);
    return failed;
}

int clock_nanosleep(
    clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
    struct settings s;
    enum kind kind = kind_of(clock);
    if (kind == OTHER || !get_settings(&s)) return REAL(clock_nanosleep)(clock, flags, wanted, left);
    if (flags & TIMER_ABSTIME) {
        struct timespec real = real_deadline(clock, wanted);
        return REAL(clock_nanosleep)(clock, flags, &real, left);
    }
    struct timespec real = scaled(wanted, 1 / rate_of(&s, kind));
    int error = REAL(clock_nanosleep)(clock, flags, &real, left);
    if (error == EINTR && left) *left = scaled(left, rate_of(&s, kind));
    return error;
}

int usleep(useconds_t us) {
    struct timespec wanted = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L};
    return nanosleep(&wanted, NULL);
}

unsigned sleep(unsigned seconds) {
    struct timespec left = {.tv_sec = seconds};
    if (nanosleep(&left, &left) == 0) return 0;
    return (unsigned)left.tv_sec + (left.tv_nsec > 0);
}

int poll(struct pollfd *files, nfds_t count, int timeout_ms) {
    return REAL(poll)(files, count, scaled_ms(timeout_ms));
}

int ppoll(
    struct pollfd *files, nfds_t count, const struct timespec *timeout, const sigset_t *signals) {
    if (!timeout) return REAL(ppoll)(files, count, timeout, signals);
    struct timespec real = scaled(timeout, 1 / rate_now());
    return REAL(ppoll)(files, count, &real, signals);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms) {
    return REAL(epoll_wait)(epoll, events, most, scaled_ms(timeout_ms));
}

int epoll_pwait(
    int epoll, struct epoll_event *events, int most, int timeout_ms, const sigset_t *signals) {
    return REAL(epoll_pwait)(epoll, events, most, scaled_ms(timeout_ms), signals);
}

int select(
    int count, fd_set *restrict in, fd_set *restrict out, fd_set *restrict bad,
    struct timeval *restrict timeout) {
    if (!timeout) return REAL(select)(count, in, out, bad, timeout);
    double rate = rate_now();
    struct timespec wanted = {.tv_sec = timeout->tv_sec, .tv_nsec = timeout->tv_usec * 1000L};
    struct timespec real = scaled(&wanted, 1 / rate);
    /* Rounded up, as above. */
    int64_t us = (to_ns(&real) + 999) / 1000;
    struct timeval left = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    if (rate == 1 || wanted.tv_sec < 0) left = *timeout;
    int ready = REAL(select)(count, in, out, bad, &left);
    struct timespec rest = {.tv_sec = left.tv_sec, .tv_nsec = left.tv_usec * 1000L};
    rest = scaled(&rest, rate);
    *timeout = (struct timeval){.tv_sec = rest.tv_sec, .tv_usec = rest.tv_nsec / 1000};
    return ready;
}

int pselect(
    int count, fd_set *restrict in, fd_set *restrict out, fd_set *restrict bad,
    const struct timespec *restrict timeout, const sigset_t *restrict signals) {
    if (!timeout) return REAL(pselect)(count, in, out, bad, timeout, signals);
    struct timespec real = scaled(timeout, 1 / rate_now());
    return REAL(pselect)(count, in, out, bad, &real, signals);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    struct timespec real = real_deadline(CLOCK_REALTIME, deadline);
    return REAL(sem_timedwait)(semaphore, &real);
}

int pthread_mutex_timedlock(
    pthread_mutex_t *restrict mutex, const struct timespec *restrict deadline) {
    struct timespec real = real_deadline(CLOCK_REALTIME, deadline);
    return REAL(pthread_mutex_timedlock)(mutex, &real);
}

int pthread_cond_timedwait(
    pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
    const struct timespec *restrict deadline) {
    static __typeof__(pthread_cond_timedwait) *found;
#ifdef __GLIBC__
    /* There are two of that name on old architectures; asked without a version, dlsym may return
     * the older one, which takes another kind of condition. */
    if (!found) found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
#endif
    if (!found) found = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec real = page ? real_deadline(clock_of(deadline), deadline) : *deadline;
    return found(condition, mutex, &real);
}

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
int sem_clockwait(
    sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict deadline) {
    struct timespec real = real_deadline(clock, deadline);
    return REAL(sem_clockwait)(semaphore, clock, &real);
}

int pthread_cond_clockwait(
    pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, clockid_t clock,
    const struct timespec *restrict deadline) {
    struct timespec real = real_deadline(clock, deadline);
    return REAL(pthread_cond_clockwait)(condition, mutex, clock, &real);
}

int pthread_mutex_clocklock(
    pthread_mutex_t *restrict mutex, clockid_t clock, const struct timespec *restrict deadline) {
    struct timespec real = real_deadline(clock, deadline);
    return REAL(pthread_mutex_clocklock)(mutex, clock, &real);
}
#endif

/* A wall clock that is off by what the file MYOLOOP_WALL_CLOCK holds (seconds), for LD_PRELOAD; the monotonic clock stays true. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long off(void) {
  const char *path = getenv("MYOLOOP_WALL_CLOCK");
  char text[32] = {0};
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return 0;
  if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
  close(file);
  return atol(text);
}

int clock_gettime(clockid_t which, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(which, now);
  if (!done && which == CLOCK_REALTIME) now->tv_sec += off();
  return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec fine;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
  now->tv_sec = fine.tv_sec;
  now->tv_usec = fine.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *where) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}

/* Who waits until a time of the wall clock waits until this one shows it, also if it is set back meanwhile, as the kernel has it.
   Times of the monotonic clock are far smaller. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!real)
    real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (until->tv_sec < 1000000000L) return real(condition, mutex, until);
  for (;;) {
    struct timespec now, slice = *until;
    clock_gettime(CLOCK_REALTIME, &now);
    double left = (double)(until->tv_sec - now.tv_sec) + 1e-9 * (double)(until->tv_nsec - now.tv_nsec);
    slice.tv_sec -= off();
    if (left > 0.05) { /* a look at the clock every 50 ms */
      slice.tv_sec = now.tv_sec - off();
      slice.tv_nsec = now.tv_nsec + 50000000L;
      slice.tv_sec += slice.tv_nsec / 1000000000L;
      slice.tv_nsec %= 1000000000L;
    }
    int done = real(condition, mutex, &slice);
    if (done != ETIMEDOUT || left <= 0.05) return done;
  }
}

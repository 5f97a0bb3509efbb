/* Replaces the C library's clock_gettime (LD_PRELOAD) and changes two clocks:
 *
 *   CLOCK_REALTIME   jumps at each call, ahead and back in turn, by one year, by two, by three. Each
 *                    jump ahead passes all earlier times, so taking the latest of all answers
 *                    does not help either;
 *   CLOCK_BOOTTIME   is ahead of CLOCK_MONOTONIC, as after a suspend, by the number of seconds in the
 *                    file that TERSED_TEST_SUSPENDED names; by none if there is no such file.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const time_t year = 365 * 24 * 3600;

static time_t suspended(void) {
    const char *path = getenv("TERSED_TEST_SUSPENDED");
    FILE *file = path ? fopen(path, "re") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static atomic_uint calls;
    int answer = (int)syscall(SYS_clock_gettime, clock, time);
    if (answer != 0) return answer;
    if (clock == CLOCK_REALTIME) {
        unsigned call = atomic_fetch_add(&calls, 1);
        time_t years = 1 + call / 2 % 1000;
        time->tv_sec += (call % 2 ? years : -years) * year;
    }
    if (clock == CLOCK_BOOTTIME) time->tv_sec += suspended();
    return 0;
}

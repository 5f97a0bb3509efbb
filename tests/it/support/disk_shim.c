/* Stands before the C library's fdatasync (LD_PRELOAD): it fails with the error number that stands in the file that
 * TERSED_TEST_DISK_ERRNO names, and does what it should if there is no such file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
    const char *path = getenv("TERSED_TEST_DISK_ERRNO");
    FILE *file = path ? fopen(path, "re") : NULL;
    int number = 0;
    if (file) {
        if (fscanf(file, "%d", &number) != 1)
            number = 0;
        fclose(file);
    }
    if (number) {
        errno = number;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* Replaces some functions of the C library (LD_PRELOAD). They do what they should, except:
 *
 * fdatasync fails with the error number in the file that TERSED_TEST_DISK_ERRNO names, if there is such a file.
 * write to a regular file hangs while the file that TERSED_TEST_DISK_HANGS names exists.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
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

ssize_t write(int fd, const void *octets, size_t count) {
    const char *path = getenv("TERSED_TEST_DISK_HANGS");
    struct stat status;
    if (path && fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        while (access(path, F_OK) == 0)
            usleep(1000);
    return syscall(SYS_write, fd, octets, count);
}

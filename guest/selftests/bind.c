/*
 * Binds some of Linux's SGX selftests to the first CPU without touching their
 * source: the harness forks once for each test, in order, so the linker's
 * --wrap=fork sees each test's process begin. "3+5" as the program's argument
 * binds the third and the fifth; no argument binds none. All tests run.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pid_t __real_fork(void);
pid_t __wrap_fork(void);

/* The harness ignores its arguments, so they are read from procfs. */
static bool is_bound(long number)
{
	static char line[512];
	char *at;
	ssize_t length;
	int fd;

	fd = open("/proc/self/cmdline", O_RDONLY);
	if (fd < 0)
		return false;
	length = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (length <= 0)
		return false;
	line[length] = '\0';
	at = line + strlen(line) + 1;
	if (at >= line + length)
		return false;
	while (*at) {
		char *end;

		if (strtol(at, &end, 10) == number)
			return true;
		at = *end == '+' ? end + 1 : end + strlen(end);
	}
	return false;
}

pid_t __wrap_fork(void)
{
	static long number;
	pid_t pid;

	number++;
	pid = __real_fork();
	if (pid == 0 && is_bound(number)) {
		cpu_set_t first;

		CPU_ZERO(&first);
		CPU_SET(0, &first);
		if (sched_setaffinity(0, sizeof(first), &first))
			_exit(EXIT_FAILURE);
	}
	return pid;
}

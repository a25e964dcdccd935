/*
 * Runs some of Linux's SGX selftests without touching their source: the harness
 * forks once for each test, in order, so the linker's --wrap=fork lets the tests
 * that were not asked for end as skipped. "1+6" as the kernel command line's
 * test_sgx argument asks for the first and the sixth; no argument asks for all.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the harness takes for a skipped test. */
#define SKIPPED 255

pid_t __real_fork(void);
pid_t __wrap_fork(void);

/* The harness ignores its arguments, so they are read from procfs. */
static bool wanted(long number)
{
	static char line[512];
	char *at;
	ssize_t length;
	int fd;

	fd = open("/proc/self/cmdline", O_RDONLY);
	if (fd < 0)
		return true;
	length = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (length <= 0)
		return true;
	line[length] = '\0';
	at = line + strlen(line) + 1;
	if (at >= line + length)
		return true;
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
	if (pid == 0 && !wanted(number))
		_exit(SKIPPED);
	return pid;
}

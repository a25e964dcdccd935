/*
 * PID 1 of guests with a 32-bit kernel: what guest/init does with "cloister.run="
 * for programs in /bin, whose names and arguments come from the kernel's command
 * line, and power-off at the end. In C, since gcc compiles for these guests with
 * nothing more than Debian's 32-bit libc.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { COMMAND_LINE = 4096, WORDS = 16, CANNOT_RUN = 127, SIGNALLED = 128 };

static void mount_on(const char *kind, const char *folder)
{
	mkdir(folder, 0755);
	if (mount(kind, folder, kind, 0, NULL))
		printf("init: cannot mount %s on %s: %m\n", kind, folder);
}

/* From here on only errors reach the console, not in the middle of a line of ours. */
static void quieten_kernel(void)
{
	FILE *level = fopen("/proc/sys/kernel/printk", "w");

	if (level) {
		fputs("4", level);
		fclose(level);
	}
}

/* Runs /bin/NAME; the words of a task are parted by colons. */
static void run(char *task)
{
	char *words[WORDS + 1] = { NULL };
	char path[256];
	int count = 0, status = 0;
	pid_t child;

	while (task && count < WORDS)
		words[count++] = strsep(&task, ":");
	snprintf(path, sizeof(path), "/bin/%s", words[0]);
	printf("init: begin %s\n", words[0]);
	fflush(stdout);
	child = fork();
	if (child == 0) {
		execv(path, words);
		printf("init: cannot run %s: %m\n", path);
		fflush(stdout);
		_exit(CANNOT_RUN);
	}
	/* Children of ended programs end here too. */
	while (child > 0 && wait(&status) != child)
		;
	printf("init: end %s %d\n", words[0],
	       child < 0 ? CANNOT_RUN :
	       WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status));
}

int main(void)
{
	static char line[COMMAND_LINE];
	struct utsname system;
	char *rest = line, *word;
	FILE *file;

	mount_on("proc", "/proc");
	mount_on("sysfs", "/sys");
	mount_on("devtmpfs", "/dev");
	mount_on("tmpfs", "/tmp");
	quieten_kernel();
	uname(&system);
	printf("init: up, %s %s\n", system.machine, system.release);
	file = fopen("/proc/cmdline", "r");
	if (file && !fgets(line, sizeof(line), file))
		line[0] = '\0';
	while ((word = strsep(&rest, " \n"))) {
		static const char option[] = "cloister.run=";
		char *task;

		if (strncmp(word, option, strlen(option)))
			continue;
		word += strlen(option);
		while ((task = strsep(&word, ",")))
			run(task);
	}
	printf("init: poweroff\n");
	fflush(stdout);
	/* The last lines may still be in the serial driver's buffer. */
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	printf("init: poweroff did not happen: %m\n");
	return 1;
}

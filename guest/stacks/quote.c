/*
 * Has the REPORT of its enclave quoted by Gramine, into the file quote.bin.
 * REPORTDATA is 64 bytes of 0x5e.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTESTATION "/dev/attestation/"

static FILE *open_file(const char *name, const char *mode)
{
	FILE *file = fopen(name, mode);

	if (!file) {
		perror(name);
		exit(1);
	}
	return file;
}

int main(void)
{
	static char buffer[8192];
	char type[16] = "";
	FILE *file = open_file(ATTESTATION "attestation_type", "r");
	size_t size;

	size = fread(type, 1, sizeof(type) - 1, file);
	fclose(file);

	memset(buffer, 0x5e, 64);
	file = open_file(ATTESTATION "user_report_data", "w");
	if (fwrite(buffer, 64, 1, file) != 1 || fclose(file)) {
		perror("user_report_data");
		return 1;
	}

	file = open_file(ATTESTATION "quote", "r");
	size = fread(buffer, 1, sizeof(buffer), file);
	fclose(file);
	if (!size) {
		puts("quote: /dev/attestation/quote is empty");
		return 1;
	}
	file = open_file("/work/quote.bin", "w");
	if (fwrite(buffer, size, 1, file) != 1 || fclose(file)) {
		perror("quote.bin");
		return 1;
	}
	printf("quote: %s, %zu bytes\n", type, size);
	return 0;
}

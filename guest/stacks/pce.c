/*
 * Asks Intel's provisioning certification enclave (PCE) through its library.
 *
 * Usage: pce target TARGETINFO: write the PCE's TARGETINFO, print its ISVSVN
 *        pce sign REPORT SIGNATURE: have a REPORT signed at its own CPUSVN, with the PCE's key of now
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TARGETINFO_SIZE 512
#define REPORT_SIZE 432
#define SIGNATURE_SIZE 64
/* The library counts its errors from here. */
#define SGX_PCE_SUCCESS 0xf000

/* sgx_pce.h of Intel's DCAP. A REPORT begins with CPUSVN. */
static int (*sgx_pce_get_target)(void *target, uint16_t *isvsvn);
static int (*sgx_pce_sign_report)(const uint16_t *isvsvn, const void *cpusvn, const void *report,
				  void *signature, uint32_t room, uint32_t *size);

static void check(int holds, const char *what, int result)
{
	if (holds)
		return;
	printf("pce: %s: %#x\n", what, result);
	exit(1);
}

static void transfer(const char *name, const char *mode, void *bytes, size_t size)
{
	FILE *file = fopen(name, mode);
	size_t done = 0;

	if (file) {
		done = *mode == 'r' ? fread(bytes, 1, size, file) : fwrite(bytes, 1, size, file);
		fclose(file);
	}
	if (done != size) {
		perror(name);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	uint8_t target[TARGETINFO_SIZE], report[REPORT_SIZE], signature[SIGNATURE_SIZE];
	void *library = dlopen("libsgx_pce_logic.so.1", RTLD_NOW);
	uint16_t isvsvn;
	uint32_t size;
	int result;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!library) {
		printf("pce: %s\n", dlerror());
		return 1;
	}
	sgx_pce_get_target = dlsym(library, "sgx_pce_get_target");
	sgx_pce_sign_report = dlsym(library, "sgx_pce_sign_report");
	result = sgx_pce_get_target(target, &isvsvn);
	check(result == SGX_PCE_SUCCESS, "sgx_pce_get_target", result);

	if (argc == 3 && !strcmp(argv[1], "target")) {
		transfer(argv[2], "w", target, sizeof(target));
		printf("pce: ISVSVN %d\n", isvsvn);
	} else if (argc == 4 && !strcmp(argv[1], "sign")) {
		transfer(argv[2], "r", report, sizeof(report));
		result = sgx_pce_sign_report(&isvsvn, report, report, signature, sizeof(signature), &size);
		check(result == SGX_PCE_SUCCESS && size == sizeof(signature), "sgx_pce_sign_report",
		      result);
		transfer(argv[3], "w", signature, sizeof(signature));
		puts("pce: signed");
	} else {
		puts("usage: pce target TARGETINFO | pce sign REPORT SIGNATURE");
		return 2;
	}
	return 0;
}

/* Verifies the quote in a file as Gramine's RA-TLS does, and prints what the functions return:
 * the size of supplemental data, and for each of both functions its code, the expiration status and the result. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int sgx_qv_set_enclave_load_policy(int policy);
int sgx_qv_get_quote_supplemental_data_size(uint32_t *size);
int sgx_qv_verify_quote(const uint8_t *quote, uint32_t quote_size, void *collateral, const time_t date,
                        uint32_t *expired, uint32_t *result, void *qve_report_info,
                        uint32_t supplemental_size, uint8_t *supplemental);

struct descriptor {
    uint16_t major_version;
    uint32_t data_size;
    uint8_t *data;
};

int tee_verify_quote(const uint8_t *quote, uint32_t quote_size, const uint8_t *collateral, const time_t date,
                     uint32_t *expired, uint32_t *result, void *qve_report_info,
                     struct descriptor *descriptor);

int main(int count, char **words) {
    static uint8_t quote[1 << 16];
    FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
    if (!file)
        return 1;
    uint32_t length = (uint32_t)fread(quote, 1, sizeof(quote), file);
    fclose(file);
    time_t date = time(NULL) + 86400 * (time_t)atol(words[2]);

    uint32_t size = 0;
    if (sgx_qv_set_enclave_load_policy(0) || sgx_qv_get_quote_supplemental_data_size(&size))
        return 1;
    uint8_t *supplemental = malloc(size);
    if (!supplemental)
        return 1;
    uint32_t expired = 7, result = 7;
    int code = sgx_qv_verify_quote(quote, length, NULL, date, &expired, &result, NULL, size, supplemental);
    printf("%u %x %u %x\n", size, (unsigned)code, expired, result);
    struct descriptor descriptor = {3, size, supplemental};
    expired = result = 7;
    code = tee_verify_quote(quote, length, NULL, date, &expired, &result, NULL, &descriptor);
    printf("%u %x %u %x\n", size, (unsigned)code, expired, result);
    /* Collateral of the caller's, no result, too little room. */
    printf("%x", (unsigned)sgx_qv_verify_quote(quote, length, quote, date, &expired, &result, NULL, 0, NULL));
    printf(" %x", (unsigned)sgx_qv_verify_quote(quote, length, NULL, date, &expired, NULL, NULL, 0, NULL));
    printf(" %x\n", (unsigned)sgx_qv_verify_quote(quote, length, NULL, date, &expired, &result, NULL, size - 1,
                                                  supplemental));
    free(supplemental);
    return 0;
}

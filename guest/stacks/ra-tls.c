/*
 * A line each way over TLS between two enclaves of Gramine. Each has a
 * certificate with a quote of its own in it (RA-TLS) and wants one of the other,
 * which has to be the same enclave.
 *
 * Usage: ra-tls server PORT
 *        ra-tls client HOST PORT
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <psa/crypto.h>

#include "ra_tls.h"

#define MRENCLAVE_SIZE 32
/* A server that is still to come is waited for. */
#define ATTEMPTS 120

static uint8_t own_mrenclave[MRENCLAVE_SIZE];

static __typeof__(&ra_tls_create_key_and_crt_der) create_key_and_crt;
static __typeof__(&ra_tls_set_measurement_callback) set_measurement_callback;
static __typeof__(&ra_tls_verify_callback_extended_der) verify;

/* Prints what failed and ends: an enclave that is refused ends here too. */
static void check(int result, const char *what)
{
	if (result >= 0)
		return;
	printf("ra-tls: %s: -0x%04x\n", what, -result);
	exit(1);
}

static void *symbol(const char *library, const char *name)
{
	void *loaded = dlopen(library, RTLD_NOW);
	void *found = loaded ? dlsym(loaded, name) : NULL;

	if (!found) {
		printf("ra-tls: %s\n", dlerror());
		exit(1);
	}
	return found;
}

/* A TARGETINFO of this enclave begins with its MRENCLAVE. */
static void measure_self(void)
{
	FILE *info = fopen("/dev/attestation/my_target_info", "r");

	if (!info || fread(own_mrenclave, sizeof(own_mrenclave), 1, info) != 1)
		check(-1, "/dev/attestation/my_target_info");
	fclose(info);
}

static int same_enclave(const char *mrenclave, const char *mrsigner, const char *isv_prod_id,
			const char *isv_svn)
{
	(void)mrsigner;
	(void)isv_prod_id;
	(void)isv_svn;
	return memcmp(mrenclave, own_mrenclave, MRENCLAVE_SIZE) ? -1 : 0;
}

/* Nobody has signed the certificate: the quote in it says all there is to say. */
static int judge(void *unused, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
	struct ra_tls_verify_callback_results results = { 0 };
	int refused;

	(void)unused;
	*flags = 0;
	if (depth)
		return MBEDTLS_ERR_X509_INVALID_FORMAT;
	refused = verify(certificate->raw.p, certificate->raw.len, &results);
	if (refused)
		printf("ra-tls: the other enclave is refused: step %d, SGX_QL_QV_RESULT %#x\n",
		       results.err_loc, results.dcap.quote_verification_result);
	return refused;
}

static void connect_to(mbedtls_net_context *peer, const char *host, const char *port)
{
	int result = -1;

	for (int attempt = 0; result && attempt < ATTEMPTS; attempt++) {
		if (attempt)
			sleep(1);
		result = mbedtls_net_connect(peer, host, port, MBEDTLS_NET_PROTO_TCP);
	}
	check(result, "connect");
}

static void accept_from(mbedtls_net_context *peer, const char *port)
{
	mbedtls_net_context listener;

	mbedtls_net_init(&listener);
	check(mbedtls_net_bind(&listener, NULL, port, MBEDTLS_NET_PROTO_TCP), "bind");
	check(mbedtls_net_accept(&listener, peer, NULL, 0, NULL), "accept");
}

static void put(mbedtls_ssl_context *tls, const char *line)
{
	check(mbedtls_ssl_write(tls, (const uint8_t *)line, strlen(line)), "write");
}

static void get(mbedtls_ssl_context *tls)
{
	char line[64];
	int length;

	do
		length = mbedtls_ssl_read(tls, (uint8_t *)line, sizeof(line));
	while (length == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET);
	check(length, "read");
	printf("ra-tls: the other enclave says: %.*s\n", length, line);
}

int main(int argc, char **argv)
{
	int server = argc == 3 && !strcmp(argv[1], "server");
	mbedtls_entropy_context entropy;
	mbedtls_ctr_drbg_context random;
	mbedtls_net_context peer;
	mbedtls_x509_crt certificate;
	mbedtls_pk_context key;
	mbedtls_ssl_config config;
	mbedtls_ssl_context tls;
	uint8_t *key_der, *certificate_der;
	size_t key_size, certificate_size;

	if (!server && (argc != 4 || strcmp(argv[1], "client"))) {
		printf("usage: ra-tls server PORT | ra-tls client HOST PORT\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	create_key_and_crt = symbol("libra_tls_attest.so", "ra_tls_create_key_and_crt_der");
	set_measurement_callback =
		symbol("libra_tls_verify_dcap_gramine.so", "ra_tls_set_measurement_callback");
	verify = symbol("libra_tls_verify_dcap_gramine.so", "ra_tls_verify_callback_extended_der");
	measure_self();
	set_measurement_callback(same_enclave);

	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&random);
	mbedtls_net_init(&peer);
	mbedtls_x509_crt_init(&certificate);
	mbedtls_pk_init(&key);
	mbedtls_ssl_config_init(&config);
	mbedtls_ssl_init(&tls);
	check(-(psa_crypto_init() != PSA_SUCCESS), "psa_crypto_init");
	check(mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0), "seed");

	check(create_key_and_crt(&key_der, &key_size, &certificate_der, &certificate_size), "quote");
	check(mbedtls_x509_crt_parse(&certificate, certificate_der, certificate_size), "certificate");
	check(mbedtls_pk_parse_key(&key, key_der, key_size, NULL, 0, mbedtls_ctr_drbg_random, &random),
	      "key");

	check(mbedtls_ssl_config_defaults(&config, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
					  MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT),
	      "configure");
	mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
	/* Without an authority nothing is asked of the other; `judge` decides. */
	mbedtls_ssl_conf_ca_chain(&config, &certificate, NULL);
	mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_REQUIRED);
	mbedtls_ssl_conf_verify(&config, judge, NULL);
	check(mbedtls_ssl_conf_own_cert(&config, &certificate, &key), "own certificate");
	check(mbedtls_ssl_setup(&tls, &config), "set up");
	check(mbedtls_ssl_set_hostname(&tls, NULL), "host name");

	if (server)
		accept_from(&peer, argv[2]);
	else
		connect_to(&peer, argv[2], argv[3]);
	mbedtls_ssl_set_bio(&tls, &peer, mbedtls_net_send, mbedtls_net_recv, NULL);
	check(mbedtls_ssl_handshake(&tls), "handshake");
	if (server) {
		get(&tls);
		put(&tls, "hello from the server");
	} else {
		put(&tls, "hello from the client");
		get(&tls);
	}
	/* A peer that is gone already has had all. */
	mbedtls_ssl_close_notify(&tls);
	return 0;
}

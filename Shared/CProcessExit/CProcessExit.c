#include "CProcessExit.h"

#include <openssl/crypto.h>

static int keeps_libcrypto;

/* exit(3) runs OPENSSL_cleanup(3), which frees what threads registered without a lock. A thread that ends at that moment
   (a database session's: libpq uses libcrypto) frees the same, and the process aborts with "double free or corruption".
   The first initialization decides, so this one comes before main(): OPENSSL_init_crypto(3), OPENSSL_INIT_NO_ATEXIT. */
__attribute__((constructor)) static void keep_libcrypto(void)
{
    keeps_libcrypto = OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

int cprocessexit_keeps_libcrypto(void)
{
    return keeps_libcrypto;
}

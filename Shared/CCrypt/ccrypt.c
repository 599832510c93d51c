#include "ccrypt.h"
#include <crypt.h>
#include <string.h>
#include <stdlib.h>

int wolke_crypt(const char *phrase, const char *setting, char *output, size_t outputSize) {
    struct crypt_data *data = calloc(1, sizeof(struct crypt_data));
    if (!data) return -1;
    const char *hash = crypt_r(phrase, setting, data);
    int result = -1;
    if (hash && hash[0] != '*' && strlen(hash) < outputSize) {
        strcpy(output, hash);
        result = 0;
    }
    explicit_bzero(data, sizeof(struct crypt_data));
    free(data);
    return result;
}

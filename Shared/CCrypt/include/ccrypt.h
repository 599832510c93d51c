#pragma once
#include <stddef.h>

/// Hashes `phrase` under `setting` (crypt(5) format) into `output`; 0 on success, -1 on failure.
int wolke_crypt(const char *phrase, const char *setting, char *output, size_t outputSize);

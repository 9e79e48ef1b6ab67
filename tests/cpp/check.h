// A claim a line, and what fails is counted.

#pragma once

#include <cstdio>

inline int n_passed = 0;
inline int n_failed = 0;

inline void check(bool ok, const char * claim, double value = 0) {
    printf("%s: %s (%g)\n", ok ? "ok" : "FAILED", claim, value);
    (ok ? n_passed : n_failed) += 1;
}

// exit code of the program
inline int report() {
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0;
}

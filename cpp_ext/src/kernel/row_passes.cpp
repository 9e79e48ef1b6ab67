#include "row_passes.h"

namespace autodeco {

const row_passes & best_passes() {
#if defined(AUTODECO_X86)
    static const row_passes & best =
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") ? row_passes_avx512 :
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")                                              ? row_passes_avx2 :
                                                                                                                       row_passes_baseline;
    return best;
#else
    return row_passes_baseline;
#endif
}

} // namespace autodeco

// compiled for what every machine of this architecture has
#if defined(__ARM_NEON)
#define AUTODECO_BASELINE_ISA "neon"
#else
#define AUTODECO_BASELINE_ISA "generic"
#endif
#define AUTODECO_ROW_PASSES row_passes_baseline
#define AUTODECO_ISA        AUTODECO_BASELINE_ISA
#include "row_passes.inl"

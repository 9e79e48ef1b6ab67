// compiled with the flags of its name (CMakeLists.txt), run only where the machine has the instructions
#define AUTODECO_ROW_PASSES row_passes_avx512
#define AUTODECO_ISA        "avx512"
#include "row_passes.inl"

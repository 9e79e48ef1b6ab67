// What differs between the releases of llama.cpp that this builds with. The headers at hand say which it is.

#pragma once

#include "ggml.h"

namespace autodeco {

// Let a product be added up in float32. ggml 0.20 has another name for it; the argument 0 takes the newer one if there is one.
template <typename Tensor>
auto add_up_in_f32(Tensor * product, int) -> decltype(ggml_prec_set_acc(product, GGML_PREC_F32)) {
    return ggml_prec_set_acc(product, GGML_PREC_F32);
}
template <typename Tensor>
auto add_up_in_f32(Tensor * product, long) -> decltype(ggml_mul_mat_set_prec(product, GGML_PREC_F32)) {
    return ggml_mul_mat_set_prec(product, GGML_PREC_F32);
}

} // namespace autodeco

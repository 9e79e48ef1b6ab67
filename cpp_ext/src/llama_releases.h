// What differs between the releases of llama.cpp that this builds with. The headers at hand say which it is: each difference is
// asked for here, and nothing asks for a version.

#pragma once

#include "llama.h"

#include "ggml.h"

#include <type_traits>

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

// Numbers held within bounds, as a tensor of their own: up to ggml 0.20 what is clamped is overwritten, by a view of it.
inline ggml_tensor * clamped(ggml_context * ctx, ggml_tensor * numbers, float low, float high) {
    ggml_tensor * result = ggml_clamp(ctx, numbers, low, high);
    return result->view_src ? ggml_clamp(ctx, ggml_cont(ctx, numbers), low, high) : result;
}

template <typename Interface, typename = void>
struct has_graph_calls : std::false_type {};
template <typename Interface>
struct has_graph_calls<Interface, std::void_t<decltype(Interface::backend_reset), decltype(Interface::copy_state)>> : std::true_type {};

// Whether a sequence may have several outputs in a decode, and samplers are told of every graph before it is built, tried in
// one when they are attached, and counted in its size. The others build one graph for one output of each sequence, and tell
// a sampler by nothing but backend_apply.
constexpr bool SEVERAL_OUTPUTS = has_graph_calls<llama_sampler_i>::value;

// Set the calls that only a release with several outputs has.
template <typename Interface>
constexpr void set_graph_calls(Interface & interface, void (*reset)(llama_sampler *), void (*copy)(const llama_sampler *, llama_sampler *)) {
    if constexpr (has_graph_calls<Interface>::value) {
        interface.backend_reset = reset;
        interface.copy_state    = copy;
    } else {
        (void) interface, (void) reset, (void) copy;
    }
}

// llama_context_params.n_outputs_max_per_seq, where there may be several.
template <typename Params>
auto set_outputs_per_sequence(Params & params, uint32_t n, int) -> decltype((void) params.n_outputs_max_per_seq) {
    params.n_outputs_max_per_seq = n;
}
template <typename Params>
void set_outputs_per_sequence(Params & /*params*/, uint32_t /*n*/, long) {}

} // namespace autodeco

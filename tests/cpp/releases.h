// What tests call of llama.cpp that differs between the releases that this builds with, as src/llama_releases.h has it.

#pragma once

#include "llama_releases.h"

#include <cstdlib>

template <typename Sampler>
auto copy_sampler(const Sampler * from, Sampler * to, int) -> decltype(llama_sampler_copy(from, to)) {
    llama_sampler_copy(from, to);
}
template <typename Sampler>
void copy_sampler(const Sampler *, Sampler *, long) {
    std::abort(); // no release without it has what needs it
}

template <typename Make>
llama_sampler * new_penalties(Make make, const llama_vocab * vocab) {
    if constexpr (std::is_invocable_v<Make, int, int, float, float, float>) {
        return make(llama_vocab_n_tokens(vocab), 64, 1.3f, 0.1f, 0.1f);
    } else {
        return make(64, 1.3f, 0.1f, 0.1f);
    }
}

template <typename Make>
llama_sampler * new_dry(Make make, const llama_vocab * vocab) {
    const char * breaks = "\n";
    if constexpr (std::is_invocable_v<Make, const llama_vocab *, int, float, float, int, int, const char **, size_t>) {
        return make(vocab, 2048, 1.0f, 1.75f, 2, 64, &breaks, 1); // the length that the model was trained for
    } else {
        return make(vocab, 1.0f, 1.75f, 2, 64, &breaks, 1);
    }
}

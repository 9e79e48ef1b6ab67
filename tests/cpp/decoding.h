// Contexts and batches as the tests of the sampler need them.

#pragma once

#include "autodeco.h"
#include "llama_releases.h"

#include <cstdint>
#include <vector>

inline const std::vector<std::vector<llama_token>> PROMPTS = {
    { 1, 504, 3575, 282, 4649, 314 }, { 1, 19, 216, 34, 446, 216, 35, 5 }, { 1, 28, 30, 42 }, { 1, 1000, 2000, 3000, 4000 },
};

inline bool kv_offload = true;

inline llama_context * new_context(llama_model * model, bool embeddings, uint32_t n_seq, uint32_t n_outputs_max_per_seq = 1) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx            = 256 * n_seq;
    params.n_batch          = 256;
    params.n_seq_max        = n_seq;
    params.n_threads        = 1;
    params.n_threads_batch  = 1;
    params.embeddings       = embeddings;
    params.offload_kqv      = kv_offload;
    params.kv_unified       = n_seq > 1; // else sequences that are not neighbours go through graphs of their own
    autodeco::set_outputs_per_sequence(params, n_outputs_max_per_seq, 0);
    return llama_init_from_model(model, params);
}

// decode tokens of one sequence from position `pos`; the last one is an output unless told otherwise
inline int decode(llama_context * ctx, const std::vector<llama_token> & tokens, llama_pos pos, llama_seq_id seq, bool output = true) {
    llama_batch batch = llama_batch_init((int32_t) tokens.size(), 0, 1);
    for (size_t i = 0; i < tokens.size(); ++i) {
        batch.token[i]     = tokens[i];
        batch.pos[i]       = pos + (llama_pos) i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq;
        batch.logits[i]    = output && i + 1 == tokens.size();
    }
    batch.n_tokens = (int32_t) tokens.size();
    const int rc = llama_decode(ctx, batch);
    llama_batch_free(batch);
    return rc;
}

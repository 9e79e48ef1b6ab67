#include "row_workspace.h"

#include "ggml.h"

namespace autodeco {

void row_workspace::reserve(int64_t n_vocab) {
    if ((int64_t) order.size() >= n_vocab) {
        return;
    }
    block_max.resize(n_blocks(n_vocab));
    e.resize(n_blocks(n_vocab) * BLOCK_SIZE);
    shares.resize(GGML_MAX_N_THREADS);
    bucket_mass.resize(N_CELLS);
    bucket_count.resize(N_CELLS);
    gathered_z.resize(n_vocab);
    gathered_e.resize(n_vocab);
    gathered_id.resize(n_vocab);
    order.resize(n_vocab);
    sample.reserve(n_vocab / SAMPLE_STRIDE + SAMPLE_RUN);
    // a bracket of more tokens would save too little
    bracket_id.resize(n_vocab / 4 + BLOCK_SIZE);
    bracket.reserve((int64_t) bracket_id.size());
}

} // namespace autodeco

// Statistics and nucleus without sorting whole rows: a row is cut into chunks, of each of which the likeliest few tokens are
// kept, and only these are sorted. In that order they are the head of the sorted row, down to the likeliest of those that are
// the last kept of a chunk. Sums need no order. A draw that needs more of the row says so, and is done anew (row_redraws.h).
//
// Asked for by AUTODECO_NUCLEUS=chunks.

#pragma once

#include "draw_inputs.h"

namespace autodeco {

// Chunk c of a row has the tokens c, c + n_chunks, c + 2 n_chunks, ...: neighbours among tokens are likely together. A chunk
// of up to 1024 is what CUDA sorts within one block of threads, for all chunks of all rows at once.
constexpr int64_t LONGEST_CHUNK   = 1024;
constexpr int64_t FEWEST_CHUNKS   = 256;
constexpr int64_t KEPT_OF_A_CHUNK = 16;

// Whether rows are long enough for that.
constexpr bool has_chunks(int64_t n_vocab) {
    return n_vocab >= 2 * FEWEST_CHUNKS * KEPT_OF_A_CHUNK;
}

// Logits, each less the largest of its row; k candidates of each row.
struct chunked_rows {
    ggml_tensor * all;    // [n_vocab, n], in the order of tokens
    ggml_tensor * id;     // [k, n] F32, of the candidates, chunk after chunk
    ggml_tensor * order;  // [k, n] I32, places of the candidates among `id` in descending order of logits
    ggml_tensor * logits; // [k, n], of the candidates in that order
    ggml_tensor * bound;  // [1, n]: what is above it, of all tokens, is a candidate
};

chunked_rows chunk_rows(ggml_context * ctx, ggml_tensor * logits);

// the inputs [N_PROB_STATS, n] of the top-p head, at temperature [1, n]
ggml_tensor * chunked_stats(ggml_context * ctx, const chunked_rows & rows, ggml_tensor * temperature);

// What the draw of one row tells: `is_drawn` is 1, or the values say no more than temperature and top-p.
struct chunked_values {
    device_values values;
    float         is_drawn;
};

struct chunked_draw {
    ggml_tensor * settings; // of draw_inputs
    ggml_tensor * values;   // [7, n], a chunked_values for each row
};

// Draw a token from each row; `pred` as the heads predict, null for what they do not.
chunked_draw build_chunked_draw(ggml_context * ctx, const chunked_rows & rows, const predictions & pred);

} // namespace autodeco

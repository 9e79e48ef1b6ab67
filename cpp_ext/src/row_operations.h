// What ggml's operations do to n rows at once, put together: on numbers of each row, and on whole rows.

#pragma once

#include "ggml.h"

#include <algorithm>

namespace autodeco {

// one number of each row, as all operations here take them
inline ggml_tensor * scalars(ggml_context * ctx, ggml_tensor * tensor) {
    return ggml_reshape_2d(ctx, tensor, 1, ggml_nelements(tensor));
}

// column `i` [1, n] of rows
inline ggml_tensor * column(ggml_context * ctx, ggml_tensor * rows, int64_t i) {
    return ggml_view_2d(ctx, rows, 1, rows->ne[1], rows->nb[1], i * rows->nb[0]);
}

// rows [n_vocab, n] as single numbers that get_rows and set_rows move
inline ggml_tensor * numbers(ggml_context * ctx, ggml_tensor * rows) {
    return ggml_reshape_3d(ctx, rows, 1, rows->ne[0], rows->ne[1]);
}

// 0, 1, 2, ... in each row
inline ggml_tensor * counting(ggml_context * ctx, const ggml_tensor * rows) {
    ggml_tensor * row = ggml_arange(ctx, 0.0f, (float) rows->ne[0], 1.0f);
    return rows->ne[1] == 1 ? row : ggml_repeat_4d(ctx, row, rows->ne[0], rows->ne[1], 1, 1);
}

// element [1, n] of each row at an index [1, n], F32 or I32
inline ggml_tensor * element(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * index) {
    return scalars(ctx, ggml_get_rows(ctx, numbers(ctx, rows), index->type == GGML_TYPE_I32 ? index : ggml_cast(ctx, index, GGML_TYPE_I32)));
}

// sum [1, n] of each row
inline ggml_tensor * sums(ggml_context * ctx, ggml_tensor * rows) {
    constexpr int64_t LONG_ROW   = 4096;
    constexpr int64_t MOST_PARTS = 128;

    const int64_t width = rows->ne[0];
    const int64_t n     = rows->ne[1];
    if (n == 1) {
        return ggml_sum(ctx, rows);
    }
    // CUDA gives a row to one block of threads: a long one is cut into parts, by the largest power of two that divides it
    const int64_t parts = std::min(width & -width, MOST_PARTS);
    if (parts > 1 && width >= LONG_ROW) {
        rows = ggml_reshape_2d(ctx, ggml_sum_rows(ctx, ggml_reshape_2d(ctx, rows, width / parts, parts * n)), parts, n);
    }
    return ggml_sum_rows(ctx, rows);
}

// smaller of two scalars
inline ggml_tensor * least(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return ggml_sub(ctx, a, ggml_relu(ctx, ggml_sub(ctx, a, b)));
}

// how many elements of each row are above its scalar; NaN is above nothing
inline ggml_tensor * count_above(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * scalar) {
    return sums(ctx, ggml_step(ctx, ggml_sub(ctx, rows, scalar)));
}

// how many are not
inline ggml_tensor * count_rest(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * scalar) {
    return ggml_scale_bias(ctx, count_above(ctx, rows, scalar), -1.0f, (float) rows->ne[0]);
}

} // namespace autodeco

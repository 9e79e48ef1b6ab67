// Draws that a device could not finish (device_chunks.h), done in this process from the device's own logits.

#pragma once

#include "device_chunks.h"
#include "kernel/distribution.h"

#include <vector>

namespace autodeco {

// Of the rows of one graph. A node of it reads what the device tells of its draws: only where one is not done, the row of
// logits is copied here.
class row_redraws {
public:
    // `logits` [n_vocab, n] of the graph, which holds them until it has run.
    row_redraws(ggml_tensor * logits);

    // Before each run of the graph, for each row that is to be drawn from.
    void prepare(int64_t row, const device_settings & settings);

    // After a run: what the device tells, where it has drawn, and else what is drawn here; rows not asked for give token 0.
    void finish(const chunked_values * told, device_values * values);

    // The same as a node of the graph: a device_values for each row, [6, n], from the chunked_values [7, n] of the device.
    ggml_tensor * values(ggml_context * ctx, ggml_tensor * told);

    // [1, n] I32 of them.
    static ggml_tensor * tokens(ggml_context * ctx, ggml_tensor * values);

private:
    static void   run(ggml_tensor * dst, int ith, int nth, void * userdata);
    device_values drawn(int64_t row, device_values told);

    ggml_tensor *                logits;
    std::vector<device_settings> settings;
    std::vector<bool>            is_asked;
    std::vector<float>           copied, cut;
    row_workspace                ws;
};

} // namespace autodeco

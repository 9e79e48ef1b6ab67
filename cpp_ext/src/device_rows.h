// What the samplers of one graph share on a device: one chain of operations draws from many output rows.

#pragma once

#include "device_nucleus.h"
#include "output_rows.h"

#include <memory>
#include <mutex>
#include <vector>

namespace autodeco {

// Consecutive output rows of one graph of llama.cpp. Made by the first sampler that wants one of them, found in the graph by
// the others; each holds it as long as its row of it counts, longer than the graph if need be.
class device_rows : public std::enable_shared_from_this<device_rows> {
public:
    // The rows, with `row` among them, that samplers with the same heads share; `heads` and `weights` are null where
    // temperature and top-p are those of the params. At most `at_once` rows.
    static std::shared_ptr<device_rows> in_graph(ggml_context * ctx, ggml_cgraph * gf, const heads_data * heads, const device_weights * weights,
                                                 const output_rows & outputs, int64_t at_once);

    // token [1] I32 of a row of the graph, or all values of it, those of a device_values; a tensor for each that asks
    ggml_tensor * token(ggml_context * ctx, int64_t row) const;
    ggml_tensor * told(ggml_context * ctx, int64_t row) const;

    // Before each run of the graph, for each row that is to be drawn from.
    void prepare(int64_t row, const device_settings & settings);

    // After a run; false if the graph has gone before anybody asked. Reads the device once for all rows.
    bool read(int64_t row, device_values & values);

    // The same where `token` was drawn, which whoever waited for the device knows; false if it was not, with the values of what
    // was drawn instead, if they are still there. May be asked before the run is done, unlike read(): then those of another run
    // are there.
    bool read_drawn(int64_t row, int32_t token, device_values & values);

    // The graph will not run again.
    void forget_graph();

private:
    int64_t     first; // among all outputs of the graph
    int64_t     first_read; // of those whose levels are read
    device_draw draw;  // of the graph; null when that has gone

    std::mutex                 mutex; // samplers of one context may be asked by several threads
    std::vector<device_values> values;
    bool                       is_read = false;
    std::vector<device_values> seen; // by read_drawn, perhaps before the run was done
    bool                       is_seen = false;
};

// one of them
struct device_row {
    std::shared_ptr<device_rows> rows; // null for none
    int64_t                      row = 0; // of the graph
};

} // namespace autodeco

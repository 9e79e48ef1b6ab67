#include "host_node.h"

#include "ggml-backend.h"

#include <algorithm>

namespace autodeco {

namespace {

ggml_tensor * make_one() {
    static ggml_context * ctx; // held, like what is in it, for the life of the process
    ctx = ggml_init({ /* .mem_size = */ ggml_tensor_overhead(), /* .mem_buffer = */ nullptr, /* .no_alloc = */ true });
    if (!ctx) {
        return nullptr;
    }
    ggml_tensor *               one    = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1);
    const ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_cpu_buffer_type());
    if (!buffer) {
        ggml_free(ctx);
        return nullptr;
    }
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_set_name(one, "autodeco_one");
    *(float *) one->data = 1.0f;
    return one;
}

} // namespace

ggml_tensor * host_one() {
    static ggml_tensor * const one = make_one(); // for the life of the process
    return one;
}

ggml_tensor * host_node(ggml_context * ctx, ggml_type type, int64_t ne0, int64_t ne1, std::initializer_list<ggml_tensor *> sources,
                        ggml_custom_op_t function, int n_tasks, void * userdata) {
    ggml_tensor * args[GGML_MAX_SRC];
    ggml_tensor ** end = std::copy(sources.begin(), sources.end(), args);
    *end++             = host_one();
    return ggml_custom_4d(ctx, type, ne0, ne1, 1, 1, args, (int) (end - args), function, n_tasks, userdata);
}

} // namespace autodeco

#include "merged_file.h"

#include "file.h"

#include "ggml-cpp.h"
#include "gguf.h"

namespace autodeco {

namespace {

// Where in a GGUF the base model's own GGUF begins: at the tensor that holds its header, 0 in a plain file. -1: no GGUF.
int64_t base_offset(FILE * file) {
    const gguf_context_ptr meta(gguf_init_from_file_ptr(file, { /* .no_alloc = */ true, /* .ctx = */ nullptr }));
    if (!meta) {
        return -1;
    }
    const int64_t id = gguf_find_tensor(meta.get(), "autodeco.base_gguf");
    return id < 0 ? 0 : (int64_t) (gguf_get_data_offset(meta.get()) + gguf_get_tensor_offset(meta.get(), id));
}

} // namespace

llama_model * load_model(const std::string & path, llama_model_params params, failure & error) {
    const file_ptr file = open_file(path, error);
    if (!file) {
        return nullptr;
    }
    const int64_t offset = base_offset(file.get());
    if (offset < 0) {
        error = { AUTODECO_ERROR_FORMAT, path + ": is not a valid GGUF file, or is cut short" };
        return nullptr;
    }
    llama_model * model = nullptr;
    if (offset == 0) {
        model = llama_model_load_from_file(path.c_str(), params); // by its name, which a split file's parts are found by
    } else if (fseeko(file.get(), (off_t) offset, SEEK_SET) == 0) {
        model = llama_model_load_from_file_ptr(file.get(), params);
    }
    if (!model) {
        error = { AUTODECO_ERROR_MODEL, path + ": llama.cpp does not load this model; its log says why" };
    }
    return model;
}

} // namespace autodeco

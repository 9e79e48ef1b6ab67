#include "merged_file.h"

#include "embedded_file.h"
#include "file.h"
#include "file_layout.h"
#include "fingerprint.h"

#include <algorithm>
#include <vector>

namespace autodeco {

namespace {

// Find the model in a plain or merged file, and say what a file holds.
bool read_layout(const std::string & path, FILE * file, file_layout & layout, failure & error) {
    if (!file_layout_read(gguf_bytes_of(file), layout, error)) {
        error.message = path + ": " + error.message;
        return false;
    }
    return true;
}

} // namespace

std::string model_fingerprint(const std::string & path, failure & error) {
    const file_ptr file = open_file(path, error);
    file_layout    layout;
    if (!file || !read_layout(path, file.get(), layout, error)) {
        return {};
    }
    if (layout.kind == file_kind::sidecar) {
        error = { AUTODECO_ERROR_FORMAT, path + ": holds heads only; give the base model" };
        return {};
    }
    std::string found;
    if (layout.kind == file_kind::embedded) {
        std::vector<uint8_t> own;
        const uint64_t       offset = std::min(layout.header.data_offset, layout.base_size);
        if (own_header(gguf_bytes_of(file.get()), layout.header, own)) {
            found = fingerprint(file.get(), offset, layout.base_size - offset, own);
        }
    } else {
        found = fingerprint(file.get(), layout.base_offset, layout.base_size);
    }
    if (found.empty()) {
        error = { AUTODECO_ERROR_FILE, path + ": cannot be read" };
    }
    return found;
}

llama_model * load_model(const std::string & path, llama_model_params params, failure & error) {
    const file_ptr file = open_file(path, error);
    file_layout    layout;
    if (!file || !read_layout(path, file.get(), layout, error)) {
        return nullptr;
    }
    if (layout.kind == file_kind::sidecar) {
        error = { AUTODECO_ERROR_FORMAT, path + ": holds heads only; give the base model" };
        return nullptr;
    }
    llama_model * model = nullptr;
    if (layout.kind == file_kind::plain || layout.kind == file_kind::embedded) {
        model = llama_model_load_from_file(path.c_str(), params); // by its name, which a split file's parts are found by
    } else if (seek_in(file.get(), layout.base_offset)) {
        model = llama_model_load_from_file_ptr(file.get(), params);
    }
    if (!model) {
        error = { AUTODECO_ERROR_MODEL, path + ": llama.cpp does not load this model; its log says why" };
    }
    return model;
}

} // namespace autodeco

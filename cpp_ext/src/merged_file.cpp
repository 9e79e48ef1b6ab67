#include "merged_file.h"

#include "file.h"
#include "fingerprint.h"
#include "gguf_header.h"

namespace autodeco {

namespace {

// Where in a GGUF the base model's own GGUF begins: at the tensor that holds its header, 0 in a plain file. -1: no GGUF.
int64_t base_offset(FILE * file) {
    gguf_header header;
    if (!gguf_header_read(gguf_bytes_of(file), header)) {
        return -1;
    }
    const auto base = header.tensors.find("autodeco.base_gguf");
    return base == header.tensors.end() ? 0 : (int64_t) base->second.offset;
}

} // namespace

std::string model_fingerprint(const std::string & path, failure & error) {
    const file_ptr file = open_file(path, error);
    if (!file) {
        return {};
    }
    gguf_header header;
    if (!gguf_header_read(gguf_bytes_of(file.get()), header)) {
        error = { AUTODECO_ERROR_FORMAT, path + ": is not a valid GGUF file, or is cut short" };
        return {};
    }
    const auto merged = header.values.find("autodeco.base_model.fingerprint");
    if (header.tensors.count("autodeco.base_gguf") && merged != header.values.end()) {
        return merged->second.text;
    }
    const std::string found = fingerprint(file.get());
    if (found.empty()) {
        error = { AUTODECO_ERROR_FILE, path + ": cannot be read" };
    }
    return found;
}

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

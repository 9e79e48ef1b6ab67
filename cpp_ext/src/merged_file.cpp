#include "merged_file.h"

#include "file.h"
#include "fingerprint.h"
#include "gguf_header.h"

#include "gguf.h"

#include <cstring>

namespace autodeco {

namespace {

// where the base model's own file lies in a GGUF
struct base_place {
    uint64_t offset;
    uint64_t size;
    bool     is_merged; // else it is the whole file
};

// The value of a u64 key, 0 where there is none.
uint64_t u64_of(const gguf_header & header, const char * key) {
    const auto it    = header.values.find(key);
    uint64_t   value = 0;
    if (it != header.values.end() && it->second.type == GGUF_TYPE_UINT64) {
        std::memcpy(&value, it->second.bytes, sizeof(value));
    }
    return value;
}

// Find the model in a plain or merged file. Of a merged one its place is checked, as export/layout.py does, which compares
// the tensors one by one too.
bool find_base(const std::string & path, FILE * file, base_place & base, failure & error) {
    const gguf_bytes bytes = gguf_bytes_of(file);
    gguf_header      header;
    if (!gguf_header_read(bytes, header)) {
        error = { AUTODECO_ERROR_FORMAT, path + ": is not a valid GGUF file, or is cut short" };
        return false;
    }
    const auto held = header.tensors.find("autodeco.base_gguf");
    if (held == header.tensors.end()) {
        base = { 0, bytes.size, false };
        return true;
    }
    base                    = { held->second.offset, u64_of(header, "autodeco.base_model.file_size"), true };
    const bool     is_first = base.offset == header.data_offset && held->second.type == GGML_TYPE_I8;
    const uint64_t least    = (uint64_t) held->second.ne[0]; // the header alone
    if (!is_first || base.size < least || base.size > bytes.size - base.offset) {
        const std::string what = is_first ? "autodeco.base_model.file_size is " + std::to_string(base.size) : "autodeco.base_gguf is not its first tensor";
        error = { AUTODECO_ERROR_FORMAT, path + ": not a merged file as it was written: " + what + "; merge heads and model again" };
        return false;
    }
    return true;
}

} // namespace

std::string model_fingerprint(const std::string & path, failure & error) {
    const file_ptr file = open_file(path, error);
    base_place     base;
    if (!file || !find_base(path, file.get(), base, error)) {
        return {};
    }
    const std::string found = fingerprint(file.get(), base.offset, base.size);
    if (found.empty()) {
        error = { AUTODECO_ERROR_FILE, path + ": cannot be read" };
    }
    return found;
}

llama_model * load_model(const std::string & path, llama_model_params params, failure & error) {
    const file_ptr file = open_file(path, error);
    base_place     base;
    if (!file || !find_base(path, file.get(), base, error)) {
        return nullptr;
    }
    llama_model * model = nullptr;
    if (!base.is_merged) {
        model = llama_model_load_from_file(path.c_str(), params); // by its name, which a split file's parts are found by
    } else if (fseeko(file.get(), (off_t) base.offset, SEEK_SET) == 0) {
        model = llama_model_load_from_file_ptr(file.get(), params);
    }
    if (!model) {
        error = { AUTODECO_ERROR_MODEL, path + ": llama.cpp does not load this model; its log says why" };
    }
    return model;
}

} // namespace autodeco

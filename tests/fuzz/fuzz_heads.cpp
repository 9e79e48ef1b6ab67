// libFuzzer over the reader of heads: whatever bytes it is given, it reads heads or says what is wrong with them, and finds
// the model's own header in an embedded file.

#include "embedded_file.h"
#include "file_layout.h"
#include "heads.h"

#include <cstdlib>

extern "C" int LLVMFuzzerInitialize(int * /*argc*/, char *** /*argv*/) {
    ggml_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    autodeco::failure error;
    const auto        heads = autodeco::heads_read(data, size, error);
    if (heads ? heads->tensors.empty() : error.code == AUTODECO_OK || error.message.empty()) {
        abort(); // neither heads nor a reason
    }
    const autodeco::gguf_bytes bytes = { nullptr, data, size };
    autodeco::file_layout      layout;
    std::vector<uint8_t>       own;
    if (autodeco::file_layout_read(bytes, layout, error) && layout.kind == autodeco::file_kind::embedded && !autodeco::own_header(bytes, layout.header, own)) {
        abort(); // the bytes are all there
    }
    return 0;
}

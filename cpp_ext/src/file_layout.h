// What a GGUF file holds: a plain model, heads for one, or both. The same checks as export/layout.py, so that both readers
// accept the same files.

#pragma once

#include "failure.h"
#include "gguf_header.h"
#include "heads.h"

#include <cstdint>
#include <string>

namespace autodeco {

enum class file_kind { plain, sidecar, merged, embedded };

struct file_layout {
    file_kind   kind;
    gguf_header header;
    uint64_t    base_offset = 0; // of the GGUF that llama.cpp opens as the model; 0 and 0 of a sidecar
    uint64_t    base_size   = 0;
    std::string architecture;
    int32_t     n_embd  = 0; // of the model, or of the one that the heads are for
    int32_t     n_vocab = 0;

    // of a file with heads
    bool         has_temp    = false;
    bool         has_top_p   = false;
    bool         has_control = false;
    bool         prob_stats  = false;
    control_ends control;
    std::string  base_name;
    std::string  base_fingerprint;

    // of an embedded file: its heads are a GGUF of their own in its metadata
    gguf_header inside;
    uint64_t    inside_offset = 0;
    uint64_t    inside_size   = 0;

    // the GGUF with the heads, of these bytes
    const gguf_header & heads_header() const { return kind == file_kind::embedded ? inside : header; }
    gguf_bytes heads_bytes(const gguf_bytes & bytes) const { return kind == file_kind::embedded ? bytes.part(inside_offset, inside_size) : bytes; }
};

// Read a GGUF's header and what it says of itself; false and an error when that contradicts its content.
bool file_layout_read(const gguf_bytes & bytes, file_layout & layout, failure & error);

} // namespace autodeco

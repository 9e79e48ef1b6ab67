// Our keys and tensors in the header of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
//
// Not by ggml's reader: it puts numbers from the file into enums before it looks whether they are of them, which is undefined
// behaviour that a stranger's file can reach, and it makes a string of every token of a merged file's vocabulary.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

namespace autodeco {

// the bytes of a GGUF: of a file, or in memory
struct gguf_bytes {
    FILE *          file;
    const uint8_t * data;
    uint64_t        size;

    bool read(void * dst, uint64_t offset, uint64_t n) const; // offset + n <= size
};

struct gguf_value {
    uint32_t    type;     // a gguf_type
    uint8_t     bytes[8]; // of a number or a boolean
    std::string text;     // of a string
};

struct gguf_tensor {
    uint32_t type;   // as in the file: not necessarily a ggml_type
    int64_t  ne[4];
    uint64_t offset; // of its data in the file; the file's size where that is past its end
};

// What of a GGUF's header has a name that begins with "autodeco."
struct gguf_header {
    std::map<std::string, gguf_value>  values;
    std::map<std::string, gguf_tensor> tensors;
    uint64_t                           data_offset = 0; // where the data of the first tensor begin
};

// The bytes of a file from its beginning; size 0 where it is no file that has an end.
gguf_bytes gguf_bytes_of(FILE * file);

// false when the bytes are no GGUF, or end within the header
bool gguf_header_read(const gguf_bytes & bytes, gguf_header & header);

} // namespace autodeco

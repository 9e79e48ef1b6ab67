// The header of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), checked as export/gguf_file.py does:
// both readers accept the same files, with the same limits.
//
// Not by ggml's reader: it puts numbers from the file into enums before it looks whether they are of them, which is undefined
// behaviour that a stranger's file can reach, and it makes a string of every token of a merged file's vocabulary.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace autodeco {

// the bytes of a GGUF: of a file, or in memory, or of a part of either
struct gguf_bytes {
    FILE *          file;
    const uint8_t * data;
    uint64_t        size;
    uint64_t        start = 0; // in the file

    bool       read(void * dst, uint64_t offset, uint64_t n) const; // offset + n <= size
    gguf_bytes part(uint64_t offset, uint64_t n) const;             // the same
};

struct gguf_value {
    uint32_t    type;      // a gguf_type
    uint8_t     bytes[8];  // of a number or a boolean
    std::string text;      // of a string that is kept (gguf_header)
    uint64_t    count = 1; // of an array
    uint32_t    item_type; // the same
    uint64_t    start;     // bytes from the beginning of the GGUF to the key, to its value or first item, and to the end
    uint64_t    items;
    uint64_t    end;
};

struct gguf_tensor {
    std::string name;
    uint32_t    type;   // a ggml_type whose sizes ggml knows
    int64_t     ne[4];  // 1 past the dimensions that the file gives
    uint64_t    offset; // in the data
    uint64_t    size;   // bytes

    bool has_shape(int64_t ne0, int64_t ne1) const { return ne[0] == ne0 && ne[1] == ne1 && ne[2] == 1 && ne[3] == 1; }
};

// Texts are kept of keys that begin with "autodeco.", of general.architecture and of adapter.type; of an array its type and
// its count.
struct gguf_header {
    std::map<std::string, gguf_value> values;
    std::vector<gguf_tensor>          tensors; // in the order of the file, which is that of their data
    std::map<std::string, size_t>     places;  // in tensors, by name
    uint32_t                          version     = 0;
    uint64_t                          alignment   = 0;
    uint64_t                          infos       = 0; // where the list of tensors begins and ends
    uint64_t                          infos_end   = 0;
    uint64_t                          data_offset = 0; // where the data of the first tensor begin
    uint64_t                          data_end    = 0; // where those of the last end, without padding

    const gguf_value *  value(const std::string & key) const;   // null where there is none
    const gguf_tensor * tensor(const std::string & name) const; // the same
};

// The bytes of a file from its beginning; size 0 where it is no file that has an end.
gguf_bytes gguf_bytes_of(FILE * file);

// Read the header; false and what is wrong with it when the bytes are no whole GGUF.
bool gguf_header_read(const gguf_bytes & bytes, gguf_header & header, std::string & error);

uint64_t gguf_padded(uint64_t size, uint64_t alignment);

} // namespace autodeco

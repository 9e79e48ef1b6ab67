// Files of any size, by names in UTF-8, that are closed when they are left.

#pragma once

#include "failure.h"

#include "ggml.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

namespace autodeco {

struct file_closer {
    void operator()(FILE * file) const { fclose(file); }
};
using file_ptr = std::unique_ptr<FILE, file_closer>;

inline file_ptr open_file(const std::string & path, failure & error) {
    file_ptr file(ggml_fopen(path.c_str(), "rb")); // which knows UTF-8 on Windows too
    if (!file) {
        error = { AUTODECO_ERROR_FILE, path + ": cannot be opened: " + std::strerror(errno) };
    }
    return file;
}

// Whether the file is at byte `offset` now. Windows counts in 32 bits where it is not asked for more.
inline bool seek_in(FILE * file, uint64_t offset) {
#if defined(_WIN32)
    return _fseeki64(file, (int64_t) offset, SEEK_SET) == 0;
#else
    return fseeko(file, (off_t) offset, SEEK_SET) == 0;
#endif
}

// Bytes of a file; 0 where it has no end.
inline uint64_t size_of(FILE * file) {
#if defined(_WIN32)
    const int64_t size = _fseeki64(file, 0, SEEK_END) == 0 ? _ftelli64(file) : 0;
#else
    const int64_t size = fseeko(file, 0, SEEK_END) == 0 ? ftello(file) : 0;
#endif
    return (uint64_t) std::max<int64_t>(size, 0);
}

} // namespace autodeco

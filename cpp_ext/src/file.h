// Files that are closed when they are left.

#pragma once

#include "failure.h"

#include <cerrno>
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
    file_ptr file(fopen(path.c_str(), "rb"));
    if (!file) {
        error = { AUTODECO_ERROR_FILE, path + ": cannot be opened: " + std::strerror(errno) };
    }
    return file;
}

} // namespace autodeco

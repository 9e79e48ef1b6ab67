#include "memory.h"

#include "options.h"

#include "ggml.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>

namespace cli {

namespace {

constexpr uint64_t UNLIMITED = UINT64_MAX;

// what llama.cpp notes on each token of a context, beside its keys and values (llama-kv-cells.h)
constexpr uint64_t CELL_BYTES = 52;

// the number in a file of /proc or /sys: the first one, or the one behind `key`
uint64_t number_in(const char * path, const char * key, uint64_t otherwise) {
    std::ifstream file(path);
    std::string   word;
    while (key && file >> word && word != key) {
    }
    uint64_t value;
    return file >> value ? value : otherwise;
}

uint64_t available_memory() {
    uint64_t bytes = UNLIMITED;
    const uint64_t kilobytes = number_in("/proc/meminfo", "MemAvailable:", UNLIMITED);
    if (kilobytes != UNLIMITED) {
        bytes = kilobytes * 1024;
    }
    // version 2, as a container sees its own; mapped models are counted there and given back, so the whole limit counts
    return std::min(bytes, number_in("/sys/fs/cgroup/memory.max", nullptr, UNLIMITED));
}

[[noreturn]] void end_with(const char * what, const char * why = "") {
    // nothing that needs memory, and no destructors: the library may be in any state
    for (const char * part : { "autodeco-cli: error: ", what, why, ": take a smaller --ctx-size or model\n" }) {
        if (write(STDERR_FILENO, part, std::strlen(part)) < 0) {
            break;
        }
    }
    _exit(2);
}

} // namespace

uint64_t peak_memory() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
    return (uint64_t) usage.ru_maxrss;
#else
    return (uint64_t) usage.ru_maxrss * 1024;
#endif
}

void limit_memory(const std::string & model_path) {
    const uint64_t available = available_memory();
    struct stat    file;
    if (stat(model_path.c_str(), &file) == 0 && (uint64_t) file.st_size > available) {
        throw input_error(model_path + ": the model takes " + std::to_string(file.st_size / 1000000) + " MB of memory and more for its context, " +
                          std::to_string(available / 1000000) + " MB are left: take a smaller model");
    }
    // Linux counts what is allocated here, and not the mapped model
    rlimit limit;
    if (available != UNLIMITED && getrlimit(RLIMIT_DATA, &limit) == 0) {
        const uint64_t used = number_in("/proc/self/status", "VmData:", 0) * 1024;
        limit.rlim_cur      = std::min<rlim_t>(limit.rlim_cur, (rlim_t) (used + available));
        setrlimit(RLIMIT_DATA, &limit);
    }
}

void check_context(uint32_t n_ctx) {
    const uint64_t available = available_memory();
    if (n_ctx > available / CELL_BYTES) {
        throw input_error("a context of " + std::to_string(n_ctx) + " tokens takes more than " + std::to_string(n_ctx * CELL_BYTES / 1000000) +
                          " MB of memory, " + std::to_string(available / 1000000) + " MB are left: take a smaller --ctx-size");
    }
}

void report_aborts() {
    ggml_set_abort_callback([](const char * message) {
        const char * claim = std::strstr(message, "GGML_ASSERT"); // behind the name of a source file
        end_with("llama.cpp cannot go on, most likely for want of memory: ", claim ? claim : message);
    });
    std::set_terminate([] { end_with("out of memory"); });
}

} // namespace cli

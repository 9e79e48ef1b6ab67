#include "memory.h"

#include "options.h"

#include "ggml-backend.h"

#if defined(_WIN32)
#    define PSAPI_VERSION 2 // in the kernel's library
#    include "windows_text.h"
#    include <psapi.h>
#    include <io.h>
#else
#    include <sys/resource.h>
#    include <unistd.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>

namespace cli {

namespace {

constexpr uint64_t UNKNOWN = UINT64_MAX;

#if !defined(_WIN32)
// The number in a file of /proc or /sys: the first one, or the one behind `key`.
uint64_t number_in(const char * path, const char * key) {
    std::ifstream file(path);
    std::string   word;
    while (key && file >> word && word != key) {
    }
    uint64_t value;
    return file >> value ? value : UNKNOWN;
}
#endif

std::string megabytes(uint64_t bytes) {
    return std::to_string(bytes / 1000000) + " MB";
}

constexpr const char * SMALLER = "take a smaller --ctx-size or model";

[[noreturn]] void end_with(const char * what, const char * why, const char * advice) {
    // nothing that needs memory, and no destructors: the library may be in any state
    for (const char * part : { "autodeco-cli: error: ", what, why, ": ", advice, "\n" }) {
#if defined(_WIN32)
        if (_write(2, part, (unsigned) std::strlen(part)) < 0) {
#else
        if (write(STDERR_FILENO, part, std::strlen(part)) < 0) {
#endif
            break;
        }
    }
    std::_Exit(2);
}

} // namespace

#if defined(_WIN32)

uint64_t peak_memory() {
    PROCESS_MEMORY_COUNTERS counters = {};
    GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof(counters));
    return counters.PeakWorkingSetSize;
}

uint64_t memory_left() {
    MEMORYSTATUSEX status = {};
    status.dwLength       = sizeof(status);
    return GlobalMemoryStatusEx(&status) ? status.ullAvailPhys : UNKNOWN;
}

#else

uint64_t peak_memory() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
    return (uint64_t) usage.ru_maxrss;
#else
    return (uint64_t) usage.ru_maxrss * 1024;
#endif
}

uint64_t memory_left() {
    uint64_t       bytes     = UNKNOWN;
    const uint64_t kilobytes = number_in("/proc/meminfo", "MemAvailable:");
    if (kilobytes != UNKNOWN) {
        bytes = kilobytes * 1024;
    }
    // version 2, as a container sees its own; mapped models are counted there and given back, so the whole limit counts
    return std::min(bytes, number_in("/sys/fs/cgroup/memory.max", nullptr));
}

#endif

uint64_t memory_in_all() {
    size_t free, total;
    ggml_backend_dev_memory(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), &free, &total);
    return total;
}

int32_t layers_on_cpu(int32_t n_layers, int32_t n_gpu_layers, bool has_gpu) {
    if (!has_gpu) {
        return n_layers;
    }
    return n_gpu_layers < 0 ? 0 : std::min(n_layers, std::max(n_layers + 1 - n_gpu_layers, 0));
}

uint64_t key_bytes(const llama_model * model, int64_t n_ctx, ggml_type type, int32_t n_layers) {
    if (llama_model_is_recurrent(model) || llama_model_is_hybrid(model) || llama_model_n_swa(model) > 0 || llama_model_n_head(model) < 1) {
        return 0;
    }
    char    text[128];
    int64_t width = llama_model_n_embd(model) / llama_model_n_head(model); // unless the model says otherwise
    if (llama_model_meta_val_str(model, "general.architecture", text, sizeof(text)) >= 0) {
        const std::string key = std::string(text) + ".attention.key_length";
        if (llama_model_meta_val_str(model, key.c_str(), text, sizeof(text)) >= 0) {
            width = std::atoi(text);
        }
    }
    // the heads of a layer lie in one row, padded to whole blocks
    const int64_t row = (width * llama_model_n_head_kv(model) + ggml_blck_size(type) - 1) / ggml_blck_size(type) * ggml_blck_size(type);
    return (uint64_t) n_ctx * (uint64_t) n_layers * ggml_row_size(type, row);
}

std::string model_warning(const std::string & path, uint64_t on_cpu, uint64_t left) {
    if (on_cpu <= left) {
        return {};
    }
    return path + ": " + megabytes(on_cpu) + " of the model stay on the CPU, " + megabytes(left) +
           " of memory are left: parts of it will be read from the disk for every token; take a smaller model, or more layers on a GPU";
}

std::string context_warning(int64_t n_ctx, uint64_t keys, uint64_t left, uint64_t in_all) {
    const std::string context = "a context of " + std::to_string(n_ctx) + " tokens takes about " + megabytes(2 * keys) + " of memory, ";
    if (keys > in_all) {
        throw input_error(context + "this machine has " + megabytes(in_all) + ": take a smaller --ctx-size");
    }
    return 2 * keys <= left ? "" : context + megabytes(left) + " are left: if it fails, take a smaller --ctx-size or --kv-type q8_0";
}

void report_aborts() {
    ggml_set_abort_callback([](const char * message) {
        if (std::strstr(message, "RPC")) {
            end_with("a server of --rpc went away, or is of another version of llama.cpp", "", "start ggml-rpc-server there, of the same version");
        }
        const char * claim = std::strstr(message, "GGML_ASSERT"); // behind the name of a source file
        end_with("llama.cpp cannot go on, most likely for want of memory: ", claim ? claim : message, SMALLER);
    });
    std::set_terminate([] { end_with("out of memory", "", SMALLER); });
}

} // namespace cli

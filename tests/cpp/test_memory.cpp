// What autodeco-cli says of models and contexts that are larger than the memory.

#include "check.h"

#include "memory.h"
#include "options.h"

#include <string>

using namespace cli;

constexpr uint64_t GB = 1000000000;

static bool has(const std::string & text, const char * part) {
    return text.find(part) != std::string::npos;
}

static void test_models() {
    check(layers_on_cpu(30, 0, true) == 30 && layers_on_cpu(30, 99, false) == 30, "all layers stay on the CPU unless they can and shall go", 30);
    check(layers_on_cpu(30, -1, true) == 0 && layers_on_cpu(30, 31, true) == 0 && layers_on_cpu(30, 99, true) == 0, "all go to a GPU", 0);
    check(layers_on_cpu(30, 1, true) == 30 && layers_on_cpu(30, 11, true) == 20, "the output goes first", 20);
    const std::string warning = model_warning("big.gguf", 9 * GB, 4 * GB);
    check(has(warning, "big.gguf: 9000 MB of the model stay on the CPU, 4000 MB of memory are left"), "a model that is larger than the memory is a warning", 9);
    check(model_warning("big.gguf", 0, 4 * GB).empty(), "none if it goes to a GPU", 0);
    check(model_warning("big.gguf", 4 * GB, 4 * GB).empty() && model_warning("big.gguf", 9 * GB, UINT64_MAX).empty(), "none if it fits, or nobody knows", 4);
}

static void test_contexts() {
    check(context_warning(4096, GB, 3 * GB, 8 * GB).empty(), "keys and values that fit are no matter", 2);
    const std::string warning = context_warning(4096, 2 * GB, 3 * GB, 8 * GB);
    check(has(warning, "a context of 4096 tokens takes about 4000 MB of memory, 3000 MB are left"), "those that are more than is left are a warning", 4);
    check(context_warning(4096, 0, 0, 8 * GB).empty(), "none where the size is not known", 0);
    std::string refused;
    try {
        context_warning(4096, 9 * GB, 3 * GB, 8 * GB);
    } catch (const input_error & e) {
        refused = e.what();
    }
    check(has(refused, "this machine has 8000 MB: take a smaller --ctx-size"), "keys that the machine cannot hold are refused", 9);
}

int main() {
    test_models();
    test_contexts();
    check(memory_in_all() > GB / 10 && peak_memory() > 0 && peak_memory() < memory_in_all(), "the machine's memory is known", (double) memory_in_all());
    check(memory_left() <= memory_in_all() || memory_left() == UINT64_MAX, "and what is left of it", (double) memory_left());
    return report();
}

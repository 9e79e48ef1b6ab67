// The C interface: what it opens, and what it says of what it cannot open.
//
//   test_library MODEL.gguf HEADS.gguf MERGED.gguf TEXT       HEADS fit MODEL, MERGED holds both, TEXT is no GGUF

#include "autodeco.h"

#include "guarded.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

static int n_passed = 0;
static int n_failed = 0;

static void check(bool ok, const char * claim) {
    printf("%s: %s\n", ok ? "ok" : "FAILED", claim);
    (ok ? n_passed : n_failed) += 1;
}

static std::vector<char> bytes_of(const char * path) {
    std::vector<char> bytes;
    if (FILE * file = fopen(path, "rb")) {
        char   part[4096];
        size_t n;
        while ((n = fread(part, 1, sizeof(part), file)) > 0) {
            bytes.insert(bytes.end(), part, part + n);
        }
        fclose(file);
    }
    return bytes;
}

static bool starts(const autodeco_error & error, const std::string & text) {
    return std::strncmp(error.message, text.c_str(), text.size()) == 0;
}

static void test_heads(const char * model_path, const char * heads_path, const char * merged_path) {
    autodeco_error   error;
    autodeco_heads * heads = autodeco_heads_load(heads_path, &error);
    check(heads && error.code == AUTODECO_OK && error.message[0] == 0, "a sidecar opens without an error");
    check(autodeco_heads_n_embd(heads) == 576 && autodeco_heads_n_vocab(heads) == 49152, "its sizes are those of SmolLM2");

    autodeco_heads * merged = autodeco_heads_load(merged_path, &error);
    check(merged && autodeco_heads_has_top_p(merged) == autodeco_heads_has_top_p(heads), "a merged file's heads open by the same call");

    std::vector<char> bytes  = bytes_of(heads_path);
    autodeco_heads *  memory = autodeco_heads_load_from_memory(bytes.data(), bytes.size(), &error);
    check(memory && autodeco_heads_n_embd(memory) == 576, "the bytes of a file open from memory");
    check(!autodeco_heads_load_from_memory(bytes.data(), bytes.size() / 2, &error) && error.code == AUTODECO_ERROR_FORMAT, "half of the bytes are refused");
    check(!autodeco_heads_load_from_memory("GGUF", 4, &error) && error.code == AUTODECO_ERROR_FORMAT, "four bytes are no heads");

    // the file begins with 24 bytes of header, then the first key: its length, its name, its type
    const uint32_t    no_type = 4128768;
    uint64_t          length  = 0;
    std::vector<char> broken  = bytes;
    std::memcpy(&length, broken.data() + 24, sizeof(length));
    std::memcpy(broken.data() + 32 + length, &no_type, sizeof(no_type));
    check(!autodeco_heads_load_from_memory(broken.data(), broken.size(), &error) && error.code == AUTODECO_ERROR_FORMAT, "a key of a type that does not exist is refused");

    // a tensor's name stands before its number of dimensions, the dimensions, its type
    const std::string name = "autodeco.temp_head.2.bias";
    broken                 = bytes;
    std::memcpy(&*std::search(broken.begin(), broken.end(), name.begin(), name.end()) + name.size() + 4 + 8, &no_type, sizeof(no_type));
    check(!autodeco_heads_load_from_memory(broken.data(), broken.size(), &error) && starts(error, "heads in memory: tensor " + name + " is of type 4128768, "), "a tensor of a type that does not exist is named");

    check(!autodeco_heads_load("no-such-file.gguf", &error) && error.code == AUTODECO_ERROR_FILE && starts(error, "no-such-file.gguf: "), "a missing file is named");
    check(!autodeco_heads_load(model_path, &error) && error.code == AUTODECO_ERROR_NO_HEADS, "a model without heads is told apart");
    check(!autodeco_heads_load(nullptr, &error) && error.code == AUTODECO_ERROR_ARGUMENT, "NULL is an error, not a crash");
    check(!autodeco_heads_load("no-such-file.gguf", nullptr), "no error struct is needed");

    autodeco_heads_free(memory);
    autodeco_heads_free(merged);
    autodeco_heads_free(heads);
    autodeco_heads_free(nullptr);
}

// what needs something is given NULL, or a sampler of llama.cpp's
static void test_nothing() {
    check(autodeco_heads_n_embd(nullptr) == 0 && autodeco_heads_n_vocab(nullptr) == 0 && !autodeco_heads_has_temperature(nullptr) &&
          !autodeco_heads_has_top_p(nullptr) && !autodeco_heads_has_prob_stats(nullptr), "no heads have no sizes");
    check(!*autodeco_heads_base_name(nullptr) && !*autodeco_heads_base_fingerprint(nullptr), "and were exported for nothing");
    check(!autodeco_heads_made_for(nullptr, "x", nullptr) && !autodeco_model_load(nullptr, llama_model_default_params(), nullptr), "NULL is refused everywhere");

    llama_sampler * greedy = llama_sampler_init_greedy();
    for (llama_sampler * sampler : { (llama_sampler *) nullptr, greedy }) {
        autodeco_sampler_set_params(sampler, autodeco_default_params());
        autodeco_sampler_set_fixed(sampler, true, true);
        autodeco_sampler_set_cuts(sampler, 1, 0.5f);
        autodeco_sampler_observe(sampler, 1.0f, 1.0f);
        check(!autodeco_sampler_init_host(sampler) && !autodeco_sampler_init_host_temperature(sampler), "what is no observer has no host stages");
        check(autodeco_sampler_last(sampler).status == AUTODECO_STATUS_NO_SAMPLER, "and nothing that it decided");
    }
    llama_sampler_free(greedy);
    check(std::strstr(autodeco_status_message(AUTODECO_STATUS_NO_SAMPLER), "no sampler") && !std::strcmp(autodeco_status_message(-7), "unknown"), "every status has a line");
}

// Another library's sampler with a name like ours, whose memory no function here may read or write.
static void test_foreign_sampler() {
    struct {
        unsigned char bytes[64];
    } foreign, untouched;
    std::memset(foreign.bytes, 0xa5, sizeof(foreign.bytes));
    untouched = foreign;

    llama_sampler_i interface = {};
    interface.name            = [](const llama_sampler *) { return "autodeco-x"; };
    interface.apply           = [](llama_sampler *, llama_token_data_array *) {};
    llama_sampler * sampler   = llama_sampler_init(&interface, &foreign);
    check(autodeco_sampler_last(sampler).status == AUTODECO_STATUS_NO_SAMPLER, "a sampler is known by its functions, not by its name");
    check(!autodeco_sampler_init_host(sampler) && !autodeco_sampler_init_host_temperature(sampler), "another library's has no host stages");
    autodeco_sampler_set_params(sampler, autodeco_default_params());
    autodeco_sampler_set_fixed(sampler, true, true);
    autodeco_sampler_set_cuts(sampler, 1, 0.5f);
    autodeco_sampler_observe(sampler, 1.0f, 1.0f);
    check(!std::memcmp(&foreign, &untouched, sizeof(foreign)), "and is left alone");
    llama_sampler_free(sampler);
}

// what the functions behind the interface can throw
static void test_exceptions() {
    autodeco_error error;
    const auto     code_of = [&](auto && thrown) {
        int * const nothing = autodeco::guarded(&error, {}, [&](autodeco::failure &) -> int * { throw thrown; });
        return nothing ? AUTODECO_OK : (autodeco_code) error.code;
    };
    check(code_of(std::bad_alloc()) == AUTODECO_ERROR_MEMORY && starts(error, "out of memory"), "want of memory has a code");
    check(code_of(std::logic_error("the reason")) == AUTODECO_ERROR_INTERNAL && std::strstr(error.message, "the reason"), "so has a fault of the library, with its reason");
    check(code_of(7) == AUTODECO_ERROR_INTERNAL && *error.message, "whatever it throws");
}

static void test_models(const char * model_path, const char * heads_path, const char * merged_path, const char * text_path) {
    llama_model_params params = llama_model_default_params();
    autodeco_error     error;
    llama_model *      plain  = autodeco_model_load(model_path, params, &error);
    llama_model *      merged = autodeco_model_load(merged_path, params, &error);
    check(plain && merged && llama_model_size(plain) == llama_model_size(merged), "the model in a merged file is the plain one");
    check(!autodeco_model_load(heads_path, params, &error) && error.code == AUTODECO_ERROR_FORMAT && std::strstr(error.message, "heads only"), "heads are no model");
    check(!autodeco_model_load(text_path, params, &error) && error.code == AUTODECO_ERROR_FORMAT, "a text is no model");
    check(!autodeco_model_load("no-such-file.gguf", params, &error) && error.code == AUTODECO_ERROR_FILE, "a missing model is an error");

    autodeco_heads * heads = autodeco_heads_load(heads_path, nullptr);
    check(autodeco_heads_fit(heads, plain, &error) && error.code == AUTODECO_OK, "heads fit their model");
    check(!autodeco_heads_fit(heads, nullptr, &error) && error.code == AUTODECO_ERROR_ARGUMENT, "no model is an error");
    check(autodeco_model_writes(plain, &error) && error.code == AUTODECO_OK, "a language model writes");
    check(!autodeco_model_writes(nullptr, &error) && error.code == AUTODECO_ERROR_ARGUMENT, "no model is an error there too");
    check(!autodeco_sampler_init(nullptr, autodeco_default_params()), "no sampler without heads");

    check(autodeco_heads_made_for(heads, model_path, &error) && error.code == AUTODECO_OK, "heads are told the file that they were exported for");
    check(autodeco_heads_made_for(heads, merged_path, &error) && error.code == AUTODECO_OK, "and the same inside a merged file");
    check(!autodeco_heads_made_for(heads, heads_path, &error) && error.code == AUTODECO_ERROR_FORMAT, "heads are no model that they could be made for");
    std::vector<char> changed     = bytes_of(heads_path);
    const std::string fingerprint = autodeco_heads_base_fingerprint(heads);
    auto              digit       = std::search(changed.begin(), changed.end(), fingerprint.begin(), fingerprint.end()) + (ptrdiff_t) fingerprint.size() - 1;
    *digit                        = *digit == '0' ? '1' : '0';
    autodeco_heads * others       = autodeco_heads_load_from_memory(changed.data(), changed.size(), nullptr);
    check(others && !autodeco_heads_made_for(others, model_path, &error) && error.code == AUTODECO_ERROR_OTHER_FILE, "another file is told apart");
    const std::string exported_for = autodeco_heads_base_name(heads);
    check(!exported_for.empty() && std::strstr(error.message, exported_for.c_str()) && std::strstr(error.message, model_path), "both are named");
    autodeco_heads_free(others);
    check(std::string(autodeco_heads_base_fingerprint(heads)).size() == 7 + 64, "a fingerprint is sha256: and 64 digits");
    check(!autodeco_heads_made_for(heads, "no-such-file.gguf", &error) && error.code == AUTODECO_ERROR_FILE, "a file that is missing is told from another");
    check(!autodeco_heads_made_for(heads, text_path, &error) && error.code == AUTODECO_ERROR_FORMAT, "so is a text");

    llama_sampler * sampler = autodeco_sampler_init(heads, autodeco_default_params());
    check(autodeco_sampler_last(sampler).status == AUTODECO_STATUS_NOT_ATTACHED, "a sampler says that no context has attached it");
    llama_sampler_free(sampler);
    autodeco_heads_free(heads);
    test_nothing();
    test_foreign_sampler();
    test_exceptions();
    llama_model_free(merged);
    llama_model_free(plain);
}

// what a device is asked, and what is no question
static void test_devices() {
    const ggml_backend_dev_t cpu   = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const auto               count = [](const ggml_tensor * node, bool supported, void * n) {
        *(int *) n += node->op == GGML_OP_MUL_MAT && supported && node->src[0]->type == GGML_TYPE_Q8_0;
    };
    int products = 0;
    check(autodeco_device_predicts(cpu, 576, GGML_TYPE_Q8_0, count, &products) && products > 0, "a CPU has the products of the heads, and tells of each");
    check(autodeco_device_draws(cpu, 49152, nullptr, nullptr), "and the operations of a draw, unless asked for each");
    check(!autodeco_device_predicts(nullptr, 576, GGML_TYPE_F16, nullptr, nullptr) && !autodeco_device_draws(nullptr, 49152, nullptr, nullptr), "no device has none");
    check(!autodeco_device_predicts(cpu, 580, GGML_TYPE_Q8_0, nullptr, nullptr) && !autodeco_device_predicts(cpu, 0, GGML_TYPE_F16, nullptr, nullptr) &&
              !autodeco_device_predicts(cpu, 576, GGML_TYPE_COUNT, nullptr, nullptr), "nobody predicts with weights that cannot be");
    check(!autodeco_device_draws(cpu, 0, nullptr, nullptr) && !autodeco_device_draws(cpu, INT32_MAX, nullptr, nullptr), "or draws from a vocabulary that cannot be");
}

int main(int argc, char ** argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL.gguf HEADS.gguf MERGED.gguf TEXT\n", argv[0]);
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    test_heads(argv[1], argv[2], argv[3]);
    test_models(argv[1], argv[2], argv[3], argv[4]);
    test_devices();
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0;
}

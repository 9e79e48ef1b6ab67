#include "devices.h"

#include "ggml-backend.h"

#include <cstdio>
#include <map>
#include <vector>

namespace cli {

namespace {

constexpr ggml_type WEIGHTS[]      = { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0 };
constexpr int32_t   VOCABULARIES[] = { 49152, 151936, 262144 };
constexpr int32_t   WIDTH          = 4096; // of the hidden states

// An operation as a line names it, and for which types or vocabularies it is there.
struct answers {
    std::string yes;
    std::string no;
};

using table = std::map<std::string, answers>;

// One round of questions: heads of one type, or draws from one vocabulary.
struct question {
    table &     rows;
    std::string part;
    std::string what;
    std::map<std::string, bool> has; // every node of a kind
};

std::string name_of(const ggml_tensor * node) {
    std::string types;
    for (const ggml_tensor * source : node->src) {
        if (source) {
            types += std::string(" ") + ggml_type_name(source->type);
        }
    }
    char line[128];
    snprintf(line, sizeof(line), "%-9s%s -> %s", ggml_op_desc(node), types.c_str(), ggml_type_name(node->type));
    return line;
}

bool is_run(const ggml_tensor * node) {
    return node->op != GGML_OP_NONE && node->op != GGML_OP_VIEW && node->op != GGML_OP_RESHAPE && node->op != GGML_OP_PERMUTE && node->op != GGML_OP_TRANSPOSE;
}

void take(const ggml_tensor * node, bool supported, void * user_data) {
    auto & q = *(question *) user_data;
    if (is_run(node) || !supported) {
        const auto [it, is_new] = q.has.emplace(q.part + "  " + name_of(node), supported);
        it->second              = it->second && supported;
    }
}

void add(std::string & list, const std::string & item) {
    list += (list.empty() ? "" : " ") + item;
}

void note(const question & q) {
    for (const auto & [name, supported] : q.has) {
        add(supported ? q.rows[name].yes : q.rows[name].no, q.what);
    }
}

const char * kind_of(ggml_backend_dev_t device) {
    switch (ggml_backend_dev_type(device)) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:   return "CPU";
        case GGML_BACKEND_DEVICE_TYPE_GPU:   return "GPU";
        case GGML_BACKEND_DEVICE_TYPE_IGPU:  return "GPU that shares the memory";
        case GGML_BACKEND_DEVICE_TYPE_ACCEL: return "accelerator beside the CPU";
        default:                             return "device of another kind";
    }
}

} // namespace

std::string device_table(const device_questions & ask) {
    table   rows;
    answers heads, draws;
    for (const ggml_type type : WEIGHTS) {
        question   q   = { rows, "heads", ggml_type_name(type), {} };
        const bool all = ask.predicts(type, take, &q);
        note(q);
        add(all ? heads.yes : heads.no, q.what);
    }
    for (const int32_t n_vocab : VOCABULARIES) {
        question   q   = { rows, "draw ", std::to_string(n_vocab), {} };
        const bool all = ask.draws(n_vocab, take, &q);
        note(q);
        add(all ? draws.yes : draws.no, q.what);
    }
    std::string text;
    char        line[256];
    for (const auto & [name, has] : rows) {
        const std::string said = has.no.empty() ? "yes" : has.yes.empty() ? "no" : "no: " + has.no;
        snprintf(line, sizeof(line), "  %-48s %s\n", name.c_str(), said.c_str());
        text += line;
    }
    for (const auto & [part, has] : { std::pair<const char *, const answers &>("heads", heads), { "draws", draws } }) {
        text += std::string("  ") + part + " on the device: " + (has.yes.empty() ? "none" : has.yes) + "; on the CPU: " + (has.no.empty() ? "none" : has.no) + "\n";
    }
    return text;
}

void print_devices(bool log) {
    if (!log) {
        llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    }
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        const ggml_backend_dev_t device = ggml_backend_dev_get(i);
        size_t free  = 0;
        size_t total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        printf("%s: %s, %s, %zu of %zu MB free\n", ggml_backend_dev_name(device), ggml_backend_dev_description(device), kind_of(device),
               free / 1000000, total / 1000000);
        if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            printf("  heads and draws by kernels of autodeco\n");
            continue;
        }
        const device_questions ask = {
            [=](ggml_type type, autodeco_node_visitor visit, void * data) { return autodeco_device_predicts(device, WIDTH, type, visit, data); },
            [=](int32_t n_vocab, autodeco_node_visitor visit, void * data) { return autodeco_device_draws(device, n_vocab, visit, data); },
        };
        printf("%s", device_table(ask).c_str());
    }
}

} // namespace cli

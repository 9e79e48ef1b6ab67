#include "serving.h"

#include "file.h"
#include "file_layout.h"
#include "heads.h"
#include "rpc_endpoint.h"
#include "weights_digest.h"

#include "common.h"
#include "json.h"
#include "log.h"

#include <cstdio>
#include <stdexcept>

namespace autodeco {

namespace {

using json = common_json;

constexpr const char * VERDICT = "autodeco.evaluation.verdict";

client_sampling policy_of(const std::string & text) {
    return text == "multiply" ? client_sampling::multiply : text == "override" ? client_sampling::override : client_sampling::ignore;
}

const char * name_of(client_sampling policy) {
    return policy == client_sampling::multiply ? "multiply" : policy == client_sampling::override ? "override" : "ignore";
}

const char * name_of(file_kind kind) {
    return kind == file_kind::merged ? "merged" : kind == file_kind::embedded ? "embedded" : "sidecar";
}

// Layout and verdict, as the file itself says.
void describe(serving & made) {
    FILE * file = fopen(made.file.c_str(), "rb");
    if (!file) {
        return;
    }
    file_layout layout;
    failure     what;
    if (file_layout_read(gguf_bytes_of(file), layout, what)) {
        made.kind = name_of(layout.kind);
        for (const gguf_header * header : { (const gguf_header *) &layout.header, &layout.heads_header() }) {
            const gguf_value * verdict = header->value(VERDICT);
            if (verdict) {
                made.verdict = verdict->text;
            }
        }
    }
    fclose(file);
}

} // namespace

bool is_client_sampling(const std::string & text) {
    return text == name_of(policy_of(text));
}

std::shared_ptr<serving> open_serving(const common_params & params) {
    const bool          is_asked = !params.heads_file.empty();
    if (params.embedding) {
        if (is_asked) {
            throw std::invalid_argument(params.heads_file + ": heads choose how text is written; leave them or --embeddings out");
        }
        return nullptr;
    }
    autodeco_error      error;
    const std::string & path  = is_asked ? params.heads_file : params.model.path;
    autodeco_heads *    heads = autodeco_heads_load(path.c_str(), &error);
    if (!heads) {
        if (is_asked) {
            throw std::invalid_argument(error.message);
        }
        return nullptr; // a model like others; where its file is damaged, llama.cpp will say so
    }
    if (params.split_mode == LLAMA_SPLIT_MODE_TENSOR) {
        autodeco_heads_free(heads);
        throw std::invalid_argument(path + ": heads do not work with --split-mode tensor; take another one, or a model without heads");
    }
    auto made             = std::make_shared<serving>();
    made->heads           = std::shared_ptr<autodeco_heads>(heads, autodeco_heads_free);
    made->policy          = policy_of(params.heads_client_sampling);
    made->file            = path;
    made->has_temperature = autodeco_heads_has_temperature(heads);
    made->has_top_p       = autodeco_heads_has_top_p(heads);
    made->weights         = weights_digest(*heads->data);
    describe(*made);
    if (!autodeco_heads_made_for(heads, params.model.path.c_str(), &error)) {
        made->warning = error.message;
        LOG_WRN("autodeco: %s: %s\n", path.c_str(), error.message);
    }
    return made;
}

void check_model(const serving & serving, const llama_model * model) {
    autodeco_error error;
    if (!autodeco_heads_fit(serving.heads.get(), model, &error)) {
        throw std::invalid_argument(serving.file + ": " + error.message);
    }
}

void check_rpc_server(const std::string & endpoint) {
    const std::string complaint = rpc_complaint(endpoint);
    if (!complaint.empty()) {
        throw std::invalid_argument(complaint);
    }
}

llama_model * load_model_with_heads(const char * path, llama_model_params params) {
    autodeco_error error;
    llama_model *  model = autodeco_model_load(path, params, &error);
    // What our reader does not take, such as a name that llama.cpp makes others of, may still be llama.cpp's.
    return model || error.code == AUTODECO_ERROR_MODEL ? model : llama_model_load_from_file(path, params);
}

void serving::count(const autodeco_decoding & decoding) {
    const std::lock_guard<std::mutex> lock(mutex);
    n_tokens++;
    n_greedy    += decoding.nucleus == 1;
    temperature += decoding.temperature;
    top_p       += decoding.top_p;
}

json serving::props() const {
    return json{
        { "file", file },
        { "kind", kind },
        { "temperature", has_temperature },
        { "top_p", has_top_p },
        { "control", autodeco_heads_has_control(heads.get()) },
        { "prob_stats", autodeco_heads_has_prob_stats(heads.get()) },
        { "weights", weights },
        { "base_model", std::string(autodeco_heads_base_name(heads.get())) },
        { "base_fingerprint", std::string(autodeco_heads_base_fingerprint(heads.get())) },
        { "fits", warning.empty() },
        { "warning", warning.empty() ? json(nullptr) : json(warning) },
        { "verdict", verdict.empty() ? json(nullptr) : json(verdict) },
        { "client_sampling", std::string(name_of(policy)) },
    };
}

std::string serving::metrics() const {
    const std::lock_guard<std::mutex> lock(mutex);
    const double n = n_tokens > 0 ? (double) n_tokens : 1.0;
    std::string  text;
    const auto   add = [&](const char * name, const char * type, const char * help, double value) {
        char line[512];
        snprintf(line, sizeof(line), "# HELP autodeco:%s %s\n# TYPE autodeco:%s %s\nautodeco:%s %.9g\n", name, help, name, type, name, value);
        text += line;
    };
    add("tokens_total", "counter", "Number of tokens that the heads have decided", (double) n_tokens);
    add("greedy_tokens_total", "counter", "Number of them whose nucleus was one token", (double) n_greedy);
    add("temperature_mean", "gauge", "Mean of the temperatures", temperature / n);
    add("top_p_mean", "gauge", "Mean of the top-p values", top_p / n);
    add("greedy_share", "gauge", "Share of the tokens whose nucleus was one token", (double) n_greedy / n);
    return text;
}

} // namespace autodeco

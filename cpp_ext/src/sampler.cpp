// The llama_sampler: builds the heads and the nucleus into llama.cpp's graph, and hands out what they decided.

#include "autodeco.h"

#include "distribution.h"
#include "heads_graph.h"

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <deque>
#include <random>

namespace autodeco {

namespace {

struct sampler_state;

// What one output row of a graph reads and writes. Graphs are kept and run again by llama.cpp, so a row's address must
// hold for the sampler's life: rows are reused in order by every graph and never freed before the sampler.
struct graph_row {
    const sampler_state * owner;
    double                uniform = 0.0;
    autodeco_decoding     last    = {};
    row_workspace         ws;
};

struct sampler_state {
    std::shared_ptr<const heads_data>     heads;
    std::shared_ptr<const device_weights> weights;
    autodeco_params                       params;
    bool                                  is_observer;

    std::mt19937 rng;
    double       uniform; // for the next token; drawn again only when a token is accepted, so that decoding a prompt in
                          // pieces, or decoding what is then not sampled, changes nothing

    std::deque<graph_row> rows;
    size_t                n_rows = 0; // of the current graph

    // host stages of an observer
    bool              divided = false; // the temperature stage has run for this token
    autodeco_decoding host_last = {};
    row_workspace     host_ws;
    std::vector<float> host_logits;

    void restart() {
        rng.seed(params.seed == LLAMA_DEFAULT_SEED ? std::random_device{}() : params.seed);
        next_uniform();
    }

    void next_uniform() { uniform = std::uniform_real_distribution<double>(0.0, 1.0)(rng); }

    float user_temperature(float predicted) const { return params.temperature == 0.0f ? 0.0f : predicted * params.temperature; }
    float user_top_p(float predicted) const { return std::min(std::max(predicted * params.top_p, 0.0f), 1.0f); }
};

sampler_state & state_of(const llama_sampler * smpl) {
    return *(sampler_state *) smpl->ctx;
}

float scalar(const ggml_tensor * tensor) {
    return tensor ? *(const float *) tensor->data : 1.0f;
}

// CPU node: draw a token from logits [n_vocab] at temperature [1] and top-p [1]; userdata is the graph_row
void nucleus_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith != 0) {
        return;
    }
    graph_row &        row    = *(graph_row *) userdata;
    const ggml_tensor * logits = dst->src[0];
    const float temperature   = scalar(dst->src[1]);
    const float top_p         = scalar(dst->src[2]);

    const nucleus_draw draw = nucleus_sample((const float *) logits->data, logits->ne[0], row.owner->user_temperature(temperature),
                                             row.owner->user_top_p(top_p), row.uniform, row.ws, true);
    row.last = { draw.token, temperature, top_p, draw.size, draw.prob, (int32_t) draw.status };
    // -1 would send llama_sampler_sample looking for logits that were never copied to the host
    *(int32_t *) dst->data = std::max(draw.token, 0);
}

// CPU node: keep temperature [1] and top-p [1] for the host stages; userdata is the graph_row
void observer_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith != 0) {
        return;
    }
    graph_row & row = *(graph_row *) userdata;
    row.last        = { -1, scalar(dst->src[0]), scalar(dst->src[1]), 0, 0.0f, 0 };
    *(float *) dst->data = 0.0f;
}

// The vectors that the output matrix multiplies, a column for each row of logits; null in a graph without a model.
ggml_tensor * find_hidden(ggml_cgraph * gf, ggml_tensor * logits, int64_t n_embd) {
    // its usual name, and the one it has while the context returns embeddings
    for (const char * name : { "result_norm", "result_embd_pooled" }) {
        ggml_tensor * tensor = ggml_graph_get_tensor(gf, name);
        if (tensor && tensor->ne[0] == n_embd && tensor->type == GGML_TYPE_F32) {
            return tensor;
        }
    }
    // else walk back to the output matrix through what may follow it: scale, softcap, bias, adapters, views
    for (ggml_tensor * tensor = logits; tensor; tensor = tensor->src[0]) {
        if (tensor->op == GGML_OP_MUL_MAT) {
            ggml_tensor * hidden = tensor->src[1];
            return hidden->ne[0] == n_embd && hidden->type == GGML_TYPE_F32 ? hidden : nullptr;
        }
    }
    return nullptr;
}

const char * sampler_name(const llama_sampler * smpl) {
    return state_of(smpl).is_observer ? "autodeco-observer" : "autodeco";
}

void sampler_accept(llama_sampler * smpl, llama_token /*token*/) {
    // an observer's token is accepted by its host stage
    if (!state_of(smpl).is_observer) {
        state_of(smpl).next_uniform();
    }
}

void sampler_apply(llama_sampler * smpl, llama_token_data_array * cur_p) {
    // reached only on a chain that no context has attached: without a hidden state there is nothing to predict from
    sampler_state & state = state_of(smpl);
    if (!state.is_observer && cur_p->size > 0) {
        if (state.rows.empty()) {
            state.rows.push_back({ &state, 0.0, {}, {} });
        }
        cur_p->selected             = 0;
        state.rows.front().last        = {};
        state.rows.front().last.status = AUTODECO_STATUS_NOT_ATTACHED;
    }
}

void sampler_reset(llama_sampler * smpl) {
    state_of(smpl).restart();
}

void sampler_free(llama_sampler * smpl) {
    delete (sampler_state *) smpl->ctx;
}

bool sampler_backend_init(llama_sampler * smpl, ggml_backend_buffer_type_t buft, uint32_t /*n_outputs_max_per_seq*/) {
    sampler_state & state = state_of(smpl);
    state.weights         = state.heads->weights(buft);
    return state.weights != nullptr;
}

void sampler_backend_apply(llama_sampler * smpl, ggml_context * ctx, ggml_cgraph * gf, llama_sampler_data * data) {
    sampler_state & state  = state_of(smpl);
    const int64_t   n_embd = state.heads->n_embd;
    ggml_tensor *   logits = data->logits;

    ggml_tensor * hidden = find_hidden(gf, logits, n_embd);
    if (!hidden) {
        hidden = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_embd, 1); // a probe that only counts nodes
    } else {
        const int64_t i = logits->view_src ? (int64_t) (logits->view_offs / logits->view_src->nb[1]) : 0;
        if (i >= hidden->ne[1]) {
            hidden = ggml_pad(ctx, hidden, 0, 1, 0, 0); // a batch without outputs: llama.cpp pads the logits alike
        }
        hidden = ggml_view_2d(ctx, hidden, n_embd, 1, hidden->nb[1], i * hidden->nb[1]);
    }

    if (state.n_rows == state.rows.size()) {
        state.rows.push_back({ &state, 0.0, {}, {} });
    }
    graph_row & row = state.rows[state.n_rows++];
    row.ws.reserve(logits->ne[0]);

    const predictions pred   = build_heads(ctx, state.weights->tensors, state.heads->prob_stats, hidden, logits, &row.ws);
    ggml_tensor *     args[] = { logits, pred.temperature, pred.top_p };
    const int         n_args = pred.top_p ? 3 : 2;
    if (state.is_observer) {
        ggml_tensor * kept = ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, args + 1, n_args - 1, observer_node, 1, &row);
        ggml_set_name(kept, "autodeco_observer");
        ggml_build_forward_expand(gf, kept);
        return;
    }
    ggml_tensor * token = ggml_custom_4d(ctx, GGML_TYPE_I32, 1, 1, 1, 1, args, n_args, nucleus_node, 1, &row);
    ggml_set_name(token, "autodeco_token");
    data->logits     = nullptr;
    data->probs      = nullptr;
    data->candidates = nullptr;
    data->sampled    = token;
}

void sampler_backend_set_input(llama_sampler * smpl) {
    sampler_state & state = state_of(smpl);
    std::mt19937    ahead = state.rng;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (size_t i = 0; i < state.n_rows; ++i) {
        state.rows[i].uniform = i == 0 ? state.uniform : uniform(ahead);
    }
}

void sampler_backend_reset(llama_sampler * smpl) {
    state_of(smpl).n_rows = 0;
}

void sampler_copy_state(const llama_sampler * src, llama_sampler * dst) {
    const sampler_state & from = state_of(src);
    sampler_state &       to   = state_of(dst);
    to.params    = from.params;
    to.rng       = from.rng;
    to.uniform   = from.uniform;
    to.host_last = from.host_last;
}

llama_sampler * sampler_clone(const llama_sampler * smpl);

llama_sampler_i sampler_interface = {
    /* .name              = */ sampler_name,
    /* .accept            = */ sampler_accept,
    /* .apply             = */ sampler_apply,
    /* .reset             = */ sampler_reset,
    /* .clone             = */ sampler_clone,
    /* .free              = */ sampler_free,
    /* .backend_init      = */ sampler_backend_init,
    /* .backend_accept    = */ nullptr,
    /* .backend_apply     = */ sampler_backend_apply,
    /* .backend_set_input = */ sampler_backend_set_input,
    /* .backend_reset     = */ sampler_backend_reset,
    /* .copy_state        = */ sampler_copy_state,
};

llama_sampler * new_sampler(std::shared_ptr<const heads_data> heads, autodeco_params params, bool is_observer) {
    auto * state       = new sampler_state;
    state->heads       = std::move(heads);
    state->params      = params;
    state->is_observer = is_observer;
    state->restart();
    return llama_sampler_init(&sampler_interface, state);
}

llama_sampler * sampler_clone(const llama_sampler * smpl) {
    const sampler_state & state  = state_of(smpl);
    llama_sampler *       result = new_sampler(state.heads, state.params, state.is_observer);
    sampler_copy_state(smpl, result);
    return result;
}

// host stages: their ctx is the observer's state, which they do not own

const autodeco_decoding & observed(const sampler_state & state) {
    static const autodeco_decoding none = { -1, 1.0f, 1.0f, 0, 0.0f, AUTODECO_STATUS_NOT_ATTACHED };
    return state.rows.empty() ? none : state.rows.front().last;
}

llama_sampler * host_clone(const llama_sampler * smpl) {
    return llama_sampler_init(smpl->iface, smpl->ctx); // another stage of the same observer
}

const char * host_temperature_name(const llama_sampler * /*smpl*/) {
    return "autodeco-host-temperature";
}

void host_temperature_apply(llama_sampler * smpl, llama_token_data_array * cur_p) {
    sampler_state & state       = state_of(smpl);
    const float     temperature = state.user_temperature(observed(state).temperature);
    if (temperature < GREEDY_TEMPERATURE) {
        return; // greedy: the order is all that matters, and the last stage takes the first
    }
    for (size_t i = 0; i < cur_p->size; ++i) {
        cur_p->data[i].logit /= temperature;
    }
    state.divided = true;
}

llama_sampler_i host_temperature_interface = {
    /* .name              = */ host_temperature_name,
    /* .accept            = */ nullptr,
    /* .apply             = */ host_temperature_apply,
    /* .reset             = */ nullptr,
    /* .clone             = */ host_clone,
    /* .free              = */ nullptr,
    /* .backend_init      = */ nullptr,
    /* .backend_accept    = */ nullptr,
    /* .backend_apply     = */ nullptr,
    /* .backend_set_input = */ nullptr,
    /* .backend_reset     = */ nullptr,
    /* .copy_state        = */ nullptr,
};

const char * host_name(const llama_sampler * /*smpl*/) {
    return "autodeco-host";
}

void host_accept(llama_sampler * smpl, llama_token /*token*/) {
    state_of(smpl).next_uniform();
}

void host_apply(llama_sampler * smpl, llama_token_data_array * cur_p) {
    sampler_state &           state = state_of(smpl);
    const autodeco_decoding & seen  = observed(state);

    const float predicted   = state.user_temperature(seen.temperature);
    const float temperature = state.divided && predicted >= GREEDY_TEMPERATURE ? 1.0f : predicted;
    state.divided           = false;

    state.host_logits.resize(std::max(state.host_logits.size(), cur_p->size));
    for (size_t i = 0; i < cur_p->size; ++i) {
        state.host_logits[i] = cur_p->data[i].logit;
    }
    const nucleus_draw draw = nucleus_sample(state.host_logits.data(), (int64_t) cur_p->size, temperature, state.user_top_p(seen.top_p),
                                             state.uniform, state.host_ws);
    cur_p->selected = std::max(draw.token, 0); // a position in cur_p; llama.cpp aborts on -1
    state.host_last = { cur_p->data[cur_p->selected].id, seen.temperature, seen.top_p, draw.size, draw.prob,
                        seen.status != 0 ? seen.status : (int32_t) draw.status };
}

void host_reset(llama_sampler * smpl) {
    state_of(smpl).restart();
}

llama_sampler_i host_interface = {
    /* .name              = */ host_name,
    /* .accept            = */ host_accept,
    /* .apply             = */ host_apply,
    /* .reset             = */ host_reset,
    /* .clone             = */ host_clone,
    /* .free              = */ nullptr,
    /* .backend_init      = */ nullptr,
    /* .backend_accept    = */ nullptr,
    /* .backend_apply     = */ nullptr,
    /* .backend_set_input = */ nullptr,
    /* .backend_reset     = */ nullptr,
    /* .copy_state        = */ nullptr,
};

void write_error(const std::string & message, char * error, size_t error_size) {
    if (error && error_size > 0) {
        snprintf(error, error_size, "%s", message.c_str());
    }
}

} // namespace

} // namespace autodeco

using namespace autodeco;

autodeco_heads * autodeco_heads_load(const char * path, char * error, size_t error_size) {
    try {
        std::string what;
        auto        data = heads_read(path, what);
        if (!data) {
            write_error(what, error, error_size);
            return nullptr;
        }
        return new autodeco_heads{ std::move(data) };
    } catch (const std::exception & e) { // out of memory: no exception may cross a C interface
        write_error(std::string(path) + ": " + e.what(), error, error_size);
        return nullptr;
    }
}

void autodeco_heads_free(autodeco_heads * heads) {
    delete heads;
}

int32_t autodeco_heads_n_embd(const autodeco_heads * heads) {
    return heads->data->n_embd;
}

int32_t autodeco_heads_n_vocab(const autodeco_heads * heads) {
    return heads->data->n_vocab;
}

bool autodeco_heads_has_temperature(const autodeco_heads * heads) {
    return heads->data->has_temp;
}

bool autodeco_heads_has_top_p(const autodeco_heads * heads) {
    return heads->data->has_top_p;
}

bool autodeco_heads_has_prob_stats(const autodeco_heads * heads) {
    return heads->data->prob_stats;
}

bool autodeco_heads_fit(const autodeco_heads * heads, const llama_model * model, char * error, size_t error_size) {
    const int32_t n_embd  = llama_model_n_embd(model);
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    if (heads->data->n_embd != n_embd) {
        write_error("heads are made for hidden states of width " + std::to_string(heads->data->n_embd) + ", the model's have " + std::to_string(n_embd), error, error_size);
        return false;
    }
    if (heads->data->n_vocab != n_vocab) {
        write_error("heads are made for a vocabulary of " + std::to_string(heads->data->n_vocab) + " tokens, the model has " + std::to_string(n_vocab), error, error_size);
        return false;
    }
    return true;
}

autodeco_params autodeco_default_params(void) {
    return { /* .seed = */ LLAMA_DEFAULT_SEED, /* .temperature = */ 1.0f, /* .top_p = */ 1.0f };
}

const char * autodeco_status_message(int32_t status) {
    return status == AUTODECO_STATUS_NOT_ATTACHED ? "the sampler is attached to no context: nothing to predict from" : row_status_message((row_status) status);
}

llama_sampler * autodeco_sampler_init(const autodeco_heads * heads, autodeco_params params) {
    return new_sampler(heads->data, params, false);
}

llama_sampler * autodeco_sampler_init_observer(const autodeco_heads * heads, autodeco_params params) {
    return new_sampler(heads->data, params, true);
}

llama_sampler * autodeco_sampler_init_host_temperature(llama_sampler * observer) {
    return llama_sampler_init(&host_temperature_interface, observer->ctx);
}

llama_sampler * autodeco_sampler_init_host(llama_sampler * observer) {
    return llama_sampler_init(&host_interface, observer->ctx);
}

void autodeco_sampler_observe(llama_sampler * observer, float temperature, float top_p) {
    sampler_state & state = state_of(observer);
    if (state.rows.empty()) {
        state.rows.push_back({ &state, 0.0, {}, {} });
    }
    state.rows.front().last = { -1, temperature, top_p, 0, 0.0f, 0 };
}

void autodeco_sampler_set_params(llama_sampler * smpl, autodeco_params params) {
    state_of(smpl).params = params;
    state_of(smpl).restart();
}

autodeco_decoding autodeco_sampler_last(const llama_sampler * smpl) {
    const sampler_state & state = state_of(smpl);
    return state.is_observer ? state.host_last : observed(state);
}

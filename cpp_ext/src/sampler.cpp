// The llama_sampler: builds the heads and the nucleus into llama.cpp's graph.

#include "cut_row.h"
#include "device_nodes.h"
#include "host_node.h"
#include "llama_releases.h"
#include "sampler_state.h"

#include <cmath>
#include <cstring>
#include <functional>

namespace autodeco {

namespace {

// more than any model has; where the vocabulary is not known yet
constexpr int64_t LARGEST_VOCAB = 1 << 20;

// of samplers without heads, which do not know of each other
constexpr int64_t STATIC_ROWS_AT_ONCE = 32;

float scalar(const ggml_tensor * tensor) {
    return *(const float *) tensor->data;
}

// a prediction, or 1 where there is none
ggml_tensor * or_one(ggml_tensor * prediction) {
    return prediction ? prediction : host_one();
}

// Compute no output of the running graph from `first` on: their nodes come behind those of the ones before.
void skip_rows(sampler_state & state, size_t first) {
    for (size_t i = 0; i < state.n_run; ++i) {
        state.rows[i].heads.is_skipped |= state.rows[i].output >= first;
    }
}

// CPU node: draw a token from logits [n_vocab] at temperature [1] and top-p [1]; userdata is the graph_row
void nucleus_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith != 0) {
        return;
    }
    graph_row &         row    = *(graph_row *) userdata;
    const ggml_tensor * logits = dst->src[0];
    sampler_state &     state  = *row.owner;
    row.has_run                = true;
    if (row.heads.is_skipped) {
        row.last               = undecided(AUTODECO_STATUS_NOT_DECODED);
        *(int32_t *) dst->data = 0;
        return;
    }

    const float temperature      = scalar(dst->src[1]);
    const float top_p            = scalar(dst->src[2]);
    const float user_temperature = state.user_temperature(temperature);
    const float user_top_p       = state.user_top_p(top_p);

    const float * z   = (const float *) logits->data;
    if (state.draws_on_host) {
        row.logits.assign(z, z + logits->ne[0]);
        row.last               = { -1, temperature, top_p, 0, 0.0f, 0 };
        *(int32_t *) dst->data = 0;
        return;
    }
    const bool    cut = (state.top_k > 0 || state.min_p > 0.0f) && user_temperature >= GREEDY_TEMPERATURE &&
                     row_check(z, logits->ne[0], row.ws) == row_status::ok; // NaN has no order; the draw reports it
    if (cut) {
        cut_row(z, logits->ne[0], user_temperature, state.top_k, state.min_p, row.logits);
        z = row.logits.data();
    }
    const nucleus_draw draw = nucleus_sample(z, logits->ne[0], user_temperature, user_top_p, row.uniform, row.ws, !cut);
    row.last = { draw.token, state.told_temperature(temperature), state.told_top_p(top_p), draw.size, draw.prob, (int32_t) draw.status };
    if (state.ends_draft(row.output, draw.token)) {
        skip_rows(state, row.output + 1);
    }
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

const char * sampler_name(const llama_sampler * smpl) {
    return state_of(smpl).is_observer ? "autodeco-observer" : "autodeco";
}

autodeco_decoding decision(const sampler_state & state, const device_values & values) {
    const bool is_real = std::isfinite(values.temperature) && std::isfinite(values.top_p) && std::isfinite(values.prob) && std::isfinite(values.total);
    const bool  has_top_p   = state.heads && state.heads->has_top_p;
    const float temperature = state.told_temperature(values.temperature);
    const float top_p       = state.told_top_p(has_top_p ? values.top_p : 1.0f);
    return { (int32_t) values.token, temperature, top_p, (int32_t) values.last + 1, values.prob,
             (int32_t) (is_real ? row_status::ok : row_status::not_real) };
}

// Whether `token` was drawn from an output. What was decided on a device is then held as long as the sampler lives: its
// context may go when the token was taken.
bool was_drawn(sampler_state & state, size_t output, llama_token token) {
    if (output < state.earlier.size()) {
        return state.earlier[output].token == token;
    }
    graph_row & row = state.rows[output - state.earlier.size()];
    if (!row.drawn.rows) {
        return row.last.token == token;
    }
    device_values values;
    if (!row.drawn.rows->read_drawn(row.drawn.row, token, values)) {
        return false;
    }
    row.last  = decision(state, values);
    row.drawn = {};
    return true;
}

// of an output whose decision the host has; logits that cannot be drawn from give a token of no meaning
int32_t status_of(const sampler_state & state, size_t output) {
    if (output < state.earlier.size()) {
        return state.earlier[output].status;
    }
    const graph_row & row = state.rows[output - state.earlier.size()];
    return row.drawn.rows ? 0 : row.last.status;
}

// The output that an accepted token was taken from: the next one, unless that has another token and one behind it this one.
size_t taken_output(sampler_state & state, llama_token token) {
    for (size_t i = state.next_output; i < state.n_outputs(); ++i) {
        if (was_drawn(state, i, token) || status_of(state, i) != 0) {
            return i;
        }
    }
    return state.next_output;
}

void sampler_accept(llama_sampler * smpl, llama_token token) {
    sampler_state & state = state_of(smpl);
    // a token drawn on the host is accepted by the host stage
    if (!state.is_observer && !state.draws_on_host) {
        state.take_output(taken_output(state, token));
    }
}

void sampler_apply(llama_sampler * smpl, llama_token_data_array * cur_p) {
    // reached only on a chain that no context has attached, or behind a sampler that works on the host: without a hidden state
    // there is nothing to predict from
    sampler_state & state = state_of(smpl);
    if (!state.is_observer && cur_p->size > 0) {
        if (cur_p->selected < 0) { // llama.cpp aborts where nothing is selected
            const auto less = [](const llama_token_data & a, const llama_token_data & b) { return a.logit < b.logit; };
            cur_p->selected = std::max_element(cur_p->data, cur_p->data + cur_p->size, less) - cur_p->data;
        }
        set_only_output(state, undecided(AUTODECO_STATUS_NOT_ATTACHED));
    }
}

void sampler_reset(llama_sampler * smpl) {
    state_of(smpl).restart();
}

void sampler_free(llama_sampler * smpl) {
    delete (sampler_state *) smpl->ctx;
}

// `n_outputs_max_per_seq` is one number, or none in a release that has one output of a sequence in a graph
template <typename... Number>
bool sampler_backend_init(llama_sampler * smpl, ggml_backend_buffer_type_t buft, Number... n_outputs_max_per_seq) {
    sampler_state & state = state_of(smpl);
    state.row(0); // there is a decision to ask for
    for (graph_row & row : state.rows) {
        row.planned = {}; // of another context, which may go on with it
        row.drawn   = {};
        row.last    = undecided(AUTODECO_STATUS_NOT_DECODED);
    }
    state.earlier.clear();
    state.n_run           = 0;
    state.next_output     = 0;
    state.begins          = true;
    state.is_followed     = false;
    if (!host_one()) {
        return false;
    }
    state.n_outputs_max   = std::max<int64_t>({ 1, (int64_t) n_outputs_max_per_seq... });
    const node_places where = places(buft, state.heads.get(), state.heads ? state.heads->n_vocab : LARGEST_VOCAB);
    state.on_device         = where.draw_on_device;
    if (!state.heads) {
        return true;
    }
    state.heads_on_host = where.heads_on_host;
    state.weights       = counted_weights(state.heads_on_host ? nullptr : state.heads->weights(buft));
    return state.heads_on_host || (bool) state.weights;
}

// Keep what was predicted, and let the logits depend on that: llama.cpp leaves out what it does for a sequence that has no
// output in a batch, and nothing may be kept of that either.
void observe(ggml_context * ctx, ggml_cgraph * gf, const predictions & pred, llama_sampler_data & data, graph_row & row) {
    ggml_tensor * kept = host_node(ctx, GGML_TYPE_F32, 1, 1, { or_one(pred.temperature), or_one(pred.top_p) }, observer_node, 1, &row);
    ggml_set_name(kept, "autodeco_observer");
    row.computed = kept;
    if (!data.logits->view_src) { // of a probe
        ggml_build_forward_expand(gf, kept);
        return;
    }
    data.logits         = ggml_view_1d(ctx, data.logits, data.logits->ne[0], 0);
    data.logits->src[1] = kept;
}

ggml_tensor * draw_on_cpu(ggml_context * ctx, ggml_tensor * logits, const predictions & pred, graph_row & row) {
    return host_node(ctx, GGML_TYPE_I32, 1, 1, { logits, or_one(pred.temperature), or_one(pred.top_p) }, nucleus_node, 1, &row);
}

// How many output rows to draw from at once: as many as may be of samplers with these heads, for those of other sequences
// would be sorted for nothing, and memory reserved for them.
int64_t rows_at_once(const sampler_state & state) {
    return state.weights ? state.weights->n_samplers * state.n_outputs_max : STATIC_ROWS_AT_ONCE;
}

void draw_on_device(ggml_context * ctx, ggml_cgraph * gf, const sampler_state & state, const output_rows & outputs, llama_sampler_data & data,
                    graph_row & row) {
    row.planned = { device_rows::in_graph(ctx, gf, state.heads.get(), state.weights.get(), outputs, rows_at_once(state)), outputs.row };
    // What stands for probabilities llama.cpp copies before the next graph of the same decode; the token is among them.
    ggml_tensor *& result = state.is_served ? data.probs : data.sampled;
    result = state.is_served ? row.planned.rows->told(ctx, outputs.row) : row.planned.rows->token(ctx, outputs.row);
    row.computed = result;
}

// temperature and top-p of one row
predictions predict(ggml_context * ctx, ggml_cgraph * gf, const sampler_state & state, const output_rows & outputs, ggml_tensor * logits, graph_row & row) {
    if (!state.heads) {
        return { nullptr, nullptr };
    }
    ggml_tensor * hidden = hidden_of(ctx, gf, outputs, state.heads->n_embd, outputs.row, 1);
    if (state.heads_on_host) {
        row.heads.heads = state.heads.get();
        row.heads.ws    = &row.ws;
        return build_cpu_heads(ctx, hidden, logits, row.heads);
    }
    return build_heads(ctx, state.weights->tensors, state.heads->prob_stats, hidden, [&](ggml_tensor * temperature) {
        return state.on_device ? device_stats(ctx, sort_rows(ctx, logits), temperature) : cpu_stats(ctx, logits, temperature);
    });
}

void sampler_backend_reset(llama_sampler * smpl) {
    sampler_state & state = state_of(smpl);
    state.n_rows          = 0;
    state.is_followed     = state.probe.end() || state.is_followed;
    for (graph_row & row : state.rows) {
        if (row.planned.rows) {
            row.planned.rows->forget_graph();
            row.planned = {};
        }
        row.computed = nullptr;
    }
}

void sampler_backend_apply(llama_sampler * smpl, ggml_context * ctx, ggml_cgraph * gf, llama_sampler_data * data) {
    if (!SEVERAL_OUTPUTS) { // for which this begins every graph
        sampler_backend_reset(smpl);
    }
    sampler_state & state = state_of(smpl);
    graph_row &     row   = state.row(state.n_rows++);
    if (!is_first(*data) || (state.is_followed && !state.is_observer)) {
        row.drawn = {};
        row.last  = undecided(AUTODECO_STATUS_NOT_ALONE);
        if (!state.is_observer) {
            give_likeliest(ctx, *data);
        }
        return;
    }
    const output_rows outputs = find_output_rows(data->logits);
    if (state.on_device && !state.is_observer) {
        draw_on_device(ctx, gf, state, outputs, *data, row);
    } else {
        ggml_tensor * logits = logits_of(ctx, outputs, outputs.row, 1);
        row.ws.reserve(logits->ne[0]);
        const predictions pred = predict(ctx, gf, state, outputs, logits, row);
        if (state.is_observer) {
            observe(ctx, gf, pred, *data, row);
            return;
        }
        data->sampled = draw_on_cpu(ctx, logits, pred, row);
        row.computed  = data->sampled;
        ggml_set_name(data->sampled, "autodeco_token");
    }
    if (outputs.is_probe) {
        state.probe.begin(ctx); // and the logits stay for a sampler that may follow
    } else if (SEVERAL_OUTPUTS) {
        data->logits = nullptr; // or they would be copied to the host
    } // else nothing has said whether one follows, which would crash without them
}

// what a draw on a device reads of the user's settings
device_settings device_settings_of(const sampler_state & state, double uniform) {
    const bool fixed_temperature = !state.heads || state.fixed_temperature;
    const bool fixed_top_p       = !state.heads || !state.heads->has_top_p || state.fixed_top_p;
    const bool greedy            = state.params.temperature == 0.0f;
    // a double below 1 may round up to 1
    const float below_one = std::nextafter(1.0f, 0.0f);
    return {
        fixed_temperature ? 0.0f : state.params.temperature,
        fixed_temperature ? state.params.temperature : 0.0f,
        fixed_top_p ? 0.0f : state.params.top_p,
        fixed_top_p ? state.params.top_p : 0.0f,
        greedy ? 0.0f : std::min((float) uniform, below_one),
        state.top_k > 0 ? (float) (state.top_k - 1) : (float) LARGEST_VOCAB,
        state.min_p * MIN_P_ROUNDING,
    };
}

// Before a graph runs: its outputs follow those of the graphs before it in the same decode. Nothing says where one ends, but
// whoever decodes takes tokens from it, or more outputs came than one may have.
void begin_outputs(sampler_state & state) {
    if (state.begins || (!state.is_served && state.n_outputs() + state.n_rows > (size_t) state.n_outputs_max)) {
        state.earlier.clear();
        state.next_output = 0;
        state.draft       = std::move(state.next_draft);
        state.next_draft.clear();
    } else {
        for (size_t i = 0; i < state.n_run; ++i) { // a row's memory is used again
            state.earlier.push_back(state.rows[i].drawn.rows ? undecided(AUTODECO_STATUS_LOST) : state.rows[i].last);
        }
    }
    state.begins = false;
    state.n_run  = state.n_rows;
}

// In a release with one output, llama_sampler_sample takes a token from the graph and accepts it nowhere: whoever decodes
// again without having accepted or discarded what was drawn has taken it so. A sampler that another one works behind, and
// those of sequences without an output, have drawn nothing.
void take_what_was_not_accepted(sampler_state & state) {
    if (state.begins || state.n_run == 0 || state.is_observer || state.draws_on_host) {
        return;
    }
    if (state.rows[0].has_run) { // on the CPU, as all is in such a release: see places()
        state.take_output(0);
    }
}

// Whether the graph that is to run has an output of this sequence: llama.cpp builds the nodes of the others too, and leaves them
// out. Those of one decode may come before and behind those with outputs.
bool has_output(const sampler_state & state) {
    const ggml_tensor * computed = state.n_rows > 0 ? state.rows[0].computed : nullptr;
    return !computed || computed->flags & GGML_TENSOR_FLAG_COMPUTE;
}

void sampler_backend_set_input(llama_sampler * smpl) {
    sampler_state & state = state_of(smpl);
    if (!SEVERAL_OUTPUTS) {
        take_what_was_not_accepted(state);
    } else if (!has_output(state)) {
        return;
    }
    state.begin_token();
    begin_outputs(state);
    std::mt19937 ahead = state.rng;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (size_t i = 1; i < state.earlier.size(); ++i) {
        uniform(ahead);
    }
    const bool is_over = !state.earlier.empty() && state.ends_draft(state.earlier.size() - 1, state.earlier.back().token);
    for (size_t i = 0; i < state.n_rows; ++i) {
        graph_row & row = state.rows[i];
        row.uniform     = i == 0 && state.earlier.empty() ? state.uniform : uniform(ahead);
        row.output      = state.earlier.size() + i;
        row.has_run     = false;
        row.drawn       = row.planned;
        row.heads.is_skipped = is_over;
        if (row.drawn.rows) {
            row.drawn.rows->prepare(row.drawn.row, device_settings_of(state, row.uniform));
        }
    }
}

void sampler_copy_state(const llama_sampler * src, llama_sampler * dst) {
    const sampler_state & from = state_of(src);
    sampler_state &       to   = state_of(dst);
    to.params            = from.params;
    to.fixed_temperature = from.fixed_temperature;
    to.fixed_top_p       = from.fixed_top_p;
    to.top_k             = from.top_k;
    to.min_p             = from.min_p;
    to.rng               = from.rng;
    to.uniform           = from.uniform;
    to.host_last         = from.host_last;
    to.next_output       = from.next_output; // of the same decode, where there is one
    to.begins            = true;             // or of the next
}

llama_sampler * sampler_clone(const llama_sampler * smpl);

llama_sampler_i sampler_interface = [] {
    llama_sampler_i calls   = {};
    calls.name              = sampler_name;
    calls.accept            = sampler_accept;
    calls.apply             = sampler_apply;
    calls.reset             = sampler_reset;
    calls.clone             = sampler_clone;
    calls.free              = sampler_free;
    calls.backend_init      = sampler_backend_init;
    calls.backend_apply     = sampler_backend_apply;
    calls.backend_set_input = sampler_backend_set_input;
    set_graph_calls(calls, sampler_backend_reset, sampler_copy_state);
    return calls;
}();

} // namespace

sampler_state * sampler_state_or_null(const llama_sampler * smpl) {
    const bool is_known = smpl && (smpl->iface == &sampler_interface || is_host_stage(smpl));
    return is_known ? &state_of(smpl) : nullptr;
}

llama_sampler * new_sampler(std::shared_ptr<const heads_data> heads, autodeco_params params, bool is_observer) {
    auto state         = std::make_unique<sampler_state>();
    state->heads       = std::move(heads);
    state->params      = params;
    state->is_observer = is_observer;
    state->restart();
    return llama_sampler_init(&sampler_interface, state.release());
}

autodeco_decoding observed(const sampler_state & state) {
    if (state.rows.empty()) {
        return undecided(AUTODECO_STATUS_NOT_ATTACHED);
    }
    const bool   is_next = state.is_observer || state.draws_on_host;
    const size_t last    = std::max<size_t>(state.n_outputs(), 1) - 1;
    const size_t output  = std::min(is_next || state.next_output == 0 ? state.next_output : state.next_output - 1, last);
    if (output < state.earlier.size()) {
        return state.earlier[output];
    }
    const graph_row & row = state.rows[output - state.earlier.size()];
    if (!row.drawn.rows) {
        return row.last;
    }
    device_values values;
    if (!row.drawn.rows->read(row.drawn.row, values)) {
        return undecided(AUTODECO_STATUS_LOST);
    }
    return decision(state, values);
}

void let_go(sampler_state & state, bool context_lives) {
    for (graph_row & row : state.rows) {
        if (row.drawn.rows) {
            device_values values;
            const bool    is_held = context_lives && row.drawn.rows->read(row.drawn.row, values);
            row.last              = is_held ? decision(state, values) : undecided(AUTODECO_STATUS_LOST);
            row.drawn             = {};
        }
    }
}

llama_token take_values(sampler_state & state, const float * values) {
    device_values drawn;
    std::memcpy(&drawn, values, sizeof(drawn));
    autodeco_decoding decided = decision(state, drawn);
    decided.token             = std::max(decided.token, 0);
    const size_t output       = state.next_output;
    if (output < state.earlier.size()) {
        state.earlier[output] = decided;
    } else if (output < state.n_outputs()) {
        graph_row & row = state.rows[output - state.earlier.size()];
        row.last        = decided;
        row.drawn       = {};
    }
    return decided.token;
}

void set_only_output(sampler_state & state, const autodeco_decoding & decided) {
    state.earlier.clear();
    state.n_run        = 1;
    state.next_output  = 0;
    state.row(0).drawn = {};
    state.row(0).last  = decided;
}

namespace {

llama_sampler * sampler_clone(const llama_sampler * smpl) {
    const sampler_state & state  = state_of(smpl);
    llama_sampler *       result = new_sampler(state.heads, state.params, state.is_observer);
    sampler_copy_state(smpl, result);
    return result;
}

} // namespace

} // namespace autodeco

// The llama_sampler: builds the heads and the nucleus into llama.cpp's graph.

#include "device_nodes.h"
#include "host_node.h"
#include "llama_releases.h"
#include "row_nodes.h"

#include <cmath>
#include <cstring>
#include <functional>

namespace autodeco {

namespace {

// more than any model has; where the vocabulary is not known yet
constexpr int64_t LARGEST_VOCAB = 1 << 20;

// of samplers without heads, which do not know of each other
constexpr int64_t STATIC_ROWS_AT_ONCE = 32;

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

// Hold the level that a device has read, unless one is known, or another answer's has steered. A run that is not done may have
// left anything there.
void hold_level(sampler_state & state, const device_values & values) {
    if (state.rows[0].heads.reads_level && std::isnan(state.known_level()) && std::abs(values.level) <= 1.0f) {
        state.read_level = values.level;
    }
}

// Hold what a device has decided for a row, and the level that it has read.
void hold(sampler_state & state, graph_row & row, const device_values & values) {
    row.last  = decision(state, values);
    row.drawn = {};
    hold_level(state, values);
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
    values.level = NAN;
    if (!row.drawn.rows->read_drawn(row.drawn.row, token, values)) {
        if (!state.begins) { // else the token is of a prompt, or behind one that was taken
            hold_level(state, values);
        }
        return false;
    }
    hold(state, row, values);
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
        return { nullptr, nullptr, nullptr };
    }
    ggml_tensor * hidden = hidden_of(ctx, gf, outputs, state.heads->n_embd, outputs.row, 1);
    if (state.heads_on_host) {
        row.heads.heads = state.heads.get();
        row.heads.ws    = &row.ws;
        return build_cpu_heads(ctx, hidden, logits, row.heads);
    }
    predictions pred = build_heads(ctx, state.weights->tensors, state.heads->prob_stats, hidden, [&](ggml_tensor * temperature) {
        return state.on_device ? device_stats(ctx, sort_rows(ctx, logits), temperature) : cpu_stats(ctx, logits, temperature);
    });
    pred.level = build_level(ctx, state.weights->tensors, state.heads->control, hidden);
    return pred;
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

// what a draw on a device reads of the user's settings, and of the level of its answer
device_settings device_settings_of(const sampler_state & state, double uniform) {
    const float known             = state.known_level();
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
        (float) state.rows[0].drawn.row, // the first output of the decode, which those behind it follow
        std::isnan(known) ? 1.0f : 0.0f,
        std::isnan(known) ? 0.0f : known,
    };
}

// Before a graph runs: its outputs follow those of the graphs before it in the same decode. Nothing says where one ends, but
// whoever decodes takes tokens from it, or more outputs came than one may have.
void begin_outputs(sampler_state & state) {
    if (state.begins || (!state.is_served && state.n_outputs() + state.n_rows > (size_t) state.n_outputs_max)) {
        state.earlier.clear();
        state.next_output = 0;
        state.read_level  = NAN;
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
        row.heads.reads_level = i == 0 && std::isnan(state.known_level());
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
    to.set_level         = from.set_level;
    to.level             = from.level;
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
            if (context_lives && row.drawn.rows->read(row.drawn.row, values)) {
                hold(state, row, values);
            } else {
                row.last  = undecided(AUTODECO_STATUS_LOST);
                row.drawn = {};
            }
        }
    }
}

llama_token take_values(sampler_state & state, const float * values) {
    const bool    has_level = state.heads && state.heads->has_control;
    device_values drawn     = {};
    std::memcpy(&drawn, values, (size_t) n_device_values(has_level) * sizeof(float));
    if (has_level) {
        hold_level(state, drawn);
    }
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

void set_only_output(sampler_state & state, const autodeco_decoding & decided, float read_level) {
    state.read_level = read_level;
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

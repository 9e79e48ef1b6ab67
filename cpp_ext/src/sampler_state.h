// What the graph sampler and its host stages share.

#pragma once

#include "autodeco.h"

#include "chain_place.h"
#include "cpu_heads.h"
#include "device_rows.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <random>
#include <vector>

namespace autodeco {

struct sampler_state;

// What is told where nothing was decided.
inline autodeco_decoding undecided(int32_t status) {
    return { -1, 1.0f, 1.0f, 0, 0.0f, status };
}

// The weights on a device as one sampler holds them, which counts as one of their samplers as long as it does.
class counted_weights {
public:
    counted_weights() = default;
    explicit counted_weights(std::shared_ptr<const device_weights> weights) : weights(std::move(weights)) { count(1); }
    counted_weights(const counted_weights &) = delete;
    counted_weights & operator=(const counted_weights &) = delete;
    counted_weights & operator=(counted_weights && other) noexcept {
        std::swap(weights, other.weights);
        return *this;
    }
    ~counted_weights() { count(-1); }

    explicit operator bool() const { return weights != nullptr; }
    const device_weights * get() const { return weights.get(); }
    const device_weights * operator->() const { return weights.get(); }

private:
    void count(int64_t n) const {
        if (weights) {
            weights->n_samplers += n;
        }
    }

    std::shared_ptr<const device_weights> weights;
};

// What one output row of a graph reads and writes. Graphs are kept and run again by llama.cpp, so a row's address must
// hold for the sampler's life: rows are reused in order by every graph and never freed before the sampler.
struct graph_row {
    sampler_state *       owner    = nullptr;
    size_t                output   = 0; // of its decode, counted from 0
    double                uniform  = 0.0;
    autodeco_decoding     last     = undecided(AUTODECO_STATUS_NOT_DECODED);
    bool                  has_run  = false; // its node of the CPU, in the graph at hand
    const ggml_tensor *   computed = nullptr; // in that graph, for this row alone; null where nothing is
    row_workspace         ws;
    cpu_heads_row         heads;
    std::vector<float>    logits; // a copy: what min_p and top_k leave, or all of them for a draw on the host

    // of a draw on a device
    device_row planned; // in the graph that was built last
    device_row drawn;   // in the last decode that this row took part in
};

struct sampler_state {
    std::shared_ptr<const heads_data> heads; // null: temperature and top-p are those of the params
    counted_weights                   weights;
    autodeco_params                   params;
    bool                              is_observer;

    // see autodeco_sampler_set_fixed and _cuts
    bool    fixed_temperature = false;
    bool    fixed_top_p       = false;
    int32_t top_k             = 0;
    float   min_p             = 0.0f;

    // of the control head, each NaN while it is not known
    float set_level  = NAN; // see autodeco_sampler_set_level
    float level      = NAN; // of the answer, once its first token is accepted
    float read_level = NAN; // by the first output of the last decode, where nothing before said one

    std::mt19937 rng;
    double       uniform; // for the next token; drawn again only when a token is accepted, so that decoding a prompt in
                          // pieces, or decoding what is then not sampled, changes nothing

    bool heads_on_host = false; // hidden state and logits are where the nodes of the CPU can read them
    bool on_device     = false; // what a draw needs is computed by the device that has the logits
    int64_t n_outputs_max = 1;  // of one sequence in one graph
    bool draws_on_host = false; // the node of the CPU keeps the logits for host stages instead of drawing

    std::deque<graph_row> rows;
    size_t                n_rows = 0; // of the current graph

    // Outputs of this sequence in the last decode, in their order, from which tokens are taken one after the other. Those of
    // the graph that ran last are its rows; llama.cpp may cut a decode into several.
    bool                           is_served   = false; // by a server: every output is accepted or discarded before the next decode, and
                                                        // values come with it from the context, which keeps them of all graphs of a decode
    std::vector<autodeco_decoding> earlier;          // those of the graphs before
    size_t                         n_run       = 0;  // rows of the graph that ran last
    size_t                         next_output = 0;  // whose token is accepted next
    bool                           begins      = true; // with the next run they are those of another decode

    chain_probe probe;
    bool        is_followed = false; // another sampler of the chain works in the graph behind this one

    // host stages
    bool              divided = false; // the temperature stage has run for this token; see begin_token
    autodeco_decoding host_last = {};
    bool              host_drawn = false; // and not accepted yet
    row_workspace     host_ws;
    std::vector<float> host_logits;
    std::vector<llama_token_data> candidates;
    bool              tells_probs = false; // of all candidates, after the draw
    std::vector<size_t> ranked;

    // row `i` of a graph, i at most one past the last that there is
    graph_row & row(size_t i) {
        if (i == rows.size()) {
            rows.emplace_back();
            rows.back().owner = this;
        }
        return rows[i];
    }

    // Tokens of which one behind the other must be drawn, for outputs behind them to count; see autodeco_sampler_expect.
    std::vector<llama_token> draft;      // in the last decode
    std::vector<llama_token> next_draft; // in the next one

    bool ends_draft(size_t output, llama_token token) const { return output < draft.size() && token != draft[output]; }

    size_t n_outputs() const { return earlier.size() + n_run; }

    // What was decoded will not be sampled any more.
    void discard_outputs() { begins = true; }

    // A token was taken from output `i`, and those before it from theirs or never.
    void take_output(size_t i) {
        for (; next_output <= i; ++next_output) {
            next_uniform();
        }
        level  = std::isnan(level) ? read_level : level;
        begins = true;
    }

    // What the outputs of the decode at hand are steered by; NaN where the first of them has to read it.
    float known_level() const { return !std::isnan(set_level) ? set_level : !std::isnan(level) ? level : read_level; }

    // The same for a row, at whose state `read` is the level if it is to read one.
    float level_of(const graph_row & row, float read) {
        if (std::isnan(known_level())) {
            read_level = row.heads.reads_level ? read : 0.0f;
        }
        return known_level();
    }

    // The level is read anew: by the next decode, or by the last one if no token was taken from it yet.
    void begin_answer() {
        level      = NAN;
        read_level = next_output > 0 ? NAN : read_level;
    }

    // A temperature stage that no draw followed, because a sampler between them failed, says nothing of the next token.
    void begin_token() {
        divided    = false;
        host_drawn = false;
    }

    void restart() {
        begin_token();
        discard_outputs();
        begin_answer();
        rng.seed(params.seed == LLAMA_DEFAULT_SEED ? std::random_device{}() : params.seed);
        next_uniform();
    }

    void next_uniform() { uniform = std::uniform_real_distribution<double>(0.0, 1.0)(rng); }

    // a fixed setting is reported as it is, and multiplied by nothing
    float told_temperature(float predicted) const { return fixed_temperature ? params.temperature : predicted; }
    float told_top_p(float predicted) const { return fixed_top_p ? params.top_p : predicted; }

    float user_temperature(float predicted) const {
        return fixed_temperature || params.temperature == 0.0f ? params.temperature : predicted * params.temperature;
    }
    float user_top_p(float predicted) const {
        return std::min(std::max(fixed_top_p ? params.top_p : predicted * params.top_p, 0.0f), 1.0f);
    }
};

inline sampler_state & state_of(const llama_sampler * smpl) {
    return *(sampler_state *) smpl->ctx;
}

// The state of a sampler or host stage of this library, told by its functions; null for NULL and for another's.
sampler_state * sampler_state_or_null(const llama_sampler * smpl);

// sampler.cpp

// What the graph decided, or an observer saw, for the token at hand: the one that was accepted last, or of an observer the one
// that is accepted next; or a status that says why that is not known. After the decode is done (llama_synchronize).
autodeco_decoding observed(const sampler_state & state);

// The values of the next output, which a device has drawn and llama.cpp has copied: those of a device_values. The token.
llama_token take_values(sampler_state & state, const float * values);

// The only output of an observer that no graph tells of its outputs, and the level that was read for it, NaN for none.
void set_only_output(sampler_state & state, const autodeco_decoding & decided, float read_level = NAN);

// Hold the decision without the context, which is left: it still lives, and has done its work, or the decision is lost.
void let_go(sampler_state & state, bool context_lives);

llama_sampler * new_sampler(std::shared_ptr<const heads_data> heads, autodeco_params params, bool is_observer);

// host_stages.cpp

bool is_host_stage(const llama_sampler * smpl);

llama_sampler * new_host_temperature(sampler_state & observer);
llama_sampler * new_host_draw       (sampler_state & observer);

// Draw by a chain that ends in host stages of this sampler from the logits that its graph kept, as llama_sampler_sample does
// from those of the context, for the outputs in their order; while `draws_on_host`, after the decode is done. LLAMA_TOKEN_NULL if
// the graph kept none, or the chain drew none.
llama_token sample_on_host(sampler_state & state, llama_sampler * chain);

} // namespace autodeco

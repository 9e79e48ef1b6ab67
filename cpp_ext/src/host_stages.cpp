// The stages that run on the host, behind whatever cannot live in the graph. Their ctx is the state of the graph's sampler,
// which they do not own.

#include "sampler_state.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace autodeco {

namespace {

llama_sampler * host_clone(const llama_sampler * smpl) {
    return llama_sampler_init(smpl->iface, smpl->ctx); // another stage of the same observer
}

const char * host_temperature_name(const llama_sampler * /*smpl*/) {
    return "autodeco-host-temperature";
}

void host_temperature_apply(llama_sampler * smpl, llama_token_data_array * cur_p) {
    sampler_state & state       = state_of(smpl);
    const float     temperature = state.user_temperature(observed(state).temperature);
    if (temperature < GREEDY_TEMPERATURE || state.divided) {
        return; // greedy: the order is all that matters, and the last stage takes the first
    }
    for (size_t i = 0; i < cur_p->size; ++i) {
        cur_p->data[i].logit /= temperature;
    }
    state.divided = true;
}

llama_sampler_i host_temperature_interface = [] {
    llama_sampler_i calls = {};
    calls.name            = host_temperature_name;
    calls.apply           = host_temperature_apply;
    calls.clone           = host_clone;
    return calls;
}();

const char * host_name(const llama_sampler * /*smpl*/) {
    return "autodeco-host";
}

void host_accept(llama_sampler * smpl, llama_token token) {
    sampler_state & state = state_of(smpl);
    if (state.host_drawn && token != state.host_last.token && state.host_last.status == 0) {
        state.host_last = undecided(AUTODECO_STATUS_NOT_ALONE); // another sampler has drawn after this one
    }
    state.host_drawn = false;
    state.take_output(state.next_output);
}

// The probabilities that the token was drawn by: of the `n` likeliest candidates, which are the nucleus; 0 of the others.
void tell_probs(sampler_state & state, llama_token_data_array & cur_p, size_t n, float temperature) {
    n = std::min(std::max<size_t>(n, 1), cur_p.size);
    state.ranked.resize(cur_p.size);
    std::iota(state.ranked.begin(), state.ranked.end(), (size_t) 0);
    std::partial_sort(state.ranked.begin(), state.ranked.begin() + (ptrdiff_t) n, state.ranked.end(), [&](size_t a, size_t b) {
        return cur_p.data[a].logit > cur_p.data[b].logit || (cur_p.data[a].logit == cur_p.data[b].logit && a < b);
    });
    for (size_t i = 0; i < cur_p.size; ++i) {
        cur_p.data[i].p = 0.0f;
    }
    const float largest = cur_p.data[state.ranked[0]].logit;
    double      sum     = 0.0;
    for (size_t i = 0; i < n; ++i) {
        llama_token_data & one = cur_p.data[state.ranked[i]];
        one.p = n == 1 ? 1.0f : std::exp((one.logit - largest) / temperature); // one candidate: greedy, perhaps at temperature 0
        sum += one.p;
    }
    for (size_t i = 0; i < n; ++i) {
        cur_p.data[state.ranked[i]].p = (float) (cur_p.data[state.ranked[i]].p / sum);
    }
}

void host_apply(llama_sampler * smpl, llama_token_data_array * cur_p) {
    sampler_state &           state = state_of(smpl);
    const autodeco_decoding   seen  = observed(state);

    const float predicted   = state.user_temperature(seen.temperature);
    const float temperature = state.divided && predicted >= GREEDY_TEMPERATURE ? 1.0f : predicted;
    state.begin_token();
    if (cur_p->size == 0) {
        cur_p->selected = -1;
        state.host_last = undecided(AUTODECO_STATUS_NO_CANDIDATE);
        return;
    }

    state.host_logits.resize(std::max(state.host_logits.size(), cur_p->size));
    for (size_t i = 0; i < cur_p->size; ++i) {
        state.host_logits[i] = cur_p->data[i].logit;
    }
    const nucleus_draw draw = nucleus_sample(state.host_logits.data(), (int64_t) cur_p->size, temperature, state.user_top_p(seen.top_p),
                                             state.uniform, state.host_ws);
    cur_p->selected = std::max(draw.token, 0); // a position in cur_p; llama.cpp aborts on -1
    state.host_last = { cur_p->data[cur_p->selected].id, state.told_temperature(seen.temperature), state.told_top_p(seen.top_p),
                        draw.size, draw.prob, seen.status != 0 ? seen.status : (int32_t) draw.status };
    state.host_drawn = true;
    if (state.tells_probs) {
        tell_probs(state, *cur_p, (size_t) std::max(draw.size, 1), temperature);
    }
}

void host_reset(llama_sampler * smpl) {
    state_of(smpl).restart();
}

llama_sampler_i host_interface = [] {
    llama_sampler_i calls = {};
    calls.name            = host_name;
    calls.accept          = host_accept;
    calls.apply           = host_apply;
    calls.reset           = host_reset;
    calls.clone           = host_clone;
    return calls;
}();

} // namespace

bool is_host_stage(const llama_sampler * smpl) {
    return smpl->iface == &host_temperature_interface || smpl->iface == &host_interface;
}

llama_sampler * new_host_temperature(sampler_state & observer) {
    return llama_sampler_init(&host_temperature_interface, &observer);
}

llama_sampler * new_host_draw(sampler_state & observer) {
    return llama_sampler_init(&host_interface, &observer);
}

llama_token sample_on_host(sampler_state & state, llama_sampler * chain) {
    // Where all are taken, the last one is drawn from once more: another text may begin there.
    state.next_output = std::min(state.next_output, std::max<size_t>(state.n_outputs(), 1) - 1);
    const size_t row  = state.next_output - std::min(state.next_output, state.earlier.size());
    if (row >= state.n_run || state.next_output < state.earlier.size() || state.rows[row].logits.empty()) {
        return LLAMA_TOKEN_NULL;
    }
    const std::vector<float> & logits = state.rows[row].logits;
    state.candidates.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
        state.candidates[i] = { (llama_token) i, logits[i], 0.0f };
    }
    llama_token_data_array cur_p = { state.candidates.data(), state.candidates.size(), -1, false };
    state.begin_token();
    llama_sampler_apply(chain, &cur_p);
    if (cur_p.selected < 0 || cur_p.selected >= (int64_t) cur_p.size) {
        return LLAMA_TOKEN_NULL; // a chain whose last sampler draws nothing
    }
    const llama_token token = cur_p.data[cur_p.selected].id;
    llama_sampler_accept(chain, token);
    return token;
}

} // namespace autodeco

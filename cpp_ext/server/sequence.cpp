#include "sequence.h"

#include "request.h"
#include "sampler_state.h"
#include "serving.h"

#include "common.h"

#include <stdexcept>

namespace autodeco {

namespace {

llama_sampler * new_chain(const serving & from, bool in_graph) {
    llama_sampler * only     = in_graph ? autodeco_sampler_init(from.heads.get(), autodeco_default_params())
                                        : autodeco_sampler_init_observer(from.heads.get(), autodeco_default_params());
    state_of(only).is_served = true;
    llama_sampler * chain    = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, only);
    return chain;
}

} // namespace

sequence::sequence(std::shared_ptr<serving> serving, llama_context * ctx, llama_seq_id id)
    : from(std::move(serving)), ctx(ctx), id(id) {}

void sequence::begin(const common_params_sampling & sampling, bool on_host) {
    const request & asked = *sampling.heads_request;
    attach(!on_host && !shares_row);
    accepted.clear();

    const auto      has         = [&](common_sampler_type sampler) {
        return std::find(sampling.samplers.begin(), sampling.samplers.end(), sampler) != sampling.samplers.end();
    };
    const bool      fixed_t     = asked.fixed_temperature >= 0.0f;
    const bool      fixed_p     = asked.fixed_top_p >= 0.0f;
    const float     temperature = asked.is_greedy() ? 0.0f : fixed_t ? asked.fixed_temperature : asked.temperature_scale;
    state_of(smpl()).tells_probs = sampling.n_probs > 0;
    autodeco_sampler_set_fixed(smpl(), fixed_t, fixed_p);
    autodeco_sampler_set_cuts(smpl(), has(COMMON_SAMPLER_TYPE_TOP_K) ? sampling.top_k : 0, has(COMMON_SAMPLER_TYPE_MIN_P) ? sampling.min_p : 0.0f);
    autodeco_sampler_set_params(smpl(), { sampling.seed, temperature, fixed_p ? asked.fixed_top_p : asked.top_p_scale });
}

void sequence::attach(bool wanted_in_graph) {
    if (chain && in_graph == wanted_in_graph) {
        return; // attaching anew has llama.cpp measure its graphs again
    }
    chain_ptr made(new_chain(*from, wanted_in_graph));
    if (!llama_set_sampler(ctx, id, made.get())) {
        chain.reset();
        throw std::runtime_error("the context takes no sampler, so heads cannot work");
    }
    chain    = std::move(made);
    in_graph = wanted_in_graph;
}

void sequence::leave() {
    if (chain) {
        llama_set_sampler(ctx, id, nullptr);
        chain.reset();
    }
}

llama_sampler * sequence::host_temperature() const {
    return autodeco_sampler_init_host_temperature(smpl());
}

llama_sampler * sequence::host_draw() const {
    return autodeco_sampler_init_host(smpl());
}

void sequence::restart() {
    accepted.clear();
    llama_sampler_reset(smpl());
}

llama_token sequence::drawn(int32_t output) {
    if (!state_of(smpl()).on_device) {
        return llama_get_sampled_token_ith(ctx, output);
    }
    const float * values = llama_get_sampled_probs_ith(ctx, output);
    return values ? take_values(state_of(smpl()), values) : LLAMA_TOKEN_NULL;
}

void sequence::accept(llama_token token) {
    if (in_graph) { // else by the host's stage
        llama_sampler_accept(chain.get(), token);
    }
    accepted.push_back(autodeco_sampler_last(smpl()));
    if (accepted.back().token != token) { // drawn by another sampler
        accepted.back() = undecided(AUTODECO_STATUS_LOST);
        accepted.back().token = token;
    }
}

autodeco_decoding sequence::next() {
    if (accepted.empty()) {
        return undecided(AUTODECO_STATUS_NOT_DECODED);
    }
    const autodeco_decoding decoding = accepted.front();
    accepted.pop_front();
    if (decoding.status == 0) {
        from->count(decoding);
    }
    return decoding;
}

void sequence::take_prediction(const sequence & other) {
    const sampler_state & first = state_of(other.smpl());
    set_only_output(state_of(smpl()), observed(first), first.known_level());
}

std::unique_ptr<sequence::saved> sequence::save() const {
    return std::unique_ptr<saved>(new saved{ { llama_sampler_clone(chain.get()), llama_sampler_free }, accepted.size() });
}

void sequence::restore(const saved & from_then) {
    llama_sampler_copy(from_then.graph.get(), chain.get());
    accepted.resize(std::min(accepted.size(), from_then.n_accepted));
}

} // namespace autodeco

// What the heads do for one slot of the server: the sampler in the graph, and its stages on the host.

#pragma once

#include "autodeco.h"

#include <deque>
#include <memory>
#include <vector>

struct common_params_sampling;

namespace autodeco {

struct serving;

class sequence {
public:
    sequence(std::shared_ptr<serving> serving, llama_context * ctx, llama_seq_id id);

    // An answer begins. `on_host`: samplers are wanted that cannot work in the graph. Called before they are made. Throws
    // std::runtime_error where the context does not take a sampler.
    void begin(const common_params_sampling & sampling, bool on_host);
    // It goes on without the heads: the context has no sampler of ours for this slot.
    void leave();

    bool is_attached() const { return chain != nullptr; }
    bool draws_in_graph() const { return in_graph; }

    // Several answers to one prompt draw their first tokens from one row.
    bool shares_row = false;

    // Stages for the end of the chain on the host.
    llama_sampler * host_temperature() const;
    llama_sampler * host_draw() const;

    // The prompt is done: the random numbers begin anew.
    void restart();
    // The token that the graph drew for an output, by its place in the batch; outputs are asked for in their order. LLAMA_TOKEN_NULL
    // where none was drawn.
    llama_token drawn(int32_t output);
    // A token was taken.
    void accept(llama_token token);
    // What was decided for the oldest token that was accepted and not asked for yet.
    autodeco_decoding next();
    // The prediction that another sequence, whose last row this one draws from too, has for it.
    void take_prediction(const sequence & other);

    // What speculative decoding goes back to.
    struct saved {
        std::shared_ptr<llama_sampler> graph;
        size_t                         n_accepted;
    };
    std::unique_ptr<saved> save() const;
    void restore(const saved & from);

private:
    struct chain_free {
        void operator()(llama_sampler * chain) const { llama_sampler_free(chain); }
    };
    using chain_ptr = std::unique_ptr<llama_sampler, chain_free>;

    void            attach(bool wanted_in_graph);
    llama_sampler * smpl() const { return llama_sampler_chain_get(chain.get(), 0); }

    std::shared_ptr<serving> from;
    llama_context *          ctx;
    llama_seq_id             id;
    chain_ptr                chain; // in the graph; llama.cpp attaches a chain once only
    bool                     in_graph = true;

    std::deque<autodeco_decoding> accepted;
};

} // namespace autodeco

// Many sequences of one context, each with a sampler of its own or none, beside a context that says what each batch gives.

#pragma once

#include "check.h"
#include "decoding.h"
#include "exact.h"

#include "autodeco.h"

#include "kernel/distribution.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <utility>
#include <vector>

class crowd {
public:
    struct member {
        const autodeco_heads * heads; // null: static
        autodeco_params        params;
        int32_t                top_k   = 0;
        float                  min_p   = 0.0f;
        llama_sampler *        chain   = nullptr;
        llama_sampler *        smpl    = nullptr;
        llama_pos              pos     = 0;
        llama_token            next    = 0;
        double                 uniform = 0.0;
        std::mt19937           rng     = std::mt19937();
        autodeco_decoding      last    = {};
        bool                   drawn   = false;

        void next_uniform() { uniform = std::uniform_real_distribution<double>(0.0, 1.0)(rng); }
    };

    crowd(llama_model * model, std::vector<member> them, uint32_t n_outputs_max_per_seq = 1) : members(std::move(them)) {
        ctx    = new_context(model, false, (uint32_t) members.size(), n_outputs_max_per_seq);
        mirror = new_context(model, true, (uint32_t) members.size());
        for (size_t i = 0; i < members.size(); ++i) {
            attach(i);
        }
    }

    ~crowd() {
        llama_free(ctx);
        llama_free(mirror);
        for (member & m : members) {
            llama_sampler_free(m.chain);
        }
    }

    void attach(size_t i) {
        member & m = members[i];
        m.chain    = llama_sampler_chain_init(llama_sampler_chain_default_params());
        m.smpl     = m.heads ? autodeco_sampler_init(m.heads, m.params) : autodeco_sampler_init_static(m.params);
        llama_sampler_chain_add(m.chain, m.smpl);
        autodeco_sampler_set_cuts(m.smpl, m.top_k, m.min_p);
        m.rng.seed(m.params.seed);
        m.next_uniform();
        m.drawn  = false;
        refused += !llama_set_sampler(ctx, (llama_seq_id) i, m.chain);
    }

    void detach(size_t i) {
        llama_set_sampler(ctx, (llama_seq_id) i, nullptr);
        llama_sampler_free(members[i].chain);
        members[i].chain = nullptr;
    }

    // put a prompt but its last token into a sequence, which has then no output to draw from
    void load(size_t i, const std::vector<llama_token> & prompt) {
        const std::vector<llama_token> tokens(prompt.begin(), prompt.end() - 1);
        refused += decode(ctx, tokens, members[i].pos, (llama_seq_id) i, false);
        refused += decode(mirror, tokens, members[i].pos, (llama_seq_id) i, false);
        members[i].pos += (llama_pos) tokens.size();
        members[i].next = prompt.back();
        compare_others({});
    }

    // decode the next token of some sequences, in this order, and look at what is drawn
    void step(const std::vector<size_t> & order) {
        llama_batch batch = llama_batch_init((int32_t) order.size(), 0, 1);
        for (const size_t i : order) {
            batch.token[batch.n_tokens]     = members[i].next;
            batch.pos[batch.n_tokens]       = members[i].pos++;
            batch.n_seq_id[batch.n_tokens]  = 1;
            batch.seq_id[batch.n_tokens][0] = (llama_seq_id) i;
            batch.logits[batch.n_tokens++]  = true;
        }
        refused += llama_decode(ctx, batch) != 0;
        refused += llama_decode(mirror, batch) != 0;
        llama_batch_free(batch);
        for (size_t k = 0; k < order.size(); ++k) {
            compare(members[order[k]], (int32_t) k);
        }
        compare_others(order);
    }

    void compare(member & m, int32_t k) {
        const float * z = llama_get_logits_ith(mirror, k);
        n_vocab         = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
        if (!m.chain) {
            const float * own = llama_get_logits_ith(ctx, k);
            m.next            = (llama_token) (std::max_element(z, z + n_vocab) - z);
            for (int32_t i = 0; own && i < n_vocab; ++i) {
                apart = std::max(apart, (double) std::fabs(own[i] - z[i]) / 100.0);
            }
            refused += !own;
            return;
        }
        m.next  = llama_get_sampled_token_ith(ctx, k);
        m.last  = autodeco_sampler_last(m.smpl);
        m.drawn = true;
        if (m.heads) {
            const exact_prediction p = exact_heads(*m.heads->data, llama_get_embeddings_ith(mirror, k), z);
            apart = std::max({ apart, std::fabs(m.last.temperature - p.temperature), std::fabs(m.last.top_p - p.top_p) });
        }
        drawn += 1;
        const auto [first, last] = expected(m, z);
        unlike += !(z[m.next] <= z[first] && z[m.next] >= z[last]) || m.last.token != m.next || m.last.status != 0;
        llama_sampler_accept(m.chain, m.next);
        m.next_uniform();
    }

    // What the host draws at the temperature and top-p that the sampler tells, for random numbers a little below and above
    // the sampler's: a device adds up in float32 (a CPU, one by one), and a token more or less in the nucleus moves all.
    std::pair<llama_token, llama_token> expected(const member & m, const float * logits) {
        constexpr double   ROUNDING    = 1e-3;
        const float        temperature = m.heads ? m.last.temperature * m.params.temperature : m.params.temperature;
        const float        top_p       = m.heads ? std::min(m.last.top_p * m.params.top_p, 1.0f) : m.params.top_p;
        std::vector<float> z(logits, logits + n_vocab);
        std::vector<float> sorted = z;
        std::sort(sorted.begin(), sorted.end(), std::greater<float>());
        const float least = std::max(m.top_k > 0 ? sorted[m.top_k - 1] : -INFINITY, m.min_p > 0.0f ? sorted[0] + temperature * std::log(m.min_p) : -INFINITY);
        for (float & value : z) {
            value = value < least ? -INFINITY : value;
        }
        const auto draw = [&](double uniform) { return autodeco::nucleus_sample(z.data(), n_vocab, temperature, top_p, uniform, ws).token; };
        return { draw(std::max(0.0, m.uniform - ROUNDING)), draw(std::min(m.uniform + ROUNDING, std::nextafter(1.0, 0.0))) };
    }

    // what the samplers of other sequences tell is what they told before
    void compare_others(const std::vector<size_t> & order) {
        for (size_t i = 0; i < members.size(); ++i) {
            const member & m = members[i];
            if (m.chain && m.drawn && std::find(order.begin(), order.end(), i) == order.end()) {
                const autodeco_decoding now = autodeco_sampler_last(m.smpl);
                disturbed += now.token != m.last.token || now.temperature != m.last.temperature || now.top_p != m.last.top_p;
            }
        }
    }

    void report(const char * who) const {
        printf("%s\n", who);
        check(refused == 0, "every batch decodes", refused);
        check(apart < 1e-3, "each sequence gets its own temperature and top-p, whoever else is in the batch", apart);
        check(drawn > 0 && unlike == 0, "each draws what the host draws for its random number", unlike);
        check(disturbed == 0, "samplers of sequences that are not in the batch are left alone", disturbed);
    }

    std::vector<member> members;

private:
    llama_context *         ctx;
    llama_context *         mirror;
    autodeco::row_workspace ws;
    int32_t                 n_vocab   = 0;
    int                     refused   = 0;
    int                     drawn     = 0;
    int                     unlike    = 0;
    int                     disturbed = 0;
    double                  apart     = 0.0;
};

// Our samplers in chains with others: refused with a status, and never a crash or a token that was not chosen.
//
//   test_chains MODEL.gguf HEADS.gguf

#include "check.h"
#include "decoding.h"
#include "releases.h"

#include "autodeco.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

struct other_sampler {
    const char *                                           name;
    std::function<llama_sampler *(const llama_vocab *)> make;
};

static llama_sampler * chain_of(const std::vector<llama_sampler *> & samplers) {
    llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    for (llama_sampler * each : samplers) {
        llama_sampler_chain_add(chain, each);
    }
    return chain;
}

static const llama_logit_bias BIAS = { 5, 100.0f };

// those that work in the graph, as llama.cpp's own program has them
static const std::vector<other_sampler> IN_GRAPH = {
    { "greedy", [](const llama_vocab *) { return llama_sampler_init_greedy(); } },
    { "dist", [](const llama_vocab *) { return llama_sampler_init_dist(1); } },
    { "top_k 1", [](const llama_vocab *) { return llama_sampler_init_top_k(1); } },
    { "top_k 40", [](const llama_vocab *) { return llama_sampler_init_top_k(40); } },
    { "top_p", [](const llama_vocab *) { return llama_sampler_init_top_p(0.5f, 1); } },
    { "min_p", [](const llama_vocab *) { return llama_sampler_init_min_p(0.1f, 1); } },
    { "temp", [](const llama_vocab *) { return llama_sampler_init_temp(0.5f); } },
    { "temp 0", [](const llama_vocab *) { return llama_sampler_init_temp(0.0f); } },
    { "temp_ext", [](const llama_vocab *) { return llama_sampler_init_temp_ext(0.5f, 0.2f, 1.0f); } },
    { "logit_bias", [](const llama_vocab * v) { return llama_sampler_init_logit_bias(llama_vocab_n_tokens(v), 1, &BIAS); } },
    { "penalties", [](const llama_vocab * v) { return new_penalties(llama_sampler_init_penalties, v); } },
    { "a chain", [](const llama_vocab *) { return chain_of({ llama_sampler_init_top_k(3), llama_sampler_init_temp(0.5f) }); } },
};

static const std::vector<other_sampler> ON_HOST = {
    { "dry", [](const llama_vocab * v) { return new_dry(llama_sampler_init_dry, v); } },
    { "grammar", [](const llama_vocab * v) { return llama_sampler_init_grammar(v, "root ::= [a-z ]+", "root"); } },
    { "typical", [](const llama_vocab *) { return llama_sampler_init_typical(0.5f, 1); } },
    { "xtc", [](const llama_vocab *) { return llama_sampler_init_xtc(1.0f, 0.1f, 1, 1); } },
    { "top_n_sigma", [](const llama_vocab *) { return llama_sampler_init_top_n_sigma(1.0f); } },
    { "mirostat", [](const llama_vocab * v) { return llama_sampler_init_mirostat(llama_vocab_n_tokens(v), 1, 5.0f, 0.1f, 100); } },
    { "mirostat v2", [](const llama_vocab *) { return llama_sampler_init_mirostat_v2(1, 5.0f, 0.1f); } },
    { "infill", [](const llama_vocab * v) { return llama_sampler_init_infill(v); } },
};

static int          n_vocab;
static llama_token  likeliest;
static llama_token  last; // that sampled() gave
static llama_model * model;

static void claim(bool ok, const std::string & what, double value) {
    check(ok, what.c_str(), value);
}

// The token that a chain gives, attached, after a prompt; and again for the token behind it, in the graph that is kept.
static llama_token sampled(llama_sampler * chain) {
    llama_context * ctx = new_context(model, false, 1);
    llama_set_sampler(ctx, 0, chain);
    decode(ctx, PROMPTS[0], 0, 0);
    const llama_token first = llama_sampler_sample(chain, ctx, -1);
    decode(ctx, { first }, (llama_pos) PROMPTS[0].size(), 0);
    const llama_token second = llama_sampler_sample(chain, ctx, -1);
    last                     = second;
    llama_set_sampler(ctx, 0, nullptr);
    llama_free(ctx);
    return std::min(first, second) >= 0 && std::max(first, second) < n_vocab ? first : LLAMA_TOKEN_NULL;
}

static void test_beside_ours(const autodeco_heads * heads, bool has_heads) {
    const llama_vocab * vocab = llama_model_get_vocab(model);
    const auto          ours  = [&] {
        const autodeco_params params = { 1, 1.0f, 1.0f };
        return has_heads ? autodeco_sampler_init(heads, params) : autodeco_sampler_init_static(params);
    };
    for (const other_sampler & other : IN_GRAPH) {
        for (const bool before : { true, false }) {
            llama_sampler *   smpl  = ours();
            llama_sampler *   chain = before ? chain_of({ other.make(vocab), smpl }) : chain_of({ smpl, other.make(vocab) });
            const llama_token token = sampled(chain);
            const int32_t     status = autodeco_sampler_last(smpl).status;
            const std::string where  = std::string(other.name) + (before ? " before ours" : " behind ours");
            if (!autodeco::SEVERAL_OUTPUTS && !before) { // such a release tries no chain: one that draws nothing goes unnoticed
                claim(token != LLAMA_TOKEN_NULL && (status != 0 || last == autodeco_sampler_last(smpl).token), where + ": a status, or the token that is told", status);
                llama_sampler_free(chain);
                continue;
            }
            const bool is_on_host = !autodeco::SEVERAL_OUTPUTS && std::strcmp(other.name, "penalties") == 0;
            claim(token != LLAMA_TOKEN_NULL && status == (is_on_host ? AUTODECO_STATUS_NOT_ATTACHED : AUTODECO_STATUS_NOT_ALONE), where + ": a token of the vocabulary, and a status", status);
            const bool is_certain = std::strcmp(other.name, "dist") != 0;
            const bool is_biased  = std::strcmp(other.name, "logit_bias") == 0 && before;
            claim(!is_certain || token == (is_biased ? BIAS.token : likeliest), where + ": no place in a list is taken for a token", token);
            llama_sampler_free(chain);
        }
    }
    for (const other_sampler & other : ON_HOST) {
        llama_sampler *   smpl   = ours();
        llama_sampler *   chain  = chain_of({ other.make(vocab), smpl });
        const llama_token token  = sampled(chain);
        const int32_t     status = autodeco_sampler_last(smpl).status;
        claim(token != LLAMA_TOKEN_NULL && status == AUTODECO_STATUS_NOT_ATTACHED, std::string(other.name) + " before ours, on the host", status);
        llama_sampler_free(chain);
    }
    llama_sampler * one    = ours();
    llama_sampler * two    = ours();
    llama_sampler * chain  = chain_of({ one, two });
    llama_token     token  = sampled(chain);
    const int32_t   status = autodeco_sampler_last(two).status;
    claim(autodeco_sampler_last(one).status == 0 && token != LLAMA_TOKEN_NULL && status == AUTODECO_STATUS_NOT_ALONE, "of two of ours the first decides", status);
    llama_sampler_free(chain);

    // one that is refused disturbs no other sequence, and decides when it is attached alone
    llama_context * ctx = new_context(model, false, 2);
    one                 = ours();
    two                 = ours();
    llama_sampler * chains[] = { chain_of({ llama_sampler_init_top_k(5), one }), chain_of({ two }) };
    for (int i = 0; i < 2; ++i) {
        llama_set_sampler(ctx, i, chains[i]);
        decode(ctx, PROMPTS[1], 0, i);
        token = llama_sampler_sample(chains[i], ctx, -1);
    }
    claim(autodeco_sampler_last(two).status == 0 && autodeco_sampler_last(two).token == token, "a chain that is refused disturbs no other", token);
    llama_set_sampler(ctx, 0, nullptr);
    llama_sampler_chain_remove(chains[0], 1);
    llama_sampler * alone = chain_of({ one });
    llama_set_sampler(ctx, 0, alone);
    decode(ctx, { 7 }, (llama_pos) PROMPTS[1].size(), 0);
    token = llama_sampler_sample(alone, ctx, -1);
    claim(autodeco_sampler_last(one).status == 0 && autodeco_sampler_last(one).token == token, "one that was refused decides when it is alone", token);
    llama_free(ctx);
    for (llama_sampler * each : { chains[0], chains[1], alone }) {
        llama_sampler_free(each);
    }
}

static void test_beside_an_observer(const autodeco_heads * heads) {
    const llama_vocab * vocab = llama_model_get_vocab(model);
    for (const other_sampler & other : IN_GRAPH) {
        for (const bool before : { true, false }) {
            llama_sampler * observer = autodeco_sampler_init_observer(heads, { 1, 1.0f, 1.0f });
            llama_sampler * chain    = before ? chain_of({ other.make(vocab), observer }) : chain_of({ observer, other.make(vocab) });
            llama_sampler * host     = chain_of({ autodeco_sampler_init_host(observer) });
            llama_context * ctx      = new_context(model, false, 1);
            llama_set_sampler(ctx, 0, chain);
            decode(ctx, PROMPTS[0], 0, 0);
            llama_sampler_sample(host, ctx, -1);
            // one that draws in the graph leaves nothing to the host stage
            std::vector<llama_token_data> data  = { { 0, 1.0f, 0.0f }, { 1, 0.0f, 0.0f } };
            llama_token_data_array        cur_p = { data.data(), data.size(), -1, false };
            llama_sampler_apply(host, &cur_p);
            const autodeco_decoding d = autodeco_sampler_last(observer);
            // such a release has penalties on the host, and what follows them
            const bool    is_on_host = !autodeco::SEVERAL_OUTPUTS && std::strcmp(other.name, "penalties") == 0;
            const int32_t refused    = is_on_host ? AUTODECO_STATUS_NOT_DECODED : AUTODECO_STATUS_NOT_ALONE;
            claim(before ? d.status == refused : d.status == 0 && d.temperature > 0.0f && d.temperature < 2.0f,
                  std::string(other.name) + (before ? " before an observer: a status" : " behind an observer, which sees the logits of the model"), d.status);
            llama_free(ctx);
            for (llama_sampler * each : { chain, host }) {
                llama_sampler_free(each);
            }
        }
    }
}

static void nothing_left(llama_sampler *, llama_token_data_array * cur_p) { cur_p->size = 0; }

static void test_host_chains(const autodeco_heads * heads) {
    llama_sampler * observer = autodeco_sampler_init_observer(heads, { 1, 1.0f, 1.0f });
    const auto      drawn    = [&](llama_sampler * chain) {
        std::vector<llama_token_data> data;
        for (llama_token id = 100; id < 200; ++id) {
            data.push_back({ id, (float) (id % 7), 0.0f });
        }
        autodeco_sampler_observe(observer, 1.5f, 1.0f);
        llama_token_data_array cur_p = { data.data(), data.size(), -1, false };
        llama_sampler_apply(chain, &cur_p);
        if (cur_p.selected < 0 || cur_p.selected >= (int64_t) cur_p.size) {
            return LLAMA_TOKEN_NULL;
        }
        llama_sampler_accept(chain, cur_p.data[cur_p.selected].id);
        return cur_p.data[cur_p.selected].id;
    };
    const auto stage = [&] { return autodeco_sampler_init_host(observer); };

    llama_sampler_i empties = {};
    empties.name            = [](const llama_sampler *) { return "empties"; };
    empties.apply           = nothing_left;

    std::vector<llama_sampler *> chains = { chain_of({ llama_sampler_init_top_k(5), stage() }) };
    llama_token                  token  = drawn(chains.back());
    check(autodeco_sampler_last(observer).status == 0 && autodeco_sampler_last(observer).token == token && token % 7 == 6, "behind a top_k the host stage draws from what is left", token);

    chains.push_back(chain_of({ llama_sampler_init(&empties, nullptr), stage() }));
    token = drawn(chains.back());
    check(token == LLAMA_TOKEN_NULL && autodeco_sampler_last(observer).status == AUTODECO_STATUS_NO_CANDIDATE, "no candidates: a status, and nothing selected", autodeco_sampler_last(observer).status);
    llama_token_data_array none = { nullptr, 0, -1, false };
    llama_sampler_apply(chains.back(), &none);
    check(autodeco_sampler_last(observer).status == AUTODECO_STATUS_NO_CANDIDATE, "nor from no array at all", none.selected);
    chains.push_back(chain_of({ autodeco_sampler_init_host_temperature(observer), llama_sampler_init(&empties, nullptr), stage() }));
    check(drawn(chains.back()) == LLAMA_TOKEN_NULL && autodeco_sampler_last(observer).status == AUTODECO_STATUS_NO_CANDIDATE, "nor behind the temperature", 0);

    // over many draws the other one takes another token than ours at least once
    chains.push_back(chain_of({ stage(), llama_sampler_init_dist(3) }));
    int told = 0, wrong = 0;
    for (int i = 0; i < 40; ++i) {
        token                     = drawn(chains.back());
        const autodeco_decoding d = autodeco_sampler_last(observer);
        told += d.status == AUTODECO_STATUS_NOT_ALONE;
        wrong += d.status == 0 && d.token != token;
    }
    check(told > 0 && wrong == 0, "a sampler that draws behind the host stage is told", told);

    autodeco_sampler_set_params(observer, { 9, 1.0f, 1.0f });
    chains.push_back(chain_of({ autodeco_sampler_init_host_temperature(observer), stage() }));
    token           = drawn(chains.back());
    const float one = autodeco_sampler_last(observer).prob;
    autodeco_sampler_set_params(observer, { 9, 1.0f, 1.0f });
    chains.push_back(chain_of({ autodeco_sampler_init_host_temperature(observer), autodeco_sampler_init_host_temperature(observer), stage() }));
    const llama_token again = drawn(chains.back());
    check(token == again && std::fabs(autodeco_sampler_last(observer).prob - one) < 1e-6f, "two temperature stages divide once", autodeco_sampler_last(observer).prob - one);
    for (llama_sampler * each : chains) {
        llama_sampler_free(each);
    }
    llama_sampler_free(observer);
}

// What was decided is the sampler's own as soon as its token was taken.
static void test_a_context_that_is_gone(const autodeco_heads * heads) {
    for (const bool detaches : { true, false }) {
        llama_sampler * smpl  = autodeco_sampler_init(heads, { 1, 1.0f, 1.0f });
        llama_sampler * chain = chain_of({ smpl });
        llama_context * ctx   = new_context(model, false, 1);
        llama_set_sampler(ctx, 0, chain);
        decode(ctx, PROMPTS[0], 0, 0);
        for (const llama_token read : PROMPTS[0]) {
            llama_sampler_accept(chain, read); // as programs do whose penalties look at the prompt
        }
        const llama_token       token = llama_sampler_sample(chain, ctx, -1);
        const autodeco_decoding then  = autodeco_sampler_last(smpl);
        if (detaches) {
            llama_set_sampler(ctx, 0, nullptr);
            decode(ctx, { token }, (llama_pos) PROMPTS[0].size(), 0); // into another graph, where the old one was
        }
        llama_free(ctx);
        const autodeco_decoding now = autodeco_sampler_last(smpl);
        check(now.status == 0 && now.token == token && !std::memcmp(&now, &then, sizeof(now)), "a decision outlives its context", now.token);

        // a chain is attached once only
        llama_sampler * next = chain_of({ llama_sampler_chain_remove(chain, 0) });
        ctx                  = new_context(model, false, 1);
        llama_set_sampler(ctx, 0, next);
        check(autodeco_sampler_last(smpl).status == AUTODECO_STATUS_NOT_DECODED, "and is none of the next context", autodeco_sampler_last(smpl).status);
        llama_free(ctx);
        for (llama_sampler * each : { chain, next }) {
            llama_sampler_free(each);
        }
    }
}

int main(int argc, char ** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.gguf HEADS.gguf\n", argv[0]);
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    model                  = llama_model_load_from_file(argv[1], llama_model_default_params());
    autodeco_heads * heads = autodeco_heads_load(argv[2], nullptr);
    if (!model || !heads) {
        fprintf(stderr, "cannot load\n");
        return 2;
    }
    n_vocab                = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_sampler * greedy = chain_of({ llama_sampler_init_greedy() });
    likeliest              = sampled(greedy);
    llama_sampler_free(greedy);
    for (const bool has_heads : { true, false }) {
        test_beside_ours(heads, has_heads);
    }
    test_beside_an_observer(heads);
    test_host_chains(heads);
    test_a_context_that_is_gone(heads);
    autodeco_heads_free(heads);
    llama_model_free(model);
    return report();
}

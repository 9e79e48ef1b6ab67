// The sampler on a real model and device, from C++: predictions, distribution, several sequences, life cycle.
//
//   test_sampler MODEL.gguf HEADS.gguf [GPU_LAYERS [no-kv-offload]]
//
// Heads must fit the model; their values are scaled so that the nucleus holds several tokens. Every value is compared with
// the heads run on the host over the hidden state and logits that the same device computed.

#include "check.h"

#include "autodeco.h"

#include "distribution.h"
#include "heads.h"
#include "heads_predict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

static const std::vector<std::vector<llama_token>> PROMPTS = {
    { 1, 504, 3575, 282, 4649, 314 }, { 1, 19, 216, 34, 446, 216, 35, 5 }, { 1, 28, 30, 42 }, { 1, 1000, 2000, 3000, 4000 },
};

struct model_state {
    std::vector<float> hidden;
    std::vector<float> logits;
    float              temperature;
    float              top_p;
};

static bool kv_offload = true;

static llama_context * new_context(llama_model * model, bool embeddings, uint32_t n_seq) {
    llama_context_params params  = llama_context_default_params();
    params.n_ctx                 = 256 * n_seq;
    params.n_batch               = 256;
    params.n_seq_max             = n_seq;
    params.n_threads             = 1;
    params.n_threads_batch       = 1;
    params.embeddings            = embeddings;
    params.offload_kqv           = kv_offload;
    params.n_outputs_max_per_seq = 1;
    return llama_init_from_model(model, params);
}

// decode tokens of one sequence from position `pos`; the last one is an output
static int decode(llama_context * ctx, const std::vector<llama_token> & tokens, llama_pos pos, llama_seq_id seq) {
    llama_batch batch = llama_batch_init((int32_t) tokens.size(), 0, 1);
    for (size_t i = 0; i < tokens.size(); ++i) {
        batch.token[i]     = tokens[i];
        batch.pos[i]       = pos + (llama_pos) i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq;
        batch.logits[i]    = i + 1 == tokens.size();
    }
    batch.n_tokens = (int32_t) tokens.size();
    const int rc = llama_decode(ctx, batch);
    llama_batch_free(batch);
    return rc;
}

// decode prompts as sequences 0, 1, ...: each but for its last token, then all last tokens in one batch
static int decode_prompts(llama_context * ctx, const std::vector<std::vector<llama_token>> & prompts) {
    llama_batch batch = llama_batch_init((int32_t) prompts.size(), 0, 1);
    int         rc    = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
        rc |= decode(ctx, std::vector<llama_token>(prompts[i].begin(), prompts[i].end() - 1), 0, (llama_seq_id) i);
        batch.token[i]     = prompts[i].back();
        batch.pos[i]       = (llama_pos) prompts[i].size() - 1;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = (llama_seq_id) i;
        batch.logits[i]    = true;
    }
    batch.n_tokens = (int32_t) prompts.size();
    rc |= llama_decode(ctx, batch);
    llama_batch_free(batch);
    return rc;
}

// What the heads say on the host of the states behind prompts. Decoded in the batches that the tests use: other batches go
// through other kernels, and quantized weights then give other states.
static std::vector<model_state> states_of(llama_model * model, const autodeco_heads * heads, const std::vector<std::vector<llama_token>> & prompts) {
    llama_context * ctx = new_context(model, true, (uint32_t) prompts.size());
    decode_prompts(ctx, prompts);
    const int32_t            n_embd  = autodeco_heads_n_embd(heads);
    const int32_t            n_vocab = autodeco_heads_n_vocab(heads);
    std::vector<model_state> states(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
        const float * h = llama_get_embeddings_ith(ctx, (int32_t) i);
        const float * z = llama_get_logits_ith(ctx, (int32_t) i);
        states[i].hidden.assign(h, h + n_embd);
        states[i].logits.assign(z, z + n_vocab);
        std::string error;
        if (!autodeco::heads_predict(*heads->data, h, z, 1, n_vocab, &states[i].temperature, &states[i].top_p, error)) {
            fprintf(stderr, "%s\n", error.c_str());
            exit(1);
        }
    }
    llama_free(ctx);
    return states;
}

static llama_sampler * new_chain(const autodeco_heads * heads, autodeco_params params, llama_sampler ** smpl) {
    llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    *smpl                 = autodeco_sampler_init(heads, params);
    llama_sampler_chain_add(chain, *smpl);
    return chain;
}

// probabilities of the nucleus in float64, by a full sort
static std::vector<double> exact(const std::vector<float> & z, double temperature, double top_p) {
    std::vector<int32_t> order(z.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
    std::vector<double> p(z.size(), 0.0);
    double              sum = 0.0;
    for (size_t i = 0; i < z.size(); ++i) {
        p[i] = std::exp(((double) z[i] - z[order[0]]) / temperature);
        sum += p[i];
    }
    double cum = 0.0;
    for (int32_t i : order) {
        if (cum >= top_p * sum) {
            p[i] = 0.0;
        } else {
            cum += p[i];
        }
    }
    for (double & v : p) {
        v /= cum;
    }
    return p;
}

static void test_distribution(llama_model * model, const autodeco_heads * heads) {
    const auto &      prompt = PROMPTS[0];
    const model_state s      = states_of(model, heads, { prompt })[0];
    const float       warm   = 1.5f / s.temperature;
    const float       wide   = 0.9f / s.top_p;

    llama_sampler * smpl;
    llama_sampler * chain = new_chain(heads, { 1, warm, wide }, &smpl);
    llama_context * ctx   = new_context(model, false, 1);
    check(llama_set_sampler(ctx, 0, chain), "the sampler is taken into the graph", 1);

    decode_prompts(ctx, { prompt });
    llama_get_sampled_token_ith(ctx, -1);
    autodeco_decoding d = autodeco_sampler_last(smpl);
    check(std::fabs(d.temperature - s.temperature) < 1e-3, "temperature from the graph is that of the host", d.temperature - s.temperature);
    check(std::fabs(d.top_p - s.top_p) < 1e-3, "top-p from the graph is that of the host", d.top_p - s.top_p);

    // the last token is decoded again and again, each time with another seed
    const std::vector<double> p = exact(s.logits, 1.5, 0.9);
    const int                 n = 600;
    std::vector<int>          counts(p.size(), 0);
    int                       outside = 0;
    for (int i = 0; i < n; ++i) {
        llama_memory_seq_rm(llama_get_memory(ctx), 0, (llama_pos) prompt.size() - 1, -1);
        autodeco_sampler_set_params(smpl, { (uint32_t) i + 1, warm, wide });
        decode(ctx, { prompt.back() }, (llama_pos) prompt.size() - 1, 0);
        const llama_token token = llama_get_sampled_token_ith(ctx, -1);
        llama_sampler_accept(chain, token);
        counts[token] += 1;
        outside += p[token] == 0.0;
    }
    double chi2 = 0.0, rare = 0.0;
    int    cells = 0, n_rare = 0;
    for (size_t i = 0; i < p.size(); ++i) {
        if (p[i] * n >= 5) {
            chi2 += (counts[i] - p[i] * n) * (counts[i] - p[i] * n) / (p[i] * n);
            ++cells;
        } else {
            rare += p[i] * n;
            n_rare += counts[i];
        }
    }
    if (rare >= 5) {
        chi2 += (n_rare - rare) * (n_rare - rare) / rare;
        ++cells;
    }
    const double df = cells - 1;
    // Wilson-Hilferty: normal deviate of a chi-square value; beyond 4 once in 30,000 right programs
    const double deviate = df > 0 ? (std::cbrt(chi2 / df) - (1 - 2 / (9 * df))) / std::sqrt(2 / (9 * df)) : 0.0;
    check(cells > 3, "the nucleus holds several tokens", cells);
    check(deviate < 4, "draws follow the exact distribution (normal deviate)", deviate);
    // the cut itself may fall to either side by a rounding
    check(outside <= n / 200, "draws stay inside the nucleus", outside);

    llama_set_sampler(ctx, 0, nullptr);
    llama_sampler_free(chain);
    llama_free(ctx);
}

static void test_sequences(llama_model * model, const autodeco_heads * heads) {
    const uint32_t n_seq = (uint32_t) PROMPTS.size();

    llama_context *              ctx = new_context(model, false, n_seq);
    std::vector<llama_sampler *> smpl(n_seq);
    std::vector<llama_sampler *> chain(n_seq);
    for (uint32_t i = 0; i < n_seq; ++i) {
        chain[i] = new_chain(heads, { i + 1, i % 2 ? 0.0f : 1.0f, 1.0f }, &smpl[i]);
        llama_set_sampler(ctx, (llama_seq_id) i, chain[i]);
    }
    check(decode_prompts(ctx, PROMPTS) == 0, "several sequences decode in one batch", n_seq);
    const std::vector<model_state> states = states_of(model, heads, PROMPTS);
    double worst  = 0.0;
    int    greedy = 0;
    for (uint32_t i = 0; i < n_seq; ++i) {
        const llama_token       token = llama_get_sampled_token_ith(ctx, (int32_t) i);
        const autodeco_decoding d     = autodeco_sampler_last(smpl[i]);
        const model_state &     s     = states[i];
        worst = std::max({ worst, (double) std::fabs(d.temperature - s.temperature), (double) std::fabs(d.top_p - s.top_p) });
        const auto best = (llama_token) (std::max_element(s.logits.begin(), s.logits.end()) - s.logits.begin());
        greedy += i % 2 == 0 || (token == best && d.nucleus == 1);
    }
    check(worst < 1e-3, "each sequence gets its own temperature and top-p", worst);
    check(greedy == (int) n_seq, "a multiplier of 0 is greedy, for its sequence only", greedy);
    for (uint32_t i = 0; i < n_seq; ++i) {
        llama_set_sampler(ctx, (llama_seq_id) i, nullptr);
        llama_sampler_free(chain[i]);
    }
    llama_free(ctx);
}

static void test_life_cycle(llama_model * model, const char * heads_path) {
    autodeco_error   error;
    autodeco_heads * heads = autodeco_heads_load(heads_path, &error);
    llama_sampler *  smpl;
    llama_sampler *  chain = new_chain(heads, { 7, 3.0f, 5.0f }, &smpl);
    autodeco_heads_free(heads); // samplers keep what they need

    const auto run = [&](llama_sampler * c) {
        llama_context * ctx = new_context(model, false, 1);
        llama_set_sampler(ctx, 0, c);
        decode(ctx, PROMPTS[1], 0, 0);
        std::vector<llama_token> tokens;
        for (int i = 0; i < 8; ++i) {
            tokens.push_back(llama_get_sampled_token_ith(ctx, -1));
            llama_sampler_accept(c, tokens.back());
            decode(ctx, { tokens.back() }, (llama_pos) PROMPTS[1].size() + i, 0);
        }
        llama_set_sampler(ctx, 0, nullptr);
        llama_free(ctx);
        return tokens;
    };
    llama_sampler * twin = llama_sampler_clone(chain);
    const auto      first = run(chain);
    check(run(twin) == first, "a clone draws what its original would have drawn", first[0]);
    llama_sampler_free(chain);
    llama_sampler_free(twin);

    check(autodeco_heads_load("no-such-file.gguf", &error) == nullptr, "a missing file is an error", 0);
    check(std::string(error.message).find("no-such-file.gguf") == 0, "which names the file", 0);
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf HEADS.gguf [GPU_LAYERS [no-kv-offload]]\n", argv[0]);
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers       = argc > 3 ? atoi(argv[3]) : 0;
    kv_offload                = argc <= 4;
    llama_model *    model    = llama_model_load_from_file(argv[1], params);
    autodeco_error   error;
    autodeco_heads * heads = autodeco_heads_load(argv[2], &error);
    if (!model || !heads || !autodeco_heads_fit(heads, model, &error)) {
        fprintf(stderr, "cannot start: %s\n", model ? error.message : "the model does not load");
        return 2;
    }
    test_distribution(model, heads);
    test_sequences(model, heads);
    test_life_cycle(model, argv[2]);
    autodeco_heads_free(heads);
    llama_model_free(model);
    return report();
}

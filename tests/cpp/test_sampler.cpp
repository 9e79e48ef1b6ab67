// The sampler on a real model and device, from C++: predictions, distribution, several sequences, life cycle.
//
//   test_sampler MODEL.gguf HEADS.gguf [GPU_LAYERS [no-kv-offload]]
//
// Heads must fit the model; their values are scaled so that the nucleus holds several tokens. Every value is compared with
// the heads in float64 over the hidden state and logits that the same device computed.

#include "check.h"
#include "crowd.h"
#include "decoding.h"
#include "exact.h"
#include "nodes.h"
#include "releases.h"

#include "autodeco.h"

#include "kernel/distribution.h"
#include "heads.h"
#include "sampler_state.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

struct model_state {
    std::vector<float> logits;
    exact_prediction   predicted;
};

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
    const int32_t            n_vocab = autodeco_heads_n_vocab(heads);
    std::vector<model_state> states(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
        const float * h = llama_get_embeddings_ith(ctx, (int32_t) i);
        const float * z = llama_get_logits_ith(ctx, (int32_t) i);
        states[i].logits.assign(z, z + n_vocab);
        states[i].predicted = exact_heads(*heads->data, h, z);
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


static void test_distribution(llama_model * model, const autodeco_heads * heads) {
    const auto &      prompt = PROMPTS[0];
    const model_state s      = states_of(model, heads, { prompt })[0];
    const float       warm   = 1.5f / (float) s.predicted.temperature;
    const float       wide   = 0.9f / (float) s.predicted.top_p;

    llama_sampler * smpl;
    llama_sampler * chain = new_chain(heads, { 1, warm, wide }, &smpl);
    llama_context * ctx   = new_context(model, false, 1);
    check(llama_set_sampler(ctx, 0, chain), "the sampler is taken into the graph", 1);

    decode_prompts(ctx, { prompt });
    llama_get_sampled_token_ith(ctx, -1);
    autodeco_decoding d = autodeco_sampler_last(smpl);
    check(std::fabs(d.temperature - s.predicted.temperature) < 1e-3, "temperature from the graph is that of the host", d.temperature - s.predicted.temperature);
    check(std::fabs(d.top_p - s.predicted.top_p) < 1e-3, "top-p from the graph is that of the host", d.top_p - s.predicted.top_p);

    // the last token is decoded again and again, each time with another seed
    const std::vector<double> p = exact_nucleus(s.logits, 1.5, 0.9);
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
        worst = std::max({ worst, std::fabs(d.temperature - s.predicted.temperature), std::fabs(d.top_p - s.predicted.top_p) });
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

static std::vector<size_t> all_of(size_t n) {
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    return order;
}

// sequences come and go, in any order, with prompts decoded between
static void test_crowd(llama_model * model, const char * who, const std::vector<crowd::member> & members) {
    crowd        them(model, members);
    const size_t n = members.size();
    for (size_t i = 0; i < n; ++i) {
        std::vector<llama_token> prompt = PROMPTS[i % PROMPTS.size()];
        prompt.back() += (llama_token) i;
        them.load(i, prompt);
    }
    const std::vector<size_t> everybody = all_of(n);
    const std::vector<size_t> backwards(everybody.rbegin(), everybody.rend());
    const std::vector<size_t> some = { 1, 4, 7 };
    them.step(everybody);
    them.step(everybody); // the same graph again
    them.step(some);
    them.step({ 7 });
    them.step({ 2 });
    them.load(3, PROMPTS[2]);
    them.step(backwards);
    them.step(some);
    them.load(4, PROMPTS[0]);
    them.detach(4); // its logits now go to the host, beside rows that do not
    them.step({ 0, 4, 5, 6 });
    them.step({ 4 });
    them.step(backwards);
    them.detach(0); // the first of those in the graph before
    them.step(everybody);
    them.attach(4);
    them.step(some);
    them.attach(0);
    them.step(everybody);
    them.report(who);
}

static void test_crowds(llama_model * model, const autodeco_heads * heads) {
    // other heads, of small weights: far from those that the model has
    auto data = autodeco::random_heads(true, true, true, heads->data->n_vocab, heads->data->n_embd);
    for (auto & [name, tensor] : data->tensors) {
        auto * values = (float *) tensor.bytes.data();
        std::transform(values, values + tensor.bytes.size() / sizeof(float), values, [](float value) { return 0.1f * value; });
    }
    data->take_values();
    const autodeco_heads others = { data };

    std::vector<crowd::member> alike, mixed;
    for (uint32_t i = 0; i < 17; ++i) {
        alike.push_back({ heads, { i + 1, i % 4 ? 0.7f + 0.1f * (float) (i % 4) : 0.0f, 1.0f } });
    }
    for (uint32_t i = 0; i < 10; ++i) {
        const float temperature = i == 3 ? 0.0f : 0.9f;
        mixed.push_back({ i % 3 == 0 ? heads : i % 3 == 1 ? &others : nullptr, { i + 1, temperature, 0.95f } });
        mixed.back().top_k = i % 4 == 1 ? 3 : 0;
        mixed.back().min_p = i % 4 == 2 ? 0.1f : 0.0f;
    }
    test_crowd(model, "17 sequences with the same heads", alike);
    test_crowd(model, "10 sequences with two kinds of heads and without", mixed);
}

// Two tokens of each sequence are outputs at once, as when drafts are checked: each is drawn, with a random number of its own.
static void test_outputs_of_one_sequence(llama_model * model, const autodeco_heads * heads) {
    constexpr int   n_seq  = 3;
    constexpr int   n_each = 2;
    llama_context * ctx    = new_context(model, false, n_seq, n_each);
    llama_context * mirror = new_context(model, true, n_seq);
    llama_batch     batch  = llama_batch_init(n_seq * n_each, 0, 1);
    std::vector<llama_sampler *> chain(n_seq), smpl(n_seq);
    for (int i = 0; i < n_seq; ++i) {
        chain[i] = new_chain(heads, { (uint32_t) i + 1, 1.0f, 1.0f }, &smpl[i]);
        llama_set_sampler(ctx, i, chain[i]);
        for (int k = 0; k < n_each; ++k) {
            batch.token[batch.n_tokens]     = PROMPTS[i][k];
            batch.pos[batch.n_tokens]       = k;
            batch.n_seq_id[batch.n_tokens]  = 1;
            batch.seq_id[batch.n_tokens][0] = i;
            batch.logits[batch.n_tokens++]  = true;
        }
    }
    check(llama_decode(ctx, batch) == 0 && llama_decode(mirror, batch) == 0, "sequences with two outputs each decode", n_each);
    const int32_t           n_vocab = autodeco_heads_n_vocab(heads);
    autodeco::row_workspace ws;
    int                     unlike = 0;
    double                  apart  = 0.0;
    for (int i = 0; i < n_seq; ++i) {
        std::mt19937                           rng((uint32_t) i + 1);
        std::uniform_real_distribution<double> uniform(0.0, 1.0);
        for (int k = 0; k < n_each; ++k) {
            const int32_t row = i * n_each + k;
            const float * z   = llama_get_logits_ith(mirror, row);
            const auto    p   = exact_heads(*heads->data, llama_get_embeddings_ith(mirror, row), z);
            if (k == 0) { // the sampler tells of the first
                const autodeco_decoding d = autodeco_sampler_last(smpl[i]);
                apart = std::max({ apart, std::fabs(d.temperature - p.temperature), std::fabs(d.top_p - p.top_p) });
            }
            const auto host = autodeco::nucleus_sample(z, n_vocab, (float) p.temperature, (float) p.top_p, uniform(rng), ws);
            unlike += llama_get_sampled_token_ith(ctx, row) != host.token;
        }
    }
    check(apart < 1e-3, "a sampler tells of its first output", apart);
    check(unlike <= 1, "every output is drawn from its own row", unlike);
    llama_batch_free(batch);
    llama_free(ctx);
    llama_free(mirror);
    for (llama_sampler * c : chain) {
        llama_sampler_free(c);
    }
}

// A temperature stage that no draw follows, as when a sampler between them throws, says nothing of the next token.
static void test_a_draw_that_fails(const autodeco_heads * heads) {
    llama_sampler * observer = autodeco_sampler_init_observer(heads, { 1, 1.0f, 1.0f });
    llama_sampler * divide   = autodeco_sampler_init_host_temperature(observer);
    llama_sampler * draw     = autodeco_sampler_init_host(observer);
    const auto      prob     = [&] {
        llama_token_data       data[] = { { 0, 2.0f, 0.0f }, { 1, 0.0f, 0.0f } };
        llama_token_data_array cur_p  = { data, 2, -1, false };
        llama_sampler_apply(draw, &cur_p);
        const autodeco_decoding d = autodeco_sampler_last(observer);
        return d.token == 0 ? d.prob : 1.0f - d.prob; // of the likelier
    };
    const auto      at_half = (float) (1.0 / (1.0 + std::exp(-2.0 / 0.5)));
    llama_token_data       lost[] = { { 0, 2.0f, 0.0f }, { 1, 0.0f, 0.0f } };
    llama_token_data_array failed = { lost, 2, -1, false };

    autodeco_sampler_observe(observer, 0.5f, 1.0f);
    llama_sampler_apply(divide, &failed);
    autodeco_sampler_observe(observer, 0.5f, 1.0f);
    const float next = prob();
    check(std::fabs(next - at_half) < 1e-5f, "a temperature stage without a draw leaves the next token its temperature", next - at_half);

    llama_sampler_apply(divide, &failed);
    llama_sampler_reset(draw);
    const float after_reset = prob();
    check(std::fabs(after_reset - at_half) < 1e-5f, "a reset forgets it too", after_reset - at_half);
    for (llama_sampler * each : { divide, draw, observer }) {
        llama_sampler_free(each);
    }
}

// What is told where nothing was decided, and how many samplers a graph makes room for.
static void test_undecided(llama_model * model, const autodeco_heads * heads) {
    bool                             on_device; // where tokens are drawn; heads may be on a device, and draws on the CPU
    const ggml_backend_buffer_type_t buft = [&] {
        llama_sampler * smpl;
        llama_sampler * chain = new_chain(heads, { 1, 1.0f, 1.0f }, &smpl);
        llama_context * ctx   = new_context(model, false, 1);
        llama_set_sampler(ctx, 0, chain);
        const autodeco_decoding d = autodeco_sampler_last(smpl);
        check(d.status == AUTODECO_STATUS_NOT_DECODED && d.token == -1, "a sampler that is attached tells that nothing was decoded", d.status);
        const autodeco::counted_weights & weights = autodeco::state_of(smpl).weights;
        const auto found = weights ? ggml_backend_buffer_get_type(weights->buffer) : nullptr;
        on_device        = autodeco::state_of(smpl).on_device;
        llama_free(ctx);
        llama_sampler_free(chain);
        return found;
    }();
    const auto weights = buft ? heads->data->weights(buft) : nullptr; // the heads of a CPU need no copy of them
    check(!weights || weights->n_samplers == 0, "a sampler that is freed is not counted", weights ? (double) weights->n_samplers : 0.0);

    llama_context * ctx = new_context(model, false, 2);
    llama_sampler * smpl[2];
    llama_sampler * chain[2];
    for (int i = 0; i < 2; ++i) {
        chain[i] = new_chain(heads, { (uint32_t) i + 1, 1.0f, 1.0f }, &smpl[i]);
        llama_set_sampler(ctx, i, chain[i]);
    }
    check(!weights || weights->n_samplers == 2, "two samplers count as two, whoever else holds the weights", weights ? (double) weights->n_samplers : 2.0);

    decode_prompts(ctx, { PROMPTS[0], PROMPTS[1] });
    llama_synchronize(ctx);
    llama_set_sampler(ctx, 1, nullptr); // nobody has asked what it decided; on a device the other one holds its row too
    decode(ctx, { 5 }, (llama_pos) PROMPTS[0].size(), 0);
    const autodeco_decoding kept = autodeco_sampler_last(smpl[0]);
    check(kept.status == 0 && kept.temperature > 0.0f, "the sampler that stays tells what it decided", kept.temperature);
    const autodeco_decoding d = autodeco_sampler_last(smpl[1]);
    check(on_device ? d.status == AUTODECO_STATUS_LOST : d.status == 0 && d.temperature > 0.0f, "one that was detached tells it, or that it is lost", d.status);
    llama_free(ctx);
    for (llama_sampler * each : chain) {
        llama_sampler_free(each);
    }
    check(!weights || weights->n_samplers == 0, "none is left", weights ? (double) weights->n_samplers : 0.0);
}

// A program may take tokens by llama_sampler_sample alone, which does not accept them in every release.
static void test_tokens_that_nobody_accepts(llama_model * model, const autodeco_heads * heads) {
    const auto run = [&](bool by_hand) {
        llama_sampler * smpl;
        llama_sampler * chain = new_chain(heads, { 11, 3.0f, 5.0f }, &smpl);
        llama_context * ctx   = new_context(model, false, 1);
        llama_set_sampler(ctx, 0, chain);
        decode(ctx, PROMPTS[1], 0, 0);
        std::vector<llama_token> tokens;
        for (int i = 0; i < 12; ++i) {
            tokens.push_back(by_hand ? llama_get_sampled_token_ith(ctx, -1) : llama_sampler_sample(chain, ctx, -1));
            if (by_hand) {
                llama_sampler_accept(chain, tokens.back());
            }
            decode(ctx, { tokens.back() }, (llama_pos) PROMPTS[1].size() + i, 0);
        }
        llama_set_sampler(ctx, 0, nullptr);
        llama_free(ctx);
        llama_sampler_free(chain);
        return tokens;
    };
    const std::vector<llama_token> tokens = run(true);
    check(run(false) == tokens, "llama_sampler_sample draws what is drawn where every token is accepted", tokens[0]);
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
    llama_sampler * twin  = llama_sampler_clone(chain);
    llama_sampler * other = llama_sampler_clone(chain);
    autodeco_sampler_set_params(llama_sampler_chain_get(other, 0), { 8, 1.0f, 1.0f });
    llama_sampler * from = llama_sampler_chain_get(twin, 0);
    if (autodeco::SEVERAL_OUTPUTS) {
        copy_sampler(from, llama_sampler_chain_get(other, 0), 0);
    }
    const auto first = run(chain);
    check(run(twin) == first, "a clone draws what its original would have drawn", first[0]);
    check((run(other) == first) == autodeco::SEVERAL_OUTPUTS, "so does a sampler that takes its state, whatever its seed and settings were", first[0]);
    llama_sampler * again = llama_sampler_clone(chain);
    llama_sampler_reset(again);
    check(run(again) == first, "a sampler that is reset begins its random numbers again", first[0]);
    for (llama_sampler * each : { chain, twin, other, again }) {
        llama_sampler_free(each);
    }

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
    test_crowds(model, heads);
    if (autodeco::SEVERAL_OUTPUTS) {
        test_outputs_of_one_sequence(model, heads);
    }
    test_a_draw_that_fails(heads);
    test_undecided(model, heads);
    test_tokens_that_nobody_accepts(model, heads);
    test_life_cycle(model, argv[2]);
    autodeco_heads_free(heads);
    llama_model_free(model);
    return report();
}

// Several outputs of one sequence in a decode, as when drafts are checked: each has its own temperature, top-p and draw.
//
//   test_drafts MODEL.gguf HEADS.gguf
//
// A second context decodes the same batches, for the hidden states and logits that the host's heads and draws need.

#include "check.h"
#include "decoding.h"
#include "exact.h"
#include "releases.h"

#include "autodeco.h"

#include "kernel/distribution.h"
#include "heads.h"
#include "sampler_state.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

static constexpr uint32_t N_OUTPUTS = 5;
static constexpr size_t   LENGTH    = 22; // tokens of a text

struct uniforms {
    explicit uniforms(uint32_t seed) : rng(seed) {}
    double next() { return std::uniform_real_distribution<double>(0.0, 1.0)(rng); }
    std::mt19937 rng;
};

// A sequence that a sampler draws, and what it should draw.
struct drafting {
    drafting(llama_model * model, const autodeco_heads * heads, uint32_t n_ubatch, autodeco_params params) :
        heads(heads), params(params), random(params.seed) {
        ctx    = open(model, n_ubatch, false);
        mirror = open(model, n_ubatch, true);
        chain  = llama_sampler_chain_init(llama_sampler_chain_default_params());
        smpl   = autodeco_sampler_init(heads, params);
        llama_sampler_chain_add(chain, smpl);
        refused += !llama_set_sampler(ctx, 0, chain);
        read(PROMPTS[0], false);
    }

    drafting(const drafting &) = delete;
    drafting & operator=(const drafting &) = delete;

    ~drafting() {
        llama_free(ctx);
        llama_free(mirror);
        llama_sampler_free(chain);
    }

    static llama_context * open(llama_model * model, uint32_t n_ubatch, bool embeddings) {
        llama_context_params p  = llama_context_default_params();
        p.n_ctx                 = 256;
        p.n_batch               = 256;
        p.n_ubatch              = n_ubatch;
        p.n_threads             = 1;
        p.n_threads_batch       = 1;
        p.embeddings            = embeddings;
        autodeco::set_outputs_per_sequence(p, embeddings ? 0 : N_OUTPUTS, 0);
        return llama_init_from_model(model, p);
    }

    // decode tokens as the next ones, all outputs or the last one only
    void read(const std::vector<llama_token> & tokens, bool all_outputs) {
        llama_batch batch = llama_batch_init((int32_t) tokens.size(), 0, 1);
        for (size_t i = 0; i < tokens.size(); ++i) {
            batch.token[i]     = tokens[i];
            batch.pos[i]       = pos + (llama_pos) i;
            batch.n_seq_id[i]  = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i]    = all_outputs || i + 1 == tokens.size();
        }
        batch.n_tokens = (int32_t) tokens.size();
        refused += llama_decode(ctx, batch) != 0;
        refused += llama_decode(mirror, batch) != 0;
        first_output = all_outputs ? 0 : (int32_t) tokens.size() - 1; // of the mirror, whose every token is one
        pos += (llama_pos) tokens.size();
        llama_batch_free(batch);
    }

    void forget(llama_pos n) {
        pos -= n;
        llama_memory_seq_rm(llama_get_memory(ctx), 0, pos, -1);
        llama_memory_seq_rm(llama_get_memory(mirror), 0, pos, -1);
    }

    // take the token of output i; `uniform` is the random number that it should be of
    llama_token take(int32_t i, double uniform, bool is_lost = false) {
        const llama_token token = llama_get_sampled_token_ith(ctx, output_index(i));
        llama_sampler_accept(chain, token);
        const autodeco_decoding d = autodeco_sampler_last(smpl);
        const float * z           = llama_get_logits_ith(mirror, first_output + i);
        const auto    p           = exact_heads(*heads->data, llama_get_embeddings_ith(mirror, first_output + i), z);
        if (is_lost) {
            wrong += d.status != AUTODECO_STATUS_LOST;
        } else {
            wrong += d.status != 0 || d.token != token;
            apart  = std::max({ apart, std::fabs(d.temperature - p.temperature), std::fabs(d.top_p - p.top_p) });
        }
        const auto draw = [&](double u) {
            const auto temperature = (float) p.temperature * params.temperature;
            return autodeco::nucleus_sample(z, autodeco_heads_n_vocab(heads), temperature, std::min(1.0f, (float) p.top_p * params.top_p), u, ws).token;
        };
        // a device adds up in float32, and a token more or less in the nucleus moves all
        const llama_token low = draw(std::max(0.0, uniform - 1e-3)), high = draw(std::min(uniform + 1e-3, std::nextafter(1.0, 0.0)));
        unlike += !(z[token] <= z[low] && z[token] >= z[high]);
        seen.push_back(d);
        return token;
    }

    // outputs are counted among the tokens of the batch
    int32_t output_index(int32_t i) const { return first_output + i; }

    const autodeco_heads *         heads;
    autodeco_params                params;
    uniforms                       random;
    llama_context *                ctx;
    llama_context *                mirror;
    llama_sampler *                chain;
    llama_sampler *                smpl;
    llama_pos                      pos          = 0;
    int32_t                        first_output = 0;
    autodeco::row_workspace        ws;
    std::vector<autodeco_decoding> seen;
    int                            refused = 0, wrong = 0, unlike = 0;
    double                         apart = 0.0;
};

// Write a text by drafts of which some are right: `guess` gives that of a token by its place in the text.
static std::vector<llama_token> write(drafting & d, size_t n, bool loses, const std::function<llama_token(size_t)> & guess, int & accepted) {
    std::vector<llama_token> text = { d.take(0, d.random.next()) };
    accepted = 0;
    while (text.size() < n) {
        std::vector<llama_token> batch = { text.back() };
        const size_t n_draft = text.size() % N_OUTPUTS;
        for (size_t i = 0; i < n_draft; ++i) {
            batch.push_back(guess(text.size() + i));
        }
        if (text.size() % 2) { // the same with a word about the draft before, and without
            autodeco_sampler_expect(d.smpl, batch.data() + 1, n_draft);
        }
        d.read(batch, true);
        size_t i = 0;
        for (;; ++i) {
            const bool is_lost = loses && i + 2 < batch.size() + batch.size() % 2; // in a graph of two rows before the last
            text.push_back(d.take((int32_t) i, d.random.next(), is_lost));
            if (i + 1 == batch.size() || text.back() != batch[i + 1]) {
                break;
            }
            ++accepted;
        }
        d.forget((llama_pos) (batch.size() - 1 - i));
    }
    text.resize(n);
    return text;
}

static void test_texts(llama_model * model, const autodeco_heads * heads, const autodeco_params params) {
    const auto without   = [](size_t) { return 7; };
    const bool is_greedy = params.temperature == 0.0f;
    int        accepted;
    drafting   plain(model, heads, 256, params);
    std::vector<llama_token> text = { plain.take(0, plain.random.next()) };
    while (text.size() < LENGTH) {
        plain.read({ text.back() }, true);
        text.push_back(plain.take(0, plain.random.next()));
    }
    check(plain.refused + plain.wrong + plain.unlike == 0, "a text without drafts is that of its random numbers", plain.unlike);
    const bool on_device = autodeco::state_of(plain.smpl).on_device;
    for (const uint32_t n_ubatch : { 256u, 2u }) { // one graph a decode, or up to three
        printf("%u tokens a graph\n", n_ubatch);
        drafting   right(model, heads, n_ubatch, params);
        const bool loses = on_device && n_ubatch == 2; // what a device has decided goes with the next graph
        const auto drafted = write(right, LENGTH, loses, [&](size_t i) { return i % 7 == 5 || i >= text.size() ? 3 : text[i]; }, accepted);
        check(right.refused == 0 && right.wrong == 0, "every output has its decision, which is that of its token", right.wrong);
        check(right.apart < 1e-3, "every output has its own temperature and top-p", right.apart);
        check(right.unlike == 0, "accepted token i is of random number i, whatever was drafted", right.unlike);
        if (is_greedy) { // else a rounding of other batches draws another token now and then
            check(drafted == text && accepted > 8, "the text is that without drafts, most of which are accepted", accepted);
        }
    }
    drafting poor(model, heads, 256, params);
    const auto alone = write(poor, LENGTH, false, without, accepted);
    if (is_greedy) {
        check(alone == text, "drafts that are wrong change nothing either", accepted);
    }
    check(poor.apart < 1e-3 && poor.wrong + poor.unlike == 0, "drafts that are wrong leave accepted tokens their values", poor.apart);
}

// Behind the first token that the draft has not, a CPU computes nothing.
static void test_what_a_draft_spares(llama_model * model, const autodeco_heads * heads, const autodeco_params params) {
    for (const uint32_t n_ubatch : { 256u, 2u }) {
        drafting d(model, heads, n_ubatch, params);
        d.take(0, d.random.next());
        const llama_token wrong[] = { -2, -2, -2, -2 };
        autodeco_sampler_expect(d.smpl, wrong, 4);
        d.read({ 11, 12, 13, 14, 15 }, true);
        const autodeco::sampler_state & state = autodeco::state_of(d.smpl);
        llama_synchronize(d.ctx);
        if (!state.on_device) {
            int computed = 0;
            for (size_t i = 0; i < state.n_outputs(); ++i) {
                computed += (i < state.earlier.size() ? state.earlier[i] : state.rows[i - state.earlier.size()].last).status == 0;
            }
            check(computed == 1 && state.n_outputs() == 5, "outputs behind a token that the draft has not are not computed", computed);
        }
        d.take(0, d.random.next(), state.on_device && n_ubatch == 2);
        d.forget(4);
        d.read({ 16, 17 }, true); // with no word about its draft
        d.take(0, d.random.next());
        d.take(1, d.random.next());
        check(d.wrong + d.unlike == 0 && d.apart < 1e-3, "the next decode computes all of its own", d.wrong);
    }
}

// llama-server takes a copy, accepts a part of a draft that its memory cannot forget, and takes all back.
static void test_states_that_are_taken_back(llama_model * model, const autodeco_heads * heads, const autodeco_params params) {
    drafting          d(model, heads, 256, params);
    const double      u[] = { d.random.next(), d.random.next(), d.random.next(), d.random.next() };
    const llama_token first = d.take(0, u[0]);
    d.read({ first, 11, 12 }, true);
    llama_sampler *   saved = llama_sampler_clone(d.chain);
    const llama_token one = d.take(0, u[1]), two = d.take(1, u[2]);
    copy_sampler(saved, d.chain, 0);
    check(d.take(0, u[1]) == one && d.take(1, u[2]) == two, "the same outputs are accepted again", one);
    copy_sampler(saved, d.chain, 0);
    d.forget(3);
    d.read({ first, 11 }, true);
    check(d.take(0, u[1]) == one && d.take(1, u[2]) == two, "outputs that are decoded again draw the same tokens", two);
    d.read({ two }, true);
    d.take(0, u[3]);
    check(d.unlike == 0 && d.wrong == 0 && d.apart < 1e-3, "and random numbers go on behind them", d.unlike);
    llama_sampler_free(saved);
}

static void test_outputs_that_are_not_sampled(llama_model * model, const autodeco_heads * heads, const autodeco_params params) {
    drafting d(model, heads, 256, params); // the output of the prompt is left
    autodeco_sampler_discard(d.smpl);
    d.read({ 21, 22 }, true);
    const double first = d.random.next();
    d.take(0, first);
    check(d.unlike == 0 && d.wrong == 0, "a decode that is discarded uses no random number", d.unlike);

    d.read({ 31, 32, 33 }, true);
    d.random.next();
    d.random.next();
    d.take(2, d.random.next()); // those before are left out
    d.read({ 41 }, true);
    d.take(0, d.random.next());
    check(d.unlike == 0 && d.wrong == 0 && d.apart < 1e-3, "outputs that are left out use theirs", d.unlike);

    autodeco_sampler_set_params(d.smpl, params); // begins again, and needs no word
    d.read({ 51 }, true);
    autodeco_sampler_set_params(d.smpl, params);
    d.read({ 52 }, true);
    d.take(0, first);
    check(d.unlike == 0 && d.wrong == 0, "new settings begin with the first random number", d.unlike);
}

// An observer tells temperature and top-p of each output to the stages on the host.
static void test_observer(llama_model * model, const autodeco_heads * heads, const autodeco_params params) {
    drafting d(model, heads, 256, params);
    llama_set_sampler(d.ctx, 0, nullptr);
    llama_sampler * attached = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler * observer = autodeco_sampler_init_observer(heads, params);
    llama_sampler_chain_add(attached, observer);
    llama_sampler * host = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(host, autodeco_sampler_init_host_temperature(observer));
    llama_sampler_chain_add(host, autodeco_sampler_init_host(observer));
    check(llama_set_sampler(d.ctx, 0, attached), "an observer is attached", 1);
    for (int round = 0; round < 2; ++round) {
        d.read({ 61, 62, 63, 64 }, true);
        for (int32_t i = 0; i < 3; ++i) {
            const llama_token       token = llama_sampler_sample(host, d.ctx, d.output_index(i));
            const autodeco_decoding last  = autodeco_sampler_last(observer);
            const float *           z     = llama_get_logits_ith(d.mirror, i);
            const auto              p     = exact_heads(*heads->data, llama_get_embeddings_ith(d.mirror, i), z);
            d.apart  = std::max({ d.apart, std::fabs(last.temperature - p.temperature), std::fabs(last.top_p - p.top_p) });
            const auto draw = autodeco::nucleus_sample(z, autodeco_heads_n_vocab(heads), (float) p.temperature * params.temperature,
                                                       std::min(1.0f, (float) p.top_p * params.top_p), d.random.next(), d.ws);
            d.unlike += draw.token != token;
        }
    }
    check(d.refused == 0 && d.apart < 1e-3, "an observer has temperature and top-p of each output", d.apart);
    check(d.unlike <= 1, "each is drawn with them", d.unlike); // the cut itself may fall to either side by a rounding
    llama_set_sampler(d.ctx, 0, nullptr);
    llama_sampler_free(host);
    llama_sampler_free(attached);
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf HEADS.gguf\n", argv[0]);
        return 2;
    }
    if (!autodeco::SEVERAL_OUTPUTS) {
        check(true, "one output of a sequence at a time: there are no drafts to draw from");
        return report();
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model *    model = llama_model_load_from_file(argv[1], llama_model_default_params());
    autodeco_error   error;
    autodeco_heads * heads = autodeco_heads_load(argv[2], &error);
    if (!model || !heads || !autodeco_heads_fit(heads, model, &error)) {
        fprintf(stderr, "cannot start: %s\n", model ? error.message : "the model does not load");
        return 2;
    }
    for (const autodeco_params params : { autodeco_params{ 4, 1.5f, 5.0f }, autodeco_params{ 5, 0.0f, 1.0f } }) {
        test_texts(model, heads, params);
    }
    for (const autodeco_params params : { autodeco_params{ 3, 1.0f, 1.0f }, autodeco_params{ 4, 1.5f, 5.0f } }) {
        test_what_a_draft_spares(model, heads, params);
        test_states_that_are_taken_back(model, heads, params);
        test_outputs_that_are_not_sampled(model, heads, params);
        test_observer(model, heads, params);
    }
    autodeco_heads_free(heads);
    llama_model_free(model);
    return report();
}

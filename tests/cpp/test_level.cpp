// The level of an answer: read at the state that its first token is drawn from, kept over all of it, and read anew by the next.
//
//   test_level MODEL.gguf HEADS.gguf
//
// The heads of the file get a control head of random weights. A second context decodes the same batches, for the hidden
// states and logits that levels and predictions are computed from in float64.

#include "check.h"
#include "decoding.h"
#include "exact.h"
#include "nodes.h"
#include "releases.h"

#include "autodeco.h"

#include "control.h"
#include "device_nucleus.h"
#include "heads.h"
#include "sampler_state.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

using namespace autodeco;

static constexpr uint32_t N_OUTPUTS = 4;

// Sequences of one context with a sampler each, all with the same heads.
struct answers {
    answers(llama_model * model, const autodeco_heads & heads, uint32_t n_seq, bool observes = false) : heads(heads) {
        ctx    = new_context(model, false, n_seq, N_OUTPUTS);
        mirror = new_context(model, true, n_seq);
        for (uint32_t i = 0; i < n_seq; ++i) {
            const autodeco_params params = { i + 1, 1.0f, 1.0f };
            chain.push_back(llama_sampler_chain_init(llama_sampler_chain_default_params()));
            smpl.push_back(observes ? autodeco_sampler_init_observer(&heads, params) : autodeco_sampler_init(&heads, params));
            llama_sampler_chain_add(chain[i], smpl[i]);
            refused += !llama_set_sampler(ctx, (llama_seq_id) i, chain[i]);
            pos.push_back(0);
            level.push_back(NAN);
        }
        if (observes) {
            host = llama_sampler_chain_init(llama_sampler_chain_default_params());
            llama_sampler_chain_add(host, autodeco_sampler_init_host(smpl[0]));
        }
    }

    answers(const answers &) = delete;
    answers & operator=(const answers &) = delete;

    ~answers() {
        llama_free(ctx);
        llama_free(mirror);
        llama_sampler_free(host);
        for (llama_sampler * each : chain) {
            llama_sampler_free(each);
        }
    }

    // a sequence and its next tokens, whose last `n_outputs` are outputs
    struct part {
        llama_seq_id             seq;
        std::vector<llama_token> tokens;
        size_t                   n_outputs;
    };

    void read(const std::vector<part> & parts) {
        llama_batch batch = llama_batch_init(256, 0, 1);
        rows.clear();
        for (const part & each : parts) {
            for (size_t i = 0; i < each.tokens.size(); ++i) {
                batch.token[batch.n_tokens]     = each.tokens[i];
                batch.pos[batch.n_tokens]       = pos[each.seq]++;
                batch.n_seq_id[batch.n_tokens]  = 1;
                batch.seq_id[batch.n_tokens][0] = each.seq;
                batch.logits[batch.n_tokens]    = i + each.n_outputs >= each.tokens.size();
                if (batch.logits[batch.n_tokens]) {
                    rows.push_back(batch.n_tokens);
                }
                ++batch.n_tokens;
            }
        }
        refused += llama_decode(ctx, batch) != 0;
        refused += llama_decode(mirror, batch) != 0;
        llama_batch_free(batch);
    }

    // the level that the next output would read: output `i` of the last batch
    double read_level(size_t i) const { return exact_level(*heads.data, llama_get_embeddings_ith(mirror, rows[i])); }

    // Take the token of output i, which is of sequence `seq` and steered by its level.
    llama_token take(llama_seq_id seq, size_t i) {
        if (std::isnan(level[seq])) {
            level[seq] = read_level(i);
        }
        const llama_token token = host ? llama_sampler_sample(host, ctx, rows[i]) : llama_get_sampled_token_ith(ctx, rows[i]);
        if (!host) {
            llama_sampler_accept(chain[seq], token);
        }
        const autodeco_decoding d = autodeco_sampler_last(smpl[seq]);
        const float *           z = llama_get_logits_ith(mirror, rows[i]);
        const exact_prediction  p = exact_heads(*heads.data, llama_get_embeddings_ith(mirror, rows[i]), z);
        const exact_prediction  s = heads.data->has_control ? exact_steered(*heads.data, p, level[seq]) : p;
        wrong += d.status != 0 || d.token != token;
        apart  = std::max({ apart, std::fabs(d.temperature - s.temperature), std::fabs(d.top_p - s.top_p) });
        moved  = std::max(moved, std::fabs(s.temperature - p.temperature));
        seen.push_back(d);
        return token;
    }

    // Take another token than the one that was drawn from output i, as programs do that write the first words themselves.
    llama_token take_another(llama_seq_id seq, size_t i) {
        level[seq]              = read_level(i);
        const llama_token token = llama_get_sampled_token_ith(ctx, rows[i]) == 5 ? 6 : 5;
        llama_sampler_accept(chain[seq], token);
        return token;
    }

    void begin(llama_seq_id seq, float given = NAN) {
        autodeco_sampler_set_level(smpl[seq], given);
        level[seq] = given;
    }

    void report(const char * claim) {
        check(refused + wrong == 0, "all is decoded and drawn", refused + wrong);
        check(apart < 1e-3, claim, apart);
        check(moved > 0.02, "which is not what was predicted", moved);
    }

    const autodeco_heads &         heads;
    llama_context *                ctx;
    llama_context *                mirror;
    std::vector<llama_sampler *>   chain, smpl;
    llama_sampler *                host = nullptr;
    std::vector<llama_pos>         pos;
    std::vector<double>            level;
    std::vector<int32_t>           rows; // of the last batch, that are outputs
    std::vector<autodeco_decoding> seen;
    int                            refused = 0, wrong = 0;
    double                         apart = 0.0, moved = 0.0;
};

static void test_whole_answers(llama_model * model, const autodeco_heads & heads, bool observes) {
    answers            a(model, heads, 1, observes);
    std::vector<double> levels;
    for (const auto & prompt : PROMPTS) {
        a.begin(0);
        a.read({ { 0, prompt, 1 } });
        for (int i = 0; i < 6; ++i) {
            a.read({ { 0, { a.take(0, 0) }, 1 } });
        }
        levels.push_back(a.level[0]);
        a.take(0, 0);
    }
    const auto [low, high] = std::minmax_element(levels.begin(), levels.end());
    check(*high - *low > 0.05, "prompts have levels of their own", *high - *low);
    a.report(observes ? "an observer tells what the level of the first state makes of every prediction" : "the first state's level steers a whole answer");
}

// every way to begin an answer, with a prompt in two pieces of which each has an output
static void test_new_answers(llama_model * model, const autodeco_heads & heads) {
    answers a(model, heads, 1);
    for (int way = 0; way < 6; ++way) {
        if (way % 3 == 0) {
            llama_sampler_reset(a.chain[0]);
        } else if (way % 3 == 1) {
            autodeco_sampler_set_params(a.smpl[0], { 9, 1.0f, 1.0f });
        } else {
            autodeco_sampler_set_level(a.smpl[0], NAN);
        }
        a.level[0] = NAN;
        if (way > 2) { // tokens of a prompt are accepted before it is read, by programs whose other samplers want them
            llama_sampler_accept(a.chain[0], PROMPTS[1][0]);
        }
        a.read({ { 0, PROMPTS[(size_t) way % 4], 1 } });
        autodeco_sampler_discard(a.smpl[0]);
        a.read({ { 0, PROMPTS[(size_t) (way + 1) % 4], 1 } });
        if (way > 2) {
            llama_sampler_reset(a.chain[0]); // as a server does once the prompt is read
        }
        const llama_token first = a.take(0, 0); // the whole answer, every other time
        if (way % 2) {
            a.read({ { 0, { first }, 1 } });
            a.read({ { 0, { a.take(0, 0) }, 1 } });
        }
    }
    a.report("a reset, new settings and a level that is taken back begin a new answer");
}

static void test_given_levels(llama_model * model, const autodeco_heads & heads) {
    answers a(model, heads, 1);
    a.read({ { 0, PROMPTS[0], 1 } });
    a.read({ { 0, { a.take(0, 0) }, 1 } });
    a.take(0, 0);
    for (const float level : { -1.0f, 1.0f, -0.25f, 0.5f, 0.0f }) {
        a.begin(0, level);
        a.read({ { 0, { 5 }, 1 } });
        a.read({ { 0, { a.take(0, 0) }, 1 } });
        a.take(0, 0);
    }
    a.begin(0, 7.0f); // cut to 1
    a.level[0] = 1.0;
    a.read({ { 0, { 5 }, 1 } });
    a.take(0, 0);
    a.report("a level that is given steers in the place of the one that is read");
}

// answers whose first token is another than the one that was drawn
static void test_other_tokens(llama_model * model, const autodeco_heads & heads) {
    answers a(model, heads, 2);
    a.read({ { 0, PROMPTS[0], 1 }, { 1, PROMPTS[1], 1 } });
    const llama_token second = a.take_another(1, 1), first = a.take_another(0, 0);
    a.read({ { 0, { first }, 1 }, { 1, { second }, 1 } });
    a.take(0, 0);
    a.take(1, 1);
    a.read({ { 0, { first }, 1 } }); // whose token is not taken, and happens to be the next prompt's
    const llama_token next = llama_get_sampled_token_ith(a.ctx, a.rows[0]);
    a.begin(0);
    llama_sampler_accept(a.chain[0], next);
    a.read({ { 0, PROMPTS[2], 1 } });
    a.take(0, 0);
    a.report("the first state's level steers an answer whose first token is not the one that was drawn");
}

// sequences begin their answers in different batches, each by its own prompt
static void test_sequences(llama_model * model, const autodeco_heads & heads) {
    answers a(model, heads, 3);
    a.read({ { 0, PROMPTS[0], 1 }, { 1, PROMPTS[1], 1 } });
    const llama_token first = a.take(0, 0), second = a.take(1, 1);
    a.read({ { 0, { first }, 1 }, { 1, { second }, 1 }, { 2, PROMPTS[2], 1 } });
    const llama_token third = a.take(2, 2);
    a.take(1, 1);
    a.take(0, 0);
    a.begin(1);
    a.read({ { 2, { third }, 1 }, { 1, PROMPTS[3], 1 }, { 0, { first }, 1 } });
    a.take(0, 2);
    a.take(1, 1);
    a.take(2, 0);
    check(std::fabs(a.level[0] - a.level[2]) > 0.01, "sequences have levels of their own", a.level[0] - a.level[2]);
    a.report("each sequence is steered by its own answer's level");
}

// Drafts, behind the first token too: in one graph with it, all are steered by the level of the first output.
static void test_drafts(llama_model * model, const autodeco_heads & heads) {
    answers a(model, heads, 2);
    a.read({ { 1, { 3, 4, 5 }, 1 }, { 0, PROMPTS[0], 3 } });
    check(std::fabs(a.read_level(1) - a.read_level(2)) > 0.01, "a drafted row would read another level", a.read_level(1) - a.read_level(2));
    for (size_t i = 1; i < 4; ++i) {
        a.take(0, i);
    }
    a.take(1, 0);
    a.read({ { 0, { 7, 8, 9, 10 }, 4 }, { 1, { 6 }, 1 } });
    for (size_t i = 0; i < 4; ++i) {
        a.take(0, i);
    }
    a.take(1, 4);
    a.report("drafted tokens are steered by the first state's level");
}

// What copies carry: an answer that is under way keeps its level, and one that has not begun reads it.
static void test_copies(llama_model * model, const autodeco_heads & heads) {
    answers a(model, heads, 1);
    llama_sampler * before = llama_sampler_clone(a.chain[0]);
    a.read({ { 0, PROMPTS[0], 1 } });
    const llama_token one   = a.take(0, 0);
    llama_sampler *   saved = llama_sampler_clone(a.chain[0]);
    a.read({ { 0, { one, 11 }, 2 } });
    a.take(0, 0);
    a.take(0, 1);
    copy_sampler(saved, a.chain[0], 0);
    a.read({ { 0, { 12 }, 1 } });
    a.take(0, 0);
    copy_sampler(before, a.chain[0], 0);
    a.level[0] = NAN;
    a.read({ { 0, { 13, 14 }, 1 } });
    a.take(0, 0);
    a.begin(0, -0.5f);
    llama_sampler * given = llama_sampler_clone(a.chain[0]);
    a.begin(0);
    copy_sampler(given, a.chain[0], 0);
    a.level[0] = -0.5;
    a.read({ { 0, { 15 }, 1 } });
    a.take(0, 0);
    for (llama_sampler * each : { before, saved, given }) {
        llama_sampler_free(each);
    }
    a.report("copies of a sampler carry the level");
}

// Within the dead zone, and at level 0, all is bit for bit what heads without a control head give.
static void test_nothing_is_steered(llama_model * model, const autodeco_heads & plain, const autodeco_heads & dead, const autodeco_heads & steered) {
    const auto run = [&](const autodeco_heads & heads, float level) {
        answers a(model, heads, 1);
        a.begin(0, level);
        a.read({ { 0, PROMPTS[1], 1 } });
        for (int i = 0; i < 12; ++i) {
            a.read({ { 0, { a.take(0, 0) }, 1 } });
        }
        return a.seen;
    };
    const auto is_same = [](const autodeco_decoding & a, const autodeco_decoding & b) {
        return a.token == b.token && a.temperature == b.temperature && a.top_p == b.top_p && a.nucleus == b.nucleus && a.prob == b.prob;
    };
    const auto wanted = run(plain, NAN), in_zone = run(dead, NAN), at_zero = run(steered, 0.0f), led = run(steered, -1.0f);
    check(std::equal(wanted.begin(), wanted.end(), in_zone.begin(), is_same), "levels within the dead zone change no bit", (double) wanted.size());
    check(std::equal(wanted.begin(), wanted.end(), at_zero.begin(), is_same), "level 0 changes no bit", (double) wanted.size());
    check(!std::equal(wanted.begin(), wanted.end(), led.begin(), is_same), "another one does", (double) wanted.size());
    check(run(plain, -1.0f).back().temperature == wanted.back().temperature, "heads without a control head are steered by no level", 0);
}

// Rows that read their own level, one of another row, and one that they are given, beside rows whose settings are no numbers.
static void test_operations() {
    constexpr int64_t  n       = 8;
    constexpr int64_t  n_vocab = 300;
    const control_ends ends    = { 0.2f, 1.25f, 0.5f, 0.9f, 0.25f };
    //                               none, within the dead zone on either side, its end, beyond, and nearly certain
    const std::vector<float> sigmoids = { 0.5f, 0.6f, 0.4f, 0.625f, 0.75f, 0.25f, 0.001f, 0.999f };
    const std::vector<float> z        = random_row(n_vocab * n, 2.0f);
    row_graph                graph(z, n);
    const auto               input = [&] {
        ggml_tensor * tensor = ggml_new_tensor_2d(graph.ctx, GGML_TYPE_F32, 1, n);
        ggml_set_input(tensor);
        return tensor;
    };
    ggml_tensor *     top_p   = input();
    ggml_tensor *     sigmoid = input();
    ggml_tensor *     level   = build_control_level(graph.ctx, ends, sigmoid);
    const device_draw draw    = build_device_draw(graph.ctx, sort_rows(graph.ctx, graph.logits), { graph.scalar, top_p, level }, ends);
    graph.plan(level);
    graph.plan(draw.token);
    graph.allocate();
    const std::vector<float> temperatures = { 0.3f, 0.5f, 0.7f, 0.9f, 1.1f, 1.3f, 1.5f, 1.7f };
    const std::vector<float> top_ps       = { 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f, 0.95f, 0.99f };
    const int64_t            given = 2, stray = 4; // rows
    double                   level_error = 0.0, error = 0.0;
    int                      unlike = 0;
    for (const float any : { NAN, -INFINITY, 3e38f }) {
        for (int64_t i = 0; i < n; ++i) {
            device_settings settings = { 1.0f, 0.0f, 1.0f, 0.0f, 0.5f, 1e6f, 0.0f, (float) i, 1.0f, 0.0f };
            settings.level_row       = i == 3 ? 6.0f : settings.level_row; // as drafted rows do
            if (i == given) {
                settings.level_read = 0.0f;
                settings.level      = -0.75f;
            }
            write_settings(draw.settings, i, i == stray ? device_settings{ any, any, any, any, any, any, any, any, any, any } : settings);
        }
        ggml_backend_tensor_set(top_p, top_ps.data(), 0, ggml_nbytes(top_p));
        ggml_backend_tensor_set(sigmoid, sigmoids.data(), 0, ggml_nbytes(sigmoid));
        graph.compute(temperatures, 1);
        const std::vector<float> levels = row_graph::values(level), values = row_graph::values(draw.values);
        for (int64_t i = 0; i < n; ++i) {
            const double raw    = 2.0 * (double) sigmoids[i] - 1.0;
            const double wanted = std::copysign(std::max(std::abs(raw) - 0.25, 0.0) / 0.75, raw);
            level_error         = std::max({ level_error, std::abs(levels[i] - wanted), std::abs((double) control_level(ends, sigmoids[i]) - wanted) });
            device_values found;
            std::memcpy(&found, &values[(size_t) (i * n_device_values(true))], sizeof(found));
            if (i == stray) {
                unlike += found.token < 0.0f || found.token >= (float) n_vocab;
                continue;
            }
            const double     used = i == given ? -0.75 : i == 3 ? levels[6] : levels[i];
            heads_data   heads;
            heads.control = ends;
            const exact_prediction led  = exact_steered(heads, { temperatures[i], top_ps[i] }, used);
            float                  host_t = temperatures[i], host_p = top_ps[i];
            steer(ends, (float) used, host_t, host_p);
            error = std::max({ error, std::abs(found.level - used), std::abs(found.temperature - led.temperature), std::abs(found.top_p - led.top_p),
                               std::abs(host_t - led.temperature), std::abs(host_p - led.top_p) });
            unlike += used == 0.0 && (found.temperature != temperatures[i] || found.top_p != top_ps[i] || host_t != temperatures[i] || host_p != top_ps[i]);
        }
    }
    check(level_error < 1e-6, "levels by operations and on the host, and none within the dead zone", level_error);
    check(error < 1e-6, "each row is steered by its own level, another row's, or the one that it is given", error);
    check(unlike == 0, "level 0 changes no bit, and rows without settings draw something", unlike);
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf HEADS.gguf\n", argv[0]);
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model *    model = llama_model_load_from_file(argv[1], llama_model_default_params());
    autodeco_error   error;
    autodeco_heads * plain = autodeco_heads_load(argv[2], &error);
    if (!model || !plain || !autodeco_heads_fit(plain, model, &error)) {
        fprintf(stderr, "cannot start: %s\n", model ? error.message : "the model does not load");
        return 2;
    }
    const autodeco_heads steered = { with_control(*plain->data, { 0.2f, 1.4f, 0.5f, 0.99f, 0.02f }) };
    const autodeco_heads dead    = { with_control(*plain->data, { 0.2f, 1.4f, 0.5f, 0.99f, 0.9999f }) };
    check(autodeco_heads_has_control(&steered) && !autodeco_heads_has_control(plain), "heads tell whether they have a control head");
    test_operations();
    test_whole_answers(model, steered, false);
    test_whole_answers(model, steered, true);
    test_new_answers(model, steered);
    test_given_levels(model, steered);
    test_other_tokens(model, steered);
    test_sequences(model, steered);
    if (SEVERAL_OUTPUTS) {
        test_drafts(model, steered);
        test_copies(model, steered);
    }
    test_nothing_is_steered(model, *plain, dead, steered);
    autodeco_heads_free(plain);
    llama_model_free(model);
    return report();
}

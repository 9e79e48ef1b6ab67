// Decoding speed with heads in the graph against llama.cpp's own sampling, in turn in one process; JSON on stdout.
//
//   bench_decode MODEL.gguf HEADS.gguf [GPU_LAYERS [TOKENS [ROUNDS [SEQUENCES | VARIANT ...]]]]
//
// host_static      temp + top_p + dist on the host, over logits copied there
// graph_static     the same three in the graph
// graph_greedy     the likeliest token in the graph: what decoding costs without sampling
// autodeco         heads, statistics and nucleus in the graph
// autodeco_cpu     the same with the CPU's node for the nucleus, whatever the device can
//
// A round decodes TOKENS tokens of each sequence with one of them after the other, every second round in the opposite
// order. Named VARIANTs are run with graph_greedy and autodeco alone; else all are. The user's multipliers bring the heads'
// mean temperature and top-p to those of static sampling.

#include "autodeco.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string>
#include <vector>

using json = nlohmann::ordered_json;

static constexpr float TEMPERATURE = 0.8f;
static constexpr float TOP_P       = 0.95f;

static const std::vector<llama_token> PROMPT = { 1, 504, 3575, 282, 4649, 314, 19, 216, 34, 446, 216, 35 };

static const char * const VARIANTS[] = { "graph_static", "autodeco", "host_static", "graph_greedy", "autodeco_cpu" };

// The first tokens behind a prompt are not counted: a device records its graph in them (CUDA graphs).
static constexpr int UNCOUNTED = 4;

// What llama.cpp says of the last graph it laid out: into how many parts, and what is copied between them.
struct graph_log {
    int         splits = 0;
    std::string copies; // "name (size)" of all tensors that go from one part to another
};

static graph_log   last_graph;
static std::string pending_line;

static void read_line(const std::string & line) {
    if (line.rfind("## SPLIT #", 0) != 0) {
        return;
    }
    if (line.rfind("## SPLIT #0", 0) == 0) {
        last_graph = {};
    }
    last_graph.splits += 1;
    const size_t colon = line.find(" inputs: ");
    if (colon != std::string::npos) {
        last_graph.copies += line.substr(0, colon) + ": " + line.substr(colon + 9) + "\n";
    }
}

static void on_log(ggml_log_level, const char * text, void *) {
    for (; *text; ++text) {
        if (*text == '\n') {
            read_line(pending_line);
            pending_line.clear();
        } else {
            pending_line += *text;
        }
    }
}

struct runner {
    llama_context *              ctx = nullptr;
    std::vector<llama_sampler *> chains;
    std::vector<llama_sampler *> heads; // the chains' AutoDeco samplers
    int                          n_seq;
    graph_log                    graph;

    ~runner() {
        llama_free(ctx);
        for (llama_sampler * chain : chains) {
            llama_sampler_free(chain);
        }
    }
};

static void make_runner(runner & r, const char * variant, llama_model * model, const autodeco_heads * heads, autodeco_params params,
                        int n_seq, int n_tokens) {
    const std::string name = variant;
    r.n_seq                = n_seq;
    setenv("AUTODECO_NUCLEUS", name == "autodeco_cpu" ? "cpu" : "", 1);
    std::vector<llama_sampler_seq_config> configs;
    for (int i = 0; i < n_seq; ++i) {
        llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
        if (name.rfind("autodeco", 0) == 0) {
            params.seed = (uint32_t) i + 1;
            r.heads.push_back(autodeco_sampler_init(heads, params));
            llama_sampler_chain_add(chain, r.heads.back());
        } else if (name == "graph_greedy") {
            llama_sampler_chain_add(chain, llama_sampler_init_greedy());
        } else {
            llama_sampler_chain_add(chain, llama_sampler_init_temp(TEMPERATURE));
            llama_sampler_chain_add(chain, llama_sampler_init_top_p(TOP_P, 1));
            llama_sampler_chain_add(chain, llama_sampler_init_dist((uint32_t) i + 1));
        }
        r.chains.push_back(chain);
        configs.push_back({ i, chain });
    }
    llama_context_params c = llama_context_default_params();
    c.n_ctx           = (uint32_t) (n_seq * ((int) PROMPT.size() + UNCOUNTED + n_tokens + 2 + 255) / 256 * 256);
    c.n_batch         = 512;
    c.n_ubatch        = 512;
    c.n_seq_max       = (uint32_t) n_seq;
    c.n_threads       = 4;
    c.n_threads_batch = 4;
    if (name != "host_static") {
        c.samplers   = configs.data();
        c.n_samplers = configs.size();
    }
    r.ctx = llama_init_from_model(model, c);
    if (!r.ctx) {
        fprintf(stderr, "no context for %s\n", variant);
        exit(1);
    }
}

// Decode one token of each sequence at position `pos`.
static void decode(runner & r, const std::vector<llama_token> & tokens, int pos, bool output) {
    llama_batch batch = llama_batch_init(r.n_seq, 0, 1);
    batch.n_tokens    = r.n_seq;
    for (int i = 0; i < r.n_seq; ++i) {
        batch.token[i]     = tokens[(size_t) i];
        batch.pos[i]       = pos;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = i;
        batch.logits[i]    = output;
    }
    if (llama_decode(r.ctx, batch) != 0) {
        fprintf(stderr, "llama_decode failed\n");
        exit(1);
    }
    llama_batch_free(batch);
}

// Tokens/s of all sequences together; the prompt and what is UNCOUNTED are not. `watch` sees every token's logits or decision.
template <class Watch> static double generate(runner & r, int n_tokens, Watch watch) {
    llama_memory_clear(llama_get_memory(r.ctx), true);
    for (size_t p = 0; p < PROMPT.size(); ++p) {
        decode(r, std::vector<llama_token>((size_t) r.n_seq, PROMPT[p]), (int) p, p + 1 == PROMPT.size());
    }
    std::vector<llama_token> tokens((size_t) r.n_seq);
    const auto sample = [&] {
        for (int i = 0; i < r.n_seq; ++i) {
            tokens[(size_t) i] = llama_sampler_sample(r.chains[(size_t) i], r.ctx, i);
        }
        watch();
    };
    sample();
    auto began = std::chrono::steady_clock::now();
    for (int t = 0; t < UNCOUNTED + n_tokens; ++t) {
        if (t == UNCOUNTED) {
            began = std::chrono::steady_clock::now();
        }
        decode(r, tokens, (int) PROMPT.size() + t, true);
        sample();
    }
    return n_tokens * r.n_seq / std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

static double entropy(const float * z, int n) {
    const double largest = *std::max_element(z, z + n);
    double       sum = 0.0, weighted = 0.0;
    for (int i = 0; i < n; ++i) {
        const double e = std::exp(z[i] - largest);
        sum += e;
        weighted += e * (z[i] - largest);
    }
    return std::log(sum) - weighted / sum;
}

struct mean {
    double sum = 0.0;
    int    n   = 0;

    void add(double number) {
        sum += number;
        n += 1;
    }

    double value() const { return sum / n; }
};

static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.gguf HEADS.gguf [GPU_LAYERS [TOKENS [ROUNDS [SEQUENCES | VARIANT ...]]]]\n", argv[0]);
        return 2;
    }
    const int        n_gpu_layers = argc > 3 ? atoi(argv[3]) : 99;
    const int        n_tokens     = argc > 4 ? atoi(argv[4]) : 200;
    const int        n_rounds     = argc > 5 ? atoi(argv[5]) : 7;
    std::vector<int>         sequences;
    std::vector<std::string> variants;
    for (int i = 6; i < argc; ++i) {
        if (atoi(argv[i]) > 0) {
            sequences.push_back(atoi(argv[i]));
        } else if (std::find(std::begin(VARIANTS), std::end(VARIANTS), std::string(argv[i])) != std::end(VARIANTS)) {
            variants.push_back(argv[i]);
        } else {
            fprintf(stderr, "%s is neither a number of sequences nor a variant\n", argv[i]);
            return 2;
        }
    }
    if (sequences.empty()) {
        sequences = { 1, 32 };
    }
    if (variants.empty()) {
        variants.assign(std::begin(VARIANTS), std::end(VARIANTS));
    }
    for (const char * rival : { "autodeco", "graph_greedy" }) { // which the ratios are over
        if (std::find(variants.begin(), variants.end(), rival) == variants.end()) {
            variants.push_back(rival);
        }
    }

    setenv("GGML_SCHED_DEBUG", "1", 1);
    llama_log_set(on_log, nullptr);
    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers       = n_gpu_layers;
    llama_model *    model = llama_model_load_from_file(argv[1], model_params);
    autodeco_error   error;
    autodeco_heads * heads = autodeco_heads_load(argv[2], &error);
    if (!model || !heads || !autodeco_heads_fit(heads, model, &error)) {
        fprintf(stderr, "cannot start: %s\n", model ? error.message : "the model does not load");
        return 2;
    }

    // the heads' means, for the multipliers, and how peaked the logits are
    autodeco_params params = { 1, 1.0f, 1.0f };
    mean            mean_temperature, mean_top_p, mean_entropy;
    const int       n_probe = 64;
    {
        runner probe, host;
        make_runner(probe, "autodeco", model, heads, params, 1, n_probe);
        generate(probe, n_probe, [&] {
            const autodeco_decoding d = autodeco_sampler_last(probe.heads[0]);
            mean_temperature.add(d.temperature);
            mean_top_p.add(d.top_p);
        });
        params.temperature = TEMPERATURE / (float) mean_temperature.value();
        params.top_p       = TOP_P / (float) mean_top_p.value();
        make_runner(host, "host_static", model, heads, params, 1, n_probe);
        const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        generate(host, n_probe, [&] { mean_entropy.add(entropy(llama_get_logits_ith(host.ctx, 0), n_vocab)); });
    }

    json result = { { "model", std::string(argv[1]).substr(std::string(argv[1]).rfind('/') + 1) },
                    { "gpu_layers", n_gpu_layers }, { "tokens", n_tokens }, { "rounds", n_rounds },
                    { "n_vocab", llama_vocab_n_tokens(llama_model_get_vocab(model)) },
                    { "static", { { "temperature", TEMPERATURE }, { "top_p", TOP_P } } },
                    { "entropy_nats", mean_entropy.value() },
                    { "runs", json::array() } };
    for (const int n_seq : sequences) {
        std::map<std::string, runner>              runners;
        std::map<std::string, std::vector<double>> rates;
        for (const std::string & name : variants) {
            make_runner(runners[name], name.c_str(), model, heads, params, n_seq, n_tokens);
            generate(runners[name], 16, [] {});
            runners[name].graph = last_graph;
        }
        for (int round = 0; round < n_rounds; ++round) {
            for (const std::string & name : variants) {
                rates[name].push_back(generate(runners[name], n_tokens, [] {}));
            }
            std::reverse(variants.begin(), variants.end());
        }
        mean mean_nucleus;
        generate(runners["autodeco"], n_probe, [&] { mean_nucleus.add(autodeco_sampler_last(runners["autodeco"].heads[0]).nucleus); });
        const auto ratio = [&](const std::string & one, const std::string & other) { // the median over rounds of that in a round
            std::vector<double> ratios;
            for (int round = 0; round < n_rounds; ++round) {
                ratios.push_back(rates[one][(size_t) round] / rates[other][(size_t) round]);
            }
            return median(ratios);
        };
        json run = { { "sequences", n_seq }, { "mean_nucleus", mean_nucleus.value() }, { "tokens_per_second", json::object() },
                     { "splits", json::object() }, { "copies", json::object() }, { "autodeco_over", json::object() },
                     { "over_greedy", json::object() } };
        for (const std::string & name : variants) {
            run["tokens_per_second"][name] = rates[name];
            run["splits"][name]            = runners[name].graph.splits;
            run["copies"][name]            = runners[name].graph.copies;
            if (name != "autodeco") {
                run["autodeco_over"][name] = ratio("autodeco", name);
            }
            if (name != "graph_greedy") {
                run["over_greedy"][name] = ratio(name, "graph_greedy");
            }
            fprintf(stderr, "%d x %-15s %9.1f tokens/s   %.3f of greedy   %d splits\n", n_seq, name.c_str(), median(rates[name]),
                    ratio(name, "graph_greedy"), runners[name].graph.splits);
        }
        result["runs"].push_back(run);
    }
    printf("%s\n", result.dump(2).c_str());
    autodeco_heads_free(heads);
    llama_model_free(model);
    return 0;
}

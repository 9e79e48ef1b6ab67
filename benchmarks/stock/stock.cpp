// What autodeco-cli is measured against: the loop of llama.cpp's examples/simple with temp 0.8 + top_p 0.95 + dist.
//
//   stock MODEL.gguf PROMPT N_PREDICT N_CTX THREADS SEED [pool]
//
// `pool` keeps the CPU threads over the whole run, as llama-cli and autodeco-cli do; examples/simple does not. The text
// goes to standard output and one line of JSON, with the keys of autodeco-cli, to standard error.

#include "llama.h"

#include "ggml-backend.h"
#include "ggml-cpu.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/resource.h>

int main(int argc, char ** argv) {
    if (argc < 7) {
        fprintf(stderr, "usage: %s MODEL.gguf PROMPT N_PREDICT N_CTX THREADS SEED [pool]\n", argv[0]);
        return 2;
    }
    const int64_t     started   = ggml_time_us();
    const std::string prompt    = argv[2];
    const int         n_predict = atoi(argv[3]);
    const int         n_threads = atoi(argv[5]);
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);

    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers       = 0;
    llama_model * model             = llama_model_load_from_file(argv[1], model_params);
    if (!model) {
        return 2;
    }
    const llama_vocab *      vocab = llama_model_get_vocab(model);
    std::vector<llama_token> tokens(prompt.size() + 2);
    const int32_t n_prompt = llama_tokenize(vocab, prompt.data(), (int32_t) prompt.size(), tokens.data(), (int32_t) tokens.size(), true, true);

    llama_context_params params = llama_context_default_params();
    params.n_ctx                = (uint32_t) atoi(argv[4]);
    params.n_batch              = (uint32_t) n_prompt;
    params.n_threads            = n_threads;
    params.n_threads_batch      = n_threads;
    llama_context * ctx         = llama_init_from_model(model, params);
    if (!ctx) {
        return 2;
    }
    ggml_threadpool * pool = nullptr;
    if (argc > 7 && strcmp(argv[7], "pool") == 0) {
        ggml_threadpool_params pool_params = ggml_threadpool_params_default(n_threads);
        pool                               = ggml_threadpool_new(&pool_params);
        llama_attach_threadpool(ctx, pool, pool);
    }
    llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, llama_sampler_init_temp(0.8f));
    llama_sampler_chain_add(chain, llama_sampler_init_top_p(0.95f, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_dist((uint32_t) atoi(argv[6])));

    llama_batch batch = llama_batch_get_one(tokens.data(), n_prompt);
    llama_token token;
    int64_t     first = 0;
    for (int i = 0; i < n_predict; ++i) {
        if (llama_decode(ctx, batch) != 0) {
            return 2;
        }
        token = llama_sampler_sample(chain, ctx, -1);
        char          piece[256];
        const int32_t n = llama_token_to_piece(vocab, token, piece, sizeof(piece), 0, false);
        fwrite(piece, 1, (size_t) (n > 0 ? n : 0), stdout);
        fflush(stdout);
        if (i == 0) {
            first = ggml_time_us();
        }
        batch = llama_batch_get_one(&token, 1);
    }
    const double generation_s = (double) (ggml_time_us() - first) / 1e6;

    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    fprintf(stderr, "{\"tokens_per_second\": %.4f, \"first_token_seconds\": %.6f, \"peak_memory_bytes\": %lld}\n",
            (n_predict - 1) / generation_s, (double) (first - started) / 1e6, (long long) usage.ru_maxrss * 1024);
    llama_sampler_free(chain);
    llama_free(ctx);
    if (pool) {
        ggml_threadpool_free(pool);
    }
    llama_model_free(model);
    return 0;
}

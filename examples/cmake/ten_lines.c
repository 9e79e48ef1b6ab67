// Heads, model, context, sampler: one token, and the temperature and top-p that it was drawn with.
//
//   ten_lines MODEL.gguf HEADS.gguf      (or the same merged file twice)

#include "autodeco.h"

#include <stdio.h>

int main(int argc, char ** argv) {
    struct autodeco_error   error = { AUTODECO_ERROR_ARGUMENT, "usage: ten_lines MODEL.gguf HEADS.gguf" };
    struct llama_model *    model = argc == 3 ? autodeco_model_load(argv[1], llama_model_default_params(), &error) : NULL;
    struct autodeco_heads * heads = model ? autodeco_heads_load(argv[2], &error) : NULL;
    if (!heads || !autodeco_heads_fit(heads, model, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    struct llama_sampler * sampler = autodeco_sampler_init(heads, autodeco_default_params());
    struct llama_sampler * chain   = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, sampler);

    struct llama_sampler_seq_config sequence = { 0, chain };
    struct llama_context_params     params   = llama_context_default_params();
    params.samplers                          = &sequence;
    params.n_samplers                        = 1;
    params.n_ctx                             = 256;
    struct llama_context * ctx               = llama_init_from_model(model, params);

    llama_token   tokens[64];
    const int32_t n = llama_tokenize(llama_model_get_vocab(model), "The capital of France is", 24, tokens, 64, true, true);
    if (!ctx || n < 1 || llama_decode(ctx, llama_batch_get_one(tokens, n)) != 0) {
        fprintf(stderr, "llama.cpp cannot decode\n");
        return 2;
    }
    const llama_token token = llama_sampler_sample(chain, ctx, -1);

    const struct autodeco_decoding last = autodeco_sampler_last(sampler);
    printf("token %d, temperature %.4f, top-p %.4f, nucleus %d\n", token, last.temperature, last.top_p, last.nucleus);

    llama_free(ctx);
    llama_sampler_free(chain);
    autodeco_heads_free(heads);
    llama_model_free(model);
    return 0;
}

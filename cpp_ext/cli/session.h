// A model with its heads and one context: prompts in, tokens out.

#pragma once

#include "autodeco.h"
#include "options.h"
#include "output.h"
#include "text_stream.h"

#include "llama-cpp.h"

#include "ggml-cpu.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace cli {

struct heads_deleter {
    void operator()(autodeco_heads * heads) const { autodeco_heads_free(heads); }
};

class session {
public:
    // Load everything; throws input_error.
    explicit session(const options & o);
    ~session();

    session(const session &) = delete;
    session & operator=(const session &) = delete;

    const llama_model * model() const { return llama.get(); }
    bool                has_heads() const { return heads != nullptr; }
    size_t              n_ctx() const { return llama_n_ctx(ctx.get()); }

    std::vector<llama_token> tokenize(const std::string & text) const;

    // Generate behind a prompt, whose beginning is not decoded again where the context holds it already. Throws
    // input_error when the prompt does not fit or its logits are no numbers.
    answer_stats answer(const std::vector<llama_token> & prompt, text_stream & stream);

private:
    void load_model();
    void load_heads();
    void make_context();
    void start_threads();

    bool              decode(const llama_token * tokens, size_t n); // false: interrupted
    bool              decode_prompt(const std::vector<llama_token> & prompt, answer_stats & stats);
    autodeco_decoding sample();

    const options & o;

    llama_model_ptr                                llama;
    std::unique_ptr<autodeco_heads, heads_deleter> heads;
    llama_sampler_ptr                              chain;
    llama_sampler *                                smpl = nullptr; // the one of ours in the chain
    llama_context_ptr                              ctx;
    ggml_threadpool *                              threads = nullptr;
    decltype(&ggml_threadpool_free)                free_threads = nullptr;

    std::vector<llama_token> held; // what the context holds
    int64_t                  started_us;
};

} // namespace cli

#include "session.h"

#include "interrupt.h"
#include "memory.h"
#include "one_line.h"
#include "rpc.h"

#include "ggml-backend.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace cli {

namespace {

// By a clock of our own: ggml's, on Windows, does not run before ggml is used.
int64_t now_us() {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The first error that llama.cpp logged: its functions return null, and say why there only.
std::string first_error;

void on_log(ggml_log_level level, const char * text, void * verbose) {
    if (verbose) { // names and templates of the file among it
        for (const char * end = text; *text; text = end) {
            end += std::strcspn(text, "\n");
            fputs(autodeco::without_controls({ text, end }).c_str(), stderr);
            end += *end ? fputc('\n', stderr) == '\n' : 0;
        }
    } else if (level == GGML_LOG_LEVEL_ERROR && first_error.empty()) {
        first_error = text;
        first_error.resize(std::min(first_error.find('\n'), first_error.size()));
    }
}

std::string because() {
    return first_error.empty() ? "" : " (" + first_error + ")";
}

void warn(const std::string & line) {
    if (!line.empty()) {
        fprintf(stderr, "autodeco-cli: warning: %s\n", autodeco::one_line(line).c_str());
    }
}

std::string token_text(const llama_vocab * vocab, llama_token token) {
    std::string text(64, '\0');
    int32_t     n = llama_token_to_piece(vocab, token, text.data(), (int32_t) text.size(), 0, false);
    if (n < 0) { // no room for it
        text.resize((size_t) -n);
        n = llama_token_to_piece(vocab, token, text.data(), (int32_t) text.size(), 0, false);
    }
    text.resize((size_t) std::max(0, n));
    return text;
}

llama_sampler * new_static_chain(const options & o) {
    llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    if (o.temperature == 0.0f) {
        llama_sampler_chain_add(chain, llama_sampler_init_greedy());
        return chain;
    }
    // in the order of the heads: temperature before top-p
    llama_sampler_chain_add(chain, llama_sampler_init_temp(o.temperature));
    llama_sampler_chain_add(chain, llama_sampler_init_top_p(o.top_p, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_dist(o.seed));
    return chain;
}

} // namespace

session::session(const options & o) : o(o), started_us(now_us()) {
    llama_log_set(on_log, o.verbose ? (void *) &o : nullptr);
    load_model();
    load_heads();
    make_context();
    start_threads();
}

void session::load_model() {
    if (!o.rpc.empty()) {
        use_rpc_servers(o.rpc);
    }
    const bool      all_on_cpu = o.n_gpu_layers == 0 || !llama_supports_gpu_offload();
    std::error_code no_size;
    const auto      size = std::filesystem::file_size(std::filesystem::u8path(o.model), no_size);
    if (all_on_cpu && !no_size) {
        warn(model_warning(o.model, size, memory_left()));
    }
    autodeco_error     error;
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers       = o.n_gpu_layers;
    params.split_mode         = o.split_mode;
    params.main_gpu           = o.main_gpu;
    params.tensor_split       = o.tensor_split.empty() ? nullptr : o.tensor_split.data();
    llama.reset(autodeco_model_load(o.model.c_str(), params, &error));
    if (!llama) {
        throw input_error(error.code == AUTODECO_ERROR_MODEL ? o.model + ": llama.cpp does not load this model" + because() : error.message);
    }
    if (!autodeco_model_writes(llama.get(), &error)) {
        throw input_error(o.model + ": " + error.message);
    }
    if (!all_on_cpu) { // how much stays is known only now
        const int32_t n_layers = llama_model_n_layer(llama.get());
        const auto    n_on_cpu = (uint64_t) layers_on_cpu(n_layers, o.n_gpu_layers, true);
        warn(model_warning(o.model, llama_model_size(llama.get()) / (uint64_t) std::max(n_layers, 1) * n_on_cpu, memory_left()));
    }
}

void session::load_heads() {
    autodeco_error      error;
    const std::string & path = o.heads.empty() ? o.model : o.heads;
    heads.reset(autodeco_heads_load(path.c_str(), &error));
    if (!heads && !(o.heads.empty() && error.code == AUTODECO_ERROR_NO_HEADS)) {
        throw input_error(error.message);
    }
    if (heads && !autodeco_heads_fit(heads.get(), llama.get(), &error)) {
        throw input_error(path + ": " + error.message);
    }
    if (heads && !autodeco_heads_made_for(heads.get(), o.model.c_str(), &error) && error.code == AUTODECO_ERROR_OTHER_FILE) {
        warn(path + ": " + error.message);
    }
    if (!heads && o.show) {
        throw input_error(o.model + ": has no heads, so there is nothing to --show; give --heads");
    }
    if (!std::isnan(o.level) && !autodeco_heads_has_control(heads.get())) {
        throw input_error(path + ": has no control head, so there is nothing that --level could steer");
    }
}

void session::make_context() {
    const int64_t        n_ctx_train = llama_model_n_ctx_train(llama.get());
    llama_context_params params      = llama_context_default_params();
    params.n_ctx           = (uint32_t) (o.n_ctx == DEFAULT_CONTEXT ? std::min(n_ctx_train, MAX_DEFAULT_CONTEXT) : o.n_ctx);
    params.type_k          = o.kv_type;
    params.type_v          = o.kv_type;
    params.n_batch         = (uint32_t) o.n_batch;
    params.n_ubatch        = (uint32_t) o.n_batch;
    params.n_outputs_max   = 1; // else memory is kept for the logits of every token of a batch
    params.n_threads       = o.n_threads;
    params.n_threads_batch = o.n_threads;
    params.abort_callback  = [](void *) { return interrupted(); };

    const int64_t n_ctx    = params.n_ctx == 0 ? n_ctx_train : params.n_ctx;
    const int32_t n_layers = layers_on_cpu(llama_model_n_layer(llama.get()), o.n_gpu_layers, llama_supports_gpu_offload());
    warn(context_warning(n_ctx, key_bytes(llama.get(), n_ctx, o.kv_type, n_layers), memory_left(), memory_in_all()));

    llama_sampler_seq_config sequence = { 0, nullptr };
    if (heads) {
        smpl = autodeco_sampler_init(heads.get(), { o.seed, o.temperature, o.top_p });
        chain.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
        llama_sampler_chain_add(chain.get(), smpl);
        sequence.sampler  = chain.get();
        params.samplers   = &sequence;
        params.n_samplers = 1;
    } else {
        chain.reset(new_static_chain(o));
    }
    ctx.reset(llama_init_from_model(llama.get(), params));
    if (!ctx) {
        throw input_error("a context of " + std::to_string(n_ctx) + " tokens cannot be had" + because() + ": take a smaller --ctx-size or model");
    }
}

// Threads that stay: without, the CPU backend starts new ones for every token. By name, because the backend that has them may
// be a library of its own.
void session::start_threads() {
    ggml_backend_dev_t cpu         = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_reg_t reg         = ggml_backend_dev_backend_reg(cpu);
    const auto         new_threads = (decltype(&ggml_threadpool_new)) ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new");
    free_threads                   = (decltype(&ggml_threadpool_free)) ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_free");
    if (new_threads && free_threads) {
        ggml_threadpool_params pool = ggml_threadpool_params_default(o.n_threads);
        threads                     = new_threads(&pool);
        llama_attach_threadpool(ctx.get(), threads, threads);
    }
}

session::~session() {
    ctx.reset();
    if (threads) {
        free_threads(threads);
    }
}

std::vector<llama_token> session::tokenize(const std::string & text) const {
    const llama_vocab *      vocab = llama_model_get_vocab(llama.get());
    std::vector<llama_token> tokens(text.size() + 2);
    const int32_t n = llama_tokenize(vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(), true, true);
    if (n < 0) {
        throw input_error("the prompt cannot be split into tokens");
    }
    tokens.resize((size_t) n);
    if (llama_vocab_get_add_eos(vocab) && !tokens.empty()) {
        tokens.pop_back(); // the token that this vocabulary ends every text with: the model is to go on
    }
    if (tokens.empty()) {
        throw input_error("the prompt has no tokens, and nothing predicts a first one; give some text, or see what the chat template makes of it");
    }
    return tokens;
}

bool session::decode(const llama_token * tokens, size_t n) {
    const int32_t rc = llama_decode(ctx.get(), llama_batch_get_one(const_cast<llama_token *>(tokens), (int32_t) n));
    if (rc == 0) {
        held.insert(held.end(), tokens, tokens + n);
        return true;
    }
    if (rc == 2) { // interrupted: forget what was decoded of this piece
        llama_memory_seq_rm(llama_get_memory(ctx.get()), 0, (llama_pos) held.size(), -1);
        return false;
    }
    throw input_error("llama.cpp cannot decode" + because());
}

bool session::decode_prompt(const std::vector<llama_token> & prompt, answer_stats & stats) {
    size_t n_same = (size_t) (std::mismatch(held.begin(), held.end(), prompt.begin(), prompt.end()).first - held.begin());
    n_same        = std::min(n_same, prompt.size() - 1); // the last one gives the logits
    if (!llama_memory_seq_rm(llama_get_memory(ctx.get()), 0, (llama_pos) n_same, -1)) {
        llama_memory_clear(llama_get_memory(ctx.get()), true); // recurrent models cannot forget a part
        n_same = 0;
    }
    held.resize(n_same);
    stats.n_prompt = (int32_t) (prompt.size() - n_same);
    // that of the context: llama.cpp keeps it to the tokens asked for, and rounds the context itself up
    const size_t n_batch = llama_n_batch(ctx.get());
    while (held.size() < prompt.size()) {
        if (!decode(prompt.data() + held.size(), std::min(n_batch, prompt.size() - held.size()))) {
            return false;
        }
    }
    return true;
}

autodeco_decoding session::sample() {
    autodeco_decoding decoding = {};
    decoding.token             = llama_sampler_sample(chain.get(), ctx.get(), -1);
    if (smpl) {
        decoding = autodeco_sampler_last(smpl);
        if (decoding.status != 0) {
            throw input_error(o.model + ": " + autodeco_status_message(decoding.status));
        }
    }
    return decoding;
}

answer_stats session::answer(const std::vector<llama_token> & prompt, text_stream & stream) {
    if (prompt.size() >= n_ctx()) {
        throw input_error("the prompt has " + std::to_string(prompt.size()) + " tokens, the context holds " + std::to_string(n_ctx()) + ": raise --ctx-size");
    }
    const llama_vocab * vocab = llama_model_get_vocab(llama.get());
    const int64_t       begin = now_us();

    autodeco_sampler_set_level(smpl, o.level); // which begins an answer

    answer_stats stats;
    stats.reason  = end_reason::interrupted;
    bool decoded  = decode_prompt(prompt, stats);
    int64_t first = now_us();
    stats.prompt_s = (double) (first - begin) / 1e6;

    while (decoded && !interrupted()) {
        if (stats.n_generated == o.n_predict) {
            stats.reason = end_reason::limit;
            break;
        }
        if (held.size() >= n_ctx()) {
            stats.reason = end_reason::context_full;
            break;
        }
        const autodeco_decoding decoding = sample();
        if (llama_vocab_is_eog(vocab, decoding.token) && !o.ignore_eos) {
            stats.reason = end_reason::end_of_text;
            break;
        }
        const bool goes_on = stream.push(decoding, token_text(vocab, decoding.token));
        if (stats.n_generated++ == 0) {
            first               = now_us();
            stats.first_token_s = (double) (first - started_us) / 1e6;
        }
        if (!goes_on) {
            stats.reason = end_reason::stop_text;
            break;
        }
        // the token of the limit is shown and need not be decoded
        decoded = stats.n_generated == o.n_predict || decode(&decoding.token, 1);
    }
    stats.generation_s = (double) (now_us() - first) / 1e6;
    stream.finish();
    return stats;
}

} // namespace cli

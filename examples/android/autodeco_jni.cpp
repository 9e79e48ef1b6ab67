// The native half of Autodeco.java: one session is a model, its heads and one context.

#include "autodeco.h"
#include "llama-cpp.h"

#include <jni.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct heads_deleter {
    void operator()(autodeco_heads * heads) const { autodeco_heads_free(heads); }
};

struct session {
    llama_model_ptr                                model;
    std::unique_ptr<autodeco_heads, heads_deleter> heads;
    llama_sampler_ptr                              chain;
    llama_sampler *                                sampler = nullptr; // the chain's one member
    llama_context_ptr                              ctx;               // last: freed before the chain that is attached to it
};

std::unique_ptr<session> open_session(const char * model, const char * heads, jint n_ctx, jint n_threads) {
    auto           s = std::make_unique<session>();
    autodeco_error error;
    s->model.reset(autodeco_model_load(model, llama_model_default_params(), &error));
    if (!s->model) {
        throw std::runtime_error(error.message);
    }
    s->heads.reset(autodeco_heads_load(heads, &error));
    if (!s->heads || !autodeco_heads_fit(s->heads.get(), s->model.get(), &error)) {
        throw std::runtime_error(error.message);
    }
    s->sampler = autodeco_sampler_init(s->heads.get(), autodeco_default_params());
    s->chain.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    llama_sampler_chain_add(s->chain.get(), s->sampler);

    llama_sampler_seq_config sequence = { 0, s->chain.get() };
    llama_context_params     params   = llama_context_default_params();
    params.n_ctx           = (uint32_t) n_ctx;
    params.n_threads       = n_threads;
    params.n_threads_batch = n_threads;
    params.n_outputs_max   = 1;
    params.samplers        = &sequence;
    params.n_samplers      = 1;
    s->ctx.reset(llama_init_from_model(s->model.get(), params));
    if (!s->ctx) {
        throw std::runtime_error("a context of " + std::to_string(n_ctx) + " tokens cannot be had");
    }
    return s;
}

// The question as tokens, in the model's chat template where libllama knows it.
std::vector<llama_token> prompt_of(const session & s, const std::string & question) {
    const char *             chat    = llama_model_chat_template(s.model.get(), nullptr);
    const llama_chat_message message = { "user", question.c_str() };
    const int32_t            size    = chat ? llama_chat_apply_template(chat, &message, 1, true, nullptr, 0) : -1;
    std::string              text    = question;
    if (size >= 0) {
        text.resize((size_t) size);
        llama_chat_apply_template(chat, &message, 1, true, text.data(), size);
    }
    std::vector<llama_token> tokens(text.size() + 2);
    const llama_vocab * vocab = llama_model_get_vocab(s.model.get());
    const int32_t       n     = llama_tokenize(vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(), true, true);
    tokens.resize((size_t) std::max(n, 0));
    if (llama_vocab_get_add_eos(vocab) && !tokens.empty()) {
        tokens.pop_back(); // the token that this vocabulary ends every text with: the model is to go on
    }
    if (tokens.empty() || tokens.size() >= llama_n_ctx(s.ctx.get())) {
        throw std::runtime_error("the question has " + std::to_string(tokens.size()) + " tokens, the context holds " + std::to_string(llama_n_ctx(s.ctx.get())));
    }
    return tokens;
}

void decode(const session & s, std::vector<llama_token> & tokens) {
    const size_t n_batch = llama_n_batch(s.ctx.get());
    for (size_t i = 0; i < tokens.size(); i += n_batch) {
        if (llama_decode(s.ctx.get(), llama_batch_get_one(tokens.data() + i, (int32_t) std::min(n_batch, tokens.size() - i))) != 0) {
            throw std::runtime_error("llama.cpp cannot decode");
        }
    }
}

void answer(const session & s, const std::string & question, jint n_predict, JNIEnv * env, jobject listener) {
    const jmethodID     on_token = env->GetMethodID(env->GetObjectClass(listener), "onToken", "([BFF)Z");
    const llama_vocab * vocab    = llama_model_get_vocab(s.model.get());

    std::vector<llama_token> tokens = prompt_of(s, question);
    const jint               room   = (jint) (llama_n_ctx(s.ctx.get()) - tokens.size());
    llama_memory_clear(llama_get_memory(s.ctx.get()), true);
    std::string piece(64, '\0');
    for (jint i = 0; i < std::min(n_predict, room); ++i) {
        decode(s, tokens);
        tokens.assign(1, llama_sampler_sample(s.chain.get(), s.ctx.get(), -1));
        const autodeco_decoding last = autodeco_sampler_last(s.sampler);
        if (last.status != 0) {
            throw std::runtime_error(autodeco_status_message(last.status));
        }
        if (llama_vocab_is_eog(vocab, tokens[0])) {
            return;
        }
        int32_t n = llama_token_to_piece(vocab, tokens[0], piece.data(), (int32_t) piece.size(), 0, false);
        if (n < 0) { // no room for it
            piece.resize((size_t) -n);
            n = llama_token_to_piece(vocab, tokens[0], piece.data(), (int32_t) piece.size(), 0, false);
        }
        n                     = std::max(0, n);
        const jbyteArray text = env->NewByteArray(n);
        if (!text) {
            return; // with Java's OutOfMemoryError
        }
        env->SetByteArrayRegion(text, 0, n, (const jbyte *) piece.data());
        const jboolean goes_on = env->CallBooleanMethod(listener, on_token, text, last.temperature, last.top_p);
        env->DeleteLocalRef(text);
        if (env->ExceptionCheck() || !goes_on) {
            return;
        }
    }
}

// What `body` returns; what it throws becomes a RuntimeException of Java, for no C++ exception may cross into it.
template <typename F> auto guarded(JNIEnv * env, F && body) -> decltype(body()) {
    try {
        return body();
    } catch (const std::exception & e) {
        env->ThrowNew(env->FindClass("java/lang/RuntimeException"), e.what());
        return decltype(body())();
    }
}

} // namespace

extern "C" JNIEXPORT jlong JNICALL Java_org_autodeco_Autodeco_open(JNIEnv * env, jclass, jstring model, jstring heads, jint n_ctx, jint n_threads) {
    const char * model_path = env->GetStringUTFChars(model, nullptr);
    const char * heads_path = env->GetStringUTFChars(heads, nullptr);
    const jlong  handle     = guarded(env, [&] { return (jlong) open_session(model_path, heads_path, n_ctx, n_threads).release(); });
    env->ReleaseStringUTFChars(model, model_path);
    env->ReleaseStringUTFChars(heads, heads_path);
    return handle;
}

extern "C" JNIEXPORT void JNICALL Java_org_autodeco_Autodeco_answer(JNIEnv * env, jclass, jlong handle, jbyteArray question, jint n_predict, jobject listener) {
    guarded(env, [&] {
        std::string text((size_t) env->GetArrayLength(question), '\0');
        env->GetByteArrayRegion(question, 0, (jsize) text.size(), (jbyte *) text.data());
        answer(*(const session *) handle, text, n_predict, env, listener);
    });
}

extern "C" JNIEXPORT void JNICALL Java_org_autodeco_Autodeco_close(JNIEnv *, jclass, jlong handle) {
    delete (session *) handle;
}

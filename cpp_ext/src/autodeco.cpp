// The C interface.

#include "sampler_state.h"

#include <cstdio>
#include <exception>
#include <string>

using namespace autodeco;

namespace {

void write_error(const std::string & message, char * error, size_t error_size) {
    if (error && error_size > 0) {
        snprintf(error, error_size, "%s", message.c_str());
    }
}

} // namespace

autodeco_heads * autodeco_heads_load(const char * path, char * error, size_t error_size) {
    try {
        std::string what;
        auto        data = heads_read(path, what);
        if (!data) {
            write_error(what, error, error_size);
            return nullptr;
        }
        return new autodeco_heads{ std::move(data) };
    } catch (const std::exception & e) { // out of memory: no exception may cross a C interface
        write_error(std::string(path) + ": " + e.what(), error, error_size);
        return nullptr;
    }
}

void autodeco_heads_free(autodeco_heads * heads) {
    delete heads;
}

int32_t autodeco_heads_n_embd(const autodeco_heads * heads) {
    return heads->data->n_embd;
}

int32_t autodeco_heads_n_vocab(const autodeco_heads * heads) {
    return heads->data->n_vocab;
}

bool autodeco_heads_has_temperature(const autodeco_heads * heads) {
    return heads->data->has_temp;
}

bool autodeco_heads_has_top_p(const autodeco_heads * heads) {
    return heads->data->has_top_p;
}

bool autodeco_heads_has_prob_stats(const autodeco_heads * heads) {
    return heads->data->prob_stats;
}

bool autodeco_heads_fit(const autodeco_heads * heads, const llama_model * model, char * error, size_t error_size) {
    const int32_t n_embd  = llama_model_n_embd(model);
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    if (heads->data->n_embd != n_embd) {
        write_error("heads are made for hidden states of width " + std::to_string(heads->data->n_embd) + ", the model's have " + std::to_string(n_embd), error, error_size);
        return false;
    }
    if (heads->data->n_vocab != n_vocab) {
        write_error("heads are made for a vocabulary of " + std::to_string(heads->data->n_vocab) + " tokens, the model has " + std::to_string(n_vocab), error, error_size);
        return false;
    }
    return true;
}

autodeco_params autodeco_default_params(void) {
    return { /* .seed = */ LLAMA_DEFAULT_SEED, /* .temperature = */ 1.0f, /* .top_p = */ 1.0f };
}

const char * autodeco_status_message(int32_t status) {
    return status == AUTODECO_STATUS_NOT_ATTACHED ? "the sampler is attached to no context: nothing to predict from" : row_status_message((row_status) status);
}

llama_sampler * autodeco_sampler_init(const autodeco_heads * heads, autodeco_params params) {
    return new_sampler(heads->data, params, false);
}

llama_sampler * autodeco_sampler_init_observer(const autodeco_heads * heads, autodeco_params params) {
    return new_sampler(heads->data, params, true);
}

llama_sampler * autodeco_sampler_init_host_temperature(llama_sampler * observer) {
    return new_host_temperature(state_of(observer));
}

llama_sampler * autodeco_sampler_init_host(llama_sampler * observer) {
    return new_host_draw(state_of(observer));
}

void autodeco_sampler_observe(llama_sampler * observer, float temperature, float top_p) {
    state_of(observer).row(0).last = { -1, temperature, top_p, 0, 0.0f, 0 };
}

void autodeco_sampler_set_params(llama_sampler * smpl, autodeco_params params) {
    state_of(smpl).params = params;
    state_of(smpl).restart();
}

autodeco_decoding autodeco_sampler_last(const llama_sampler * smpl) {
    const sampler_state & state = state_of(smpl);
    return state.is_observer ? state.host_last : observed(state);
}

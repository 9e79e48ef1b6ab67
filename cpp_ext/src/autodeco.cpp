// The C interface.

#include "merged_file.h"
#include "sampler_state.h"

#include <cstdio>
#include <exception>
#include <new>
#include <string>

using namespace autodeco;

namespace {

void write_error(autodeco_error * error, autodeco_code code, const std::string & message) {
    if (error) {
        error->code = code;
        snprintf(error->message, sizeof(error->message), "%s", message.c_str());
    }
}

// What `body` returns; null and an error when it fails, throws (no exception may cross a C interface), or when one of the
// pointers that it needs is null.
template <typename F> auto guarded(autodeco_error * error, std::initializer_list<const void *> needed, F && body) -> decltype(body(std::declval<failure &>())) {
    write_error(error, AUTODECO_OK, "");
    for (const void * pointer : needed) {
        if (!pointer) {
            write_error(error, AUTODECO_ERROR_ARGUMENT, "an argument is NULL");
            return {};
        }
    }
    try {
        failure what;
        auto    result = body(what);
        if (!result) {
            write_error(error, what.code, what.message);
        }
        return result;
    } catch (const std::bad_alloc &) {
        write_error(error, AUTODECO_ERROR_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        write_error(error, AUTODECO_ERROR_FORMAT, e.what());
    }
    return {};
}

autodeco_heads * new_heads(std::shared_ptr<const heads_data> data) {
    return data ? new autodeco_heads{ std::move(data) } : nullptr;
}

} // namespace

autodeco_heads * autodeco_heads_load(const char * path, autodeco_error * error) {
    return guarded(error, { path }, [&](failure & what) { return new_heads(heads_read(path, what)); });
}

autodeco_heads * autodeco_heads_load_from_memory(const void * data, size_t size, autodeco_error * error) {
    return guarded(error, { data }, [&](failure & what) { return new_heads(heads_read(data, size, what)); });
}

llama_model * autodeco_model_load(const char * path, llama_model_params params, autodeco_error * error) {
    return guarded(error, { path }, [&](failure & what) { return load_model(path, params, what); });
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

bool autodeco_heads_fit(const autodeco_heads * heads, const llama_model * model, autodeco_error * error) {
    return guarded(error, { heads, model }, [&](failure & what) {
        const int32_t n_embd  = llama_model_n_embd(model);
        const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        if (heads->data->n_embd != n_embd) {
            what = { AUTODECO_ERROR_FIT, "heads are made for hidden states of width " + std::to_string(heads->data->n_embd) + ", the model's have " + std::to_string(n_embd) };
        } else if (heads->data->n_vocab != n_vocab) {
            what = { AUTODECO_ERROR_FIT, "heads are made for a vocabulary of " + std::to_string(heads->data->n_vocab) + " tokens, the model has " + std::to_string(n_vocab) };
        }
        return what.code == AUTODECO_OK;
    });
}

autodeco_params autodeco_default_params(void) {
    return { /* .seed = */ LLAMA_DEFAULT_SEED, /* .temperature = */ 1.0f, /* .top_p = */ 1.0f };
}

const char * autodeco_status_message(int32_t status) {
    return status == AUTODECO_STATUS_NOT_ATTACHED ? "the sampler is attached to no context: nothing to predict from" : row_status_message((row_status) status);
}

llama_sampler * autodeco_sampler_init(const autodeco_heads * heads, autodeco_params params) {
    return guarded(nullptr, { heads }, [&](failure &) { return new_sampler(heads->data, params, false); });
}

llama_sampler * autodeco_sampler_init_static(autodeco_params params) {
    return guarded(nullptr, {}, [&](failure &) { return new_sampler(nullptr, params, false); });
}

llama_sampler * autodeco_sampler_init_observer(const autodeco_heads * heads, autodeco_params params) {
    return guarded(nullptr, { heads }, [&](failure &) { return new_sampler(heads->data, params, true); });
}

llama_sampler * autodeco_sampler_init_host_temperature(llama_sampler * observer) {
    return guarded(nullptr, { observer }, [&](failure &) { return new_host_temperature(state_of(observer)); });
}

llama_sampler * autodeco_sampler_init_host(llama_sampler * observer) {
    return guarded(nullptr, { observer }, [&](failure &) { return new_host_draw(state_of(observer)); });
}

void autodeco_sampler_observe(llama_sampler * observer, float temperature, float top_p) {
    state_of(observer).row(0).last = { -1, temperature, top_p, 0, 0.0f, 0 };
}

void autodeco_sampler_set_params(llama_sampler * smpl, autodeco_params params) {
    state_of(smpl).params = params;
    state_of(smpl).restart();
}

void autodeco_sampler_set_fixed(llama_sampler * smpl, bool temperature, bool top_p) {
    state_of(smpl).fixed_temperature = temperature;
    state_of(smpl).fixed_top_p       = top_p;
}

void autodeco_sampler_set_cuts(llama_sampler * smpl, int32_t top_k, float min_p) {
    state_of(smpl).top_k = top_k;
    state_of(smpl).min_p = min_p;
}

autodeco_decoding autodeco_sampler_last(const llama_sampler * smpl) {
    const sampler_state & state = state_of(smpl);
    return state.is_observer || state.draws_on_host ? state.host_last : observed(state);
}

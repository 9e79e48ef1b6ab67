// The C interface.

#include "device_nodes.h"
#include "guarded.h"
#include "language_model.h"
#include "merged_file.h"
#include "sampler_state.h"

#include <algorithm>
#include <cmath>
#include <string>

using namespace autodeco;

namespace {

// Let `body` change the state of a sampler, if it is one of this library.
template <typename F> void with_state(llama_sampler * smpl, F && body) {
    sampler_state * state = sampler_state_or_null(smpl);
    guarded(nullptr, { state }, [&](failure &) {
        body(*state);
        return true;
    });
}

// A model's name as it fits into a line; of a long one the beginning, whole letters of UTF-8.
std::string short_name(const std::string & name) {
    size_t n = 64;
    if (name.size() <= n) {
        return name.empty() ? "another model" : name;
    }
    while (n > 60 && ((unsigned char) name[n] & 0xc0) == 0x80) {
        --n;
    }
    return name.substr(0, n) + "...";
}

constexpr int32_t MOST_TOKENS = 1 << 24; // a float tells so many ids apart

// Asks for every node, and tells of each.
node_question telling(ggml_backend_dev_t device, autodeco_node_visitor visit, void * user_data, bool & all) {
    return [=, &all](const ggml_tensor * node) {
        const bool has = ggml_backend_dev_supports_op(device, node);
        all            = all && has;
        if (visit) {
            visit(node, has, user_data);
        }
        return visit || has;
    };
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

bool autodeco_device_predicts(ggml_backend_dev_t device, int32_t n_embd, ggml_type type, autodeco_node_visitor visit, void * user_data) {
    return guarded(nullptr, { device }, [&](failure &) {
        bool       all = n_embd > 0 && type >= 0 && type < GGML_TYPE_COUNT && ggml_blck_size(type) > 0 && n_embd % ggml_blck_size(type) == 0;
        heads_data heads;
        if (all) {
            shape_heads(heads, n_embd, type);
            all = has_head_nodes(heads, telling(device, visit, user_data, all)) && all;
        }
        return all;
    });
}

bool autodeco_device_draws(ggml_backend_dev_t device, int32_t n_vocab, autodeco_node_visitor visit, void * user_data) {
    return guarded(nullptr, { device }, [&](failure &) {
        bool all = n_vocab > 0 && n_vocab < MOST_TOKENS;
        if (all) {
            all = has_draw_nodes(n_vocab, telling(device, visit, user_data, all)) && all;
        }
        return all;
    });
}

void autodeco_heads_free(autodeco_heads * heads) {
    delete heads;
}

int32_t autodeco_heads_n_embd(const autodeco_heads * heads) {
    return heads ? heads->data->n_embd : 0;
}

int32_t autodeco_heads_n_vocab(const autodeco_heads * heads) {
    return heads ? heads->data->n_vocab : 0;
}

bool autodeco_heads_has_temperature(const autodeco_heads * heads) {
    return heads && heads->data->has_temp;
}

bool autodeco_heads_has_top_p(const autodeco_heads * heads) {
    return heads && heads->data->has_top_p;
}

bool autodeco_heads_has_control(const autodeco_heads * heads) {
    return heads && heads->data->has_control;
}

bool autodeco_heads_has_prob_stats(const autodeco_heads * heads) {
    return heads && heads->data->prob_stats;
}

const char * autodeco_heads_base_name(const autodeco_heads * heads) {
    return heads ? heads->data->base_name.c_str() : "";
}

const char * autodeco_heads_base_fingerprint(const autodeco_heads * heads) {
    return heads ? heads->data->base_fingerprint.c_str() : "";
}

bool autodeco_heads_fit(const autodeco_heads * heads, const llama_model * model, autodeco_error * error) {
    return guarded(error, { heads, model }, [&](failure & what) {
        const int32_t n_embd  = llama_model_n_embd(model);
        const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        const std::string no_language_model = why_no_language_model(model);
        if (!no_language_model.empty()) {
            what = { AUTODECO_ERROR_FIT, no_language_model };
        } else if (heads->data->n_embd != n_embd) {
            what = { AUTODECO_ERROR_FIT, "heads are made for hidden states of width " + std::to_string(heads->data->n_embd) + ", the model's have " + std::to_string(n_embd) };
        } else if (heads->data->n_vocab != n_vocab) {
            what = { AUTODECO_ERROR_FIT, "heads are made for a vocabulary of " + std::to_string(heads->data->n_vocab) + " tokens, the model has " + std::to_string(n_vocab) };
        }
        return what.code == AUTODECO_OK;
    });
}

bool autodeco_model_writes(const llama_model * model, autodeco_error * error) {
    return guarded(error, { model }, [&](failure & what) {
        const std::string no_language_model = why_no_language_model(model);
        if (!no_language_model.empty()) {
            what = { AUTODECO_ERROR_FIT, no_language_model };
        }
        return what.code == AUTODECO_OK;
    });
}

bool autodeco_heads_made_for(const autodeco_heads * heads, const char * path, autodeco_error * error) {
    return guarded(error, { heads, path }, [&](failure & what) {
        const std::string found = model_fingerprint(path, what);
        if (!found.empty() && found != heads->data->base_fingerprint) {
            // "sha256:" and twelve digits tell enough
            const auto shortened = [](const std::string & text) { return text.empty() ? "no fingerprint" : text.substr(0, 19); };
            what = { AUTODECO_ERROR_OTHER_FILE, "the heads were exported for " + short_name(heads->data->base_name) + " (" + shortened(heads->data->base_fingerprint) +
                     "), " + path + " is another file (" + shortened(found) + "); they run, but may choose badly" };
        }
        return what.code == AUTODECO_OK;
    });
}

autodeco_params autodeco_default_params(void) {
    return { /* .seed = */ LLAMA_DEFAULT_SEED, /* .temperature = */ 1.0f, /* .top_p = */ 1.0f };
}

const char * autodeco_status_message(int32_t status) {
    switch (status) {
        case AUTODECO_STATUS_NOT_ATTACHED: return "the sampler is attached to no context, or works behind another one: nothing to predict from";
        case AUTODECO_STATUS_NO_SAMPLER:   return "this is no sampler of AutoDeco";
        case AUTODECO_STATUS_NOT_DECODED:  return "nothing was decoded yet: there is no decision to tell";
        case AUTODECO_STATUS_LOST:         return "the decision is lost: the context built another graph before it was read";
        case AUTODECO_STATUS_NOT_ALONE:    return "another sampler works in the same chain: ours must be the only one, or the last on the host";
        case AUTODECO_STATUS_NO_CANDIDATE: return "the samplers before left no token to draw from";
        default:                           return row_status_message((row_status) status);
    }
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
    sampler_state * state = sampler_state_or_null(observer);
    return guarded(nullptr, { state }, [&](failure &) { return new_host_temperature(*state); });
}

llama_sampler * autodeco_sampler_init_host(llama_sampler * observer) {
    sampler_state * state = sampler_state_or_null(observer);
    return guarded(nullptr, { state }, [&](failure &) { return new_host_draw(*state); });
}

void autodeco_sampler_observe(llama_sampler * observer, float temperature, float top_p) {
    with_state(observer, [&](sampler_state & state) {
        state.begin_token();
        set_only_output(state, { -1, temperature, top_p, 0, 0.0f, 0 });
    });
}

void autodeco_sampler_set_params(llama_sampler * smpl, autodeco_params params) {
    with_state(smpl, [&](sampler_state & state) {
        state.params = params;
        state.restart();
    });
}

void autodeco_sampler_discard(llama_sampler * smpl) {
    with_state(smpl, [](sampler_state & state) { state.discard_outputs(); });
}

void autodeco_sampler_expect(llama_sampler * smpl, const llama_token * draft, size_t n) {
    with_state(smpl, [&](sampler_state & state) {
        if (draft || n == 0) {
            state.next_draft.assign(draft, draft + n);
        }
    });
}

void autodeco_sampler_set_fixed(llama_sampler * smpl, bool temperature, bool top_p) {
    with_state(smpl, [&](sampler_state & state) {
        state.fixed_temperature = temperature;
        state.fixed_top_p       = top_p;
    });
}

void autodeco_sampler_set_level(llama_sampler * smpl, float level) {
    with_state(smpl, [&](sampler_state & state) {
        state.set_level = std::isnan(level) ? NAN : std::min(std::max(level, -1.0f), 1.0f);
        state.begin_answer();
    });
}

void autodeco_sampler_set_cuts(llama_sampler * smpl, int32_t top_k, float min_p) {
    with_state(smpl, [&](sampler_state & state) {
        state.top_k = top_k;
        state.min_p = min_p;
    });
}

autodeco_decoding autodeco_sampler_last(const llama_sampler * smpl) {
    const sampler_state * state = sampler_state_or_null(smpl);
    if (!state) {
        return { -1, 0.0f, 0.0f, 0, 0.0f, AUTODECO_STATUS_NO_SAMPLER };
    }
    return state->is_observer || state->draws_on_host ? state->host_last : observed(*state);
}

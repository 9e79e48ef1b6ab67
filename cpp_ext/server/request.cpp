#include "request.h"

#include "serving.h"

#include "common.h"
#include "json.h"
#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace autodeco {

namespace {

using json = common_json;

constexpr const char * TEMPERATURE = "temperature";
constexpr const char * TOP_P       = "top_p";

// Settings beside these two that cut or bend the distribution, which is the heads' work; and the sampler of each.
struct setting {
    const char *        name;
    common_sampler_type sampler;
};
constexpr setting CUTS[] = {
    { "top_k", COMMON_SAMPLER_TYPE_TOP_K },
    { "min_p", COMMON_SAMPLER_TYPE_MIN_P },
    { "typical_p", COMMON_SAMPLER_TYPE_TYPICAL_P },
    { "top_n_sigma", COMMON_SAMPLER_TYPE_TOP_N_SIGMA },
    { "xtc_probability", COMMON_SAMPLER_TYPE_XTC },
};
constexpr const char * NEVER[] = { "dynatemp_range", "mirostat", "adaptive_target" };

bool has(const json & body, const char * name) {
    return body.contains(name) && !body.at(name).is_null();
}

[[noreturn]] void refuse(const std::string & line) {
    throw std::invalid_argument(line);
}

float scale_of(const json & field, const char * name) {
    if (!has(field, name)) {
        return 1.0f;
    }
    const auto & value = field.at(name);
    const double scale = value.is_number() ? value.get<double>() : -1.0;
    if (!(scale >= 0.0 && scale <= 1000.0)) {
        refuse(std::string("autodeco.") + name + ": must be a number from 0 to 1000");
    }
    return (float) scale;
}

// the field, checked; false: without heads
bool read_field(const json & body, request & made) {
    if (!has(body, "autodeco")) {
        return true;
    }
    const auto & field = body.at("autodeco");
    if (field.is_boolean()) {
        return made.values = field.get<bool>();
    }
    if (!field.is_object()) {
        refuse("autodeco: must be true, false, or an object with temperature_scale, top_p_scale, heads and values");
    }
    made.values = true;
    if (has(field, "values")) {
        if (!field.at("values").is_boolean()) {
            refuse("autodeco.values: must be true or false");
        }
        made.values = field.at("values").get<bool>();
    }
    made.temperature_scale = scale_of(field, "temperature_scale");
    made.top_p_scale       = scale_of(field, "top_p_scale");
    if (has(field, "heads")) {
        const auto &      value = field.at("heads");
        const std::string heads = value.is_string() ? value.get<std::string>() : "";
        if (heads != "both" && heads != TEMPERATURE && heads != TOP_P && heads != "none") {
            refuse("autodeco.heads: must be \"both\", \"temperature\", \"top_p\" or \"none\"");
        }
        made.use_temperature = heads == "both" || heads == TEMPERATURE;
        made.use_top_p       = heads == "both" || heads == TOP_P;
    }
    return made.use_temperature || made.use_top_p;
}

} // namespace

void read_request(const json & body, const serving * serving, common_params_sampling & sampling) {
    request made;
    const bool wanted = read_field(body, made);
    if (!serving) {
        if (wanted && has(body, "autodeco")) {
            refuse("autodeco: this server has no heads: start it with --autodeco HEADS.gguf, or send \"autodeco\": false");
        }
        return;
    }
    if (!wanted) {
        return;
    }
    const bool multiplies = serving->policy == client_sampling::multiply;
    const bool overrides  = serving->policy == client_sampling::override;

    // a head that is left out leaves its value to the client
    made.fixed_temperature = made.use_temperature && serving->has_temperature ? -1.0f : std::max(sampling.temp, 0.0f);
    made.fixed_top_p       = made.use_top_p && serving->has_top_p ? -1.0f : sampling.top_p;
    const auto take = [&](const char * name, float value, float & scale, float & fixed) {
        if (fixed >= 0.0f || !has(body, name)) {
            return;
        }
        if (multiplies) {
            scale *= value;
        } else if (overrides) {
            fixed = value;
        } else {
            made.ignored.push_back(name);
        }
    };
    if (sampling.temp <= 0.0f) { // greedy is a wish of its own, under any policy
        made.temperature_scale = 0.0f;
    } else {
        take(TEMPERATURE, sampling.temp, made.temperature_scale, made.fixed_temperature);
    }
    take(TOP_P, sampling.top_p, made.top_p_scale, made.fixed_top_p);

    std::vector<common_sampler_type> kept;
    for (const common_sampler_type sampler : sampling.samplers) {
        const auto cut = std::find_if(std::begin(CUTS), std::end(CUTS), [&](const setting & one) { return one.sampler == sampler; });
        const bool is_penalty = sampler == COMMON_SAMPLER_TYPE_PENALTIES || sampler == COMMON_SAMPLER_TYPE_DRY || sampler == COMMON_SAMPLER_TYPE_INFILL;
        const bool is_cut     = cut != std::end(CUTS) && (multiplies || overrides) && has(body, cut->name);
        if (is_penalty) {
            kept.insert(std::find(kept.begin(), kept.end(), COMMON_SAMPLER_TYPE_TEMPERATURE), sampler);
        } else if (is_cut) { // by probability, so behind the temperature
            if (std::find(kept.begin(), kept.end(), COMMON_SAMPLER_TYPE_TEMPERATURE) == kept.end()) {
                kept.push_back(COMMON_SAMPLER_TYPE_TEMPERATURE);
            }
            kept.push_back(sampler);
        }
    }
    for (const setting & cut : CUTS) {
        if (has(body, cut.name) && std::find(kept.begin(), kept.end(), cut.sampler) == kept.end()) {
            made.ignored.push_back(cut.name);
        }
    }
    for (const char * name : NEVER) {
        if (has(body, name)) {
            made.ignored.push_back(name);
        }
    }
    sampling.samplers         = kept;
    sampling.mirostat         = 0;
    sampling.backend_sampling = false; // ours is chosen by what the request needs
    made.on_host              = has(body, "backend_sampling") && body.at("backend_sampling").is_boolean() && !body.at("backend_sampling").get<bool>();
    sampling.heads_request         = std::make_shared<request>(made);
}

bool needs_host(const common_params_sampling & sampling, const llama_vocab * vocab) {
    int32_t n_suppressed = 0;
    llama_vocab_get_suppress_tokens(vocab, &n_suppressed);
    const auto has_sampler = [&](common_sampler_type sampler) {
        return std::find(sampling.samplers.begin(), sampling.samplers.end(), sampler) != sampling.samplers.end();
    };
    const bool penalizes = has_sampler(COMMON_SAMPLER_TYPE_PENALTIES) && sampling.penalty_last_n != 0 &&
                           (sampling.penalty_repeat != 1.0f || sampling.penalty_freq != 0.0f || sampling.penalty_present != 0.0f);
    const bool dries     = has_sampler(COMMON_SAMPLER_TYPE_DRY) && sampling.dry_multiplier != 0.0f;
    return sampling.heads_request->on_host || n_suppressed > 0 || penalizes || dries || sampling.n_probs > 0 || !sampling.logit_bias.empty() || has_sampler(COMMON_SAMPLER_TYPE_INFILL) ||
           has_sampler(COMMON_SAMPLER_TYPE_TYPICAL_P) || has_sampler(COMMON_SAMPLER_TYPE_TOP_N_SIGMA) || has_sampler(COMMON_SAMPLER_TYPE_XTC);
}

} // namespace autodeco

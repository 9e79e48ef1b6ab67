#include "answer.h"

#include "request.h"

#include "json.h"

#include <string>

namespace autodeco {

namespace {

using json = common_json;

bool is_known(const autodeco_decoding & decoding) {
    return decoding.status == 0;
}

// a number, or null where nothing is known
template <typename T> json told(const autodeco_decoding & decoding, T value) {
    return is_known(decoding) ? json(value) : json(nullptr);
}

// arrays by name, as Decoding.to_dict of the Python package gives them
json values_of(const std::vector<autodeco_decoding> & decoded) {
    json token = json::array(), temperature = json::array(), top_p = json::array(), nucleus = json::array(), prob = json::array();
    for (const autodeco_decoding & one : decoded) {
        token.push_back(one.token);
        temperature.push_back(told(one, one.temperature));
        top_p.push_back(told(one, one.top_p));
        nucleus.push_back(told(one, one.nucleus));
        prob.push_back(told(one, one.prob));
    }
    json values           = json::object();
    values["token"]       = token;
    values["temperature"] = temperature;
    values["top_p"]       = top_p;
    values["nucleus"]     = nucleus;
    values["prob"]        = prob;
    return values;
}

// what was made of the request
json made_of(const request & asked) {
    const auto fixed = [](float value) { return value < 0.0f ? json(nullptr) : json(value); };
    json made                 = json::object();
    made["heads"]             = std::string(asked.fixed_temperature < 0.0f && asked.fixed_top_p < 0.0f ? "both" : asked.fixed_temperature < 0.0f ? "temperature" : asked.fixed_top_p < 0.0f ? "top_p" : "none");
    made["greedy"]            = asked.is_greedy();
    made["temperature_scale"] = asked.temperature_scale;
    made["top_p_scale"]       = asked.top_p_scale;
    made["fixed_temperature"] = fixed(asked.fixed_temperature);
    made["fixed_top_p"]       = fixed(asked.fixed_top_p);
    made["ignored"]           = asked.ignored;
    return made;
}

bool has_choice(const json & part) {
    return part.is_object() && part.contains("choices") && part.at("choices").size() > 0;
}

} // namespace

json answer::added_to(json part) const {
    if (!asked || part.is_null()) {
        return part;
    }
    const auto add = [&](json & one) {
        if (asked->values) {
            json & place      = has_choice(one) ? one.at("choices").at(0) : one;
            place["autodeco"] = values_of(decoded);
        }
        if (is_whole) {
            one["autodeco_settings"] = made_of(*asked);
        }
    };
    if (!part.is_array()) {
        add(part);
        return part;
    }
    for (size_t i = part.size(); i-- > 0;) {
        if (has_choice(part.at(i))) {
            add(part.at(i));
            break;
        }
    }
    return part;
}

void add_values(json & token, const autodeco_decoding & decoding) {
    if (is_known(decoding)) {
        token["temperature"] = decoding.temperature;
        token["top_p"]       = decoding.top_p;
    }
}

} // namespace autodeco

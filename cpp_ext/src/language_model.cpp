#include "language_model.h"

#include <cstdlib>
#include <map>

namespace autodeco {

namespace {

const std::string EMBEDDING = "an embedding model";
const std::string DIFFUSION = "a diffusion model, which fills in many tokens at once";
const std::string DRAFT     = "a draft model, which runs beside another model only";

// the value of a key of the model, "" where there is none
std::string value_of(const llama_model * model, const std::string & key) {
    char          text[128];
    const int32_t n = llama_model_meta_val_str(model, key.c_str(), text, sizeof(text));
    return n < 0 ? "" : text;
}

} // namespace

std::string refused_model(const std::string & architecture, bool causal, long pooling) {
    static const std::map<std::string, std::string> refused = {
        { "t5", "an encoder-decoder model" },
        { "t5encoder", EMBEDDING },
        { "bert", EMBEDDING },
        { "modern-bert", EMBEDDING },
        { "nomic-bert", EMBEDDING },
        { "nomic-bert-moe", EMBEDDING },
        { "neo-bert", EMBEDDING },
        { "jina-bert-v2", EMBEDDING },
        { "jina-bert-v3", EMBEDDING },
        { "eurobert", EMBEDDING },
        { "gemma-embedding", EMBEDDING },
        { "llama-embed", EMBEDDING },
        { "dream", DIFFUSION },
        { "llada", DIFFUSION },
        { "llada-moe", DIFFUSION },
        { "rnd1", DIFFUSION },
        { "eagle3", DRAFT },
        { "dflash", DRAFT },
        { "gemma4-assistant", DRAFT },
        { "cogvlm", "a model of which llama.cpp returns a prompt's first logits in place of its last" },
        { "clip", "a projector of images or sound" },
        { "wavtokenizer-dec", "a vocoder, which makes sound of tokens" },
    };
    const auto found = refused.find(architecture);
    if (found != refused.end()) {
        return found->second;
    }
    if (pooling >= 1 && pooling <= 4) { // one vector for a whole text
        return EMBEDDING;
    }
    return causal ? "" : "a model whose attention is not causal";
}

std::string why_no_language_model(const std::string & architecture, bool causal, long pooling) {
    const std::string what = refused_model(architecture, causal, pooling);
    return what.empty() ? "" : "the model is " + what + " (" + architecture + "); heads need a language model that writes one token after the other";
}

std::string why_no_language_model(const llama_model * model) {
    const std::string architecture = value_of(model, "general.architecture");
    const bool        causal       = value_of(model, architecture + ".attention.causal") != "false";
    return why_no_language_model(architecture, causal, std::strtol(value_of(model, architecture + ".pooling_type").c_str(), nullptr, 10));
}

} // namespace autodeco

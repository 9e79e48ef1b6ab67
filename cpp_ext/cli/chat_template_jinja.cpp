// By llama.cpp's Jinja engine, which runs whatever template a model brings.

#include "chat_template.h"
#include "options.h"
#include "template_limits.h"

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#if __has_include("json.h") // of llama.cpp from 0.5.0 on; before, its engine takes nlohmann's values
#    include "json.h"
#else
#    include <nlohmann/json.hpp>
#endif

#include <ctime>

namespace cli {

namespace {

#if __has_include("json.h")
using json = common_json;
#else
using json = nlohmann::ordered_json;
#endif

std::string token_text(const llama_vocab * vocab, llama_token token) {
    return token == LLAMA_TOKEN_NULL ? "" : llama_vocab_get_text(vocab, token);
}

// `texts`: the source, the tokens that begin and end a text, then role and content of each message.
std::string render(const template_texts & texts) {
    const std::string & source = texts.at(0);
    const std::string & bos    = texts.at(1);
    const std::string & eos    = texts.at(2);
    json                list   = json::array();
    for (size_t i = 3; i + 1 < texts.size(); i += 2) {
        list.push_back(json{ { "role", texts[i] }, { "content", texts[i + 1] } });
    }
    json values = json{
        { "messages", list },
        { "bos_token", bos },
        { "eos_token", eos },
        { "add_generation_prompt", true },
    };
    jinja::lexer   lexer;
    jinja::program program = jinja::parse_from_tokens(lexer.tokenize(source));
    jinja::context context(source);
    jinja::global_from_json(context, values, false);
    jinja::runtime runtime(context);
    return jinja::runtime::gather_string_parts(runtime.execute(program))->as_string().str();
}

} // namespace

std::string apply_chat_template(const llama_model * model, const std::vector<message> & messages) {
    const char * source = llama_model_chat_template(model, nullptr);
    if (!source) {
        throw input_error("the model has no chat template: give a plain prompt, without --chat");
    }
    const llama_vocab * vocab = llama_model_get_vocab(model);
    const std::string   bos   = token_text(vocab, llama_vocab_bos(vocab));
    const std::string   eos   = token_text(vocab, llama_vocab_eos(vocab));
    template_texts      texts = { source, bos, eos };
    for (const message & m : messages) {
        texts.push_back(m.role);
        texts.push_back(m.content);
    }
    std::string text = in_limits(render, texts);
    // the tokenizer adds it
    if (llama_vocab_get_add_bos(vocab) && !bos.empty() && text.compare(0, bos.size(), bos) == 0) {
        text.erase(0, bos.size());
    }
    return text;
}

std::optional<int> template_process(const std::vector<std::string> & arguments) {
    return template_process(render, arguments);
}

} // namespace cli

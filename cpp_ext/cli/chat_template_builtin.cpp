// By the templates that are built into libllama, for builds without llama.cpp's source: it knows the usual ones.

#include "chat_template.h"
#include "options.h"

namespace cli {

std::string apply_chat_template(const llama_model * model, const std::vector<message> & messages) {
    const char * source = llama_model_chat_template(model, nullptr);
    if (!source) {
        throw input_error("the model has no chat template: give a plain prompt, without --chat");
    }
    std::vector<llama_chat_message> list;
    for (const message & m : messages) {
        list.push_back({ m.role.c_str(), m.content.c_str() });
    }
    std::string   text;
    const int32_t size = llama_chat_apply_template(source, list.data(), list.size(), true, nullptr, 0);
    if (size < 0) {
        throw input_error("the model's chat template is not one of those built into llama.cpp: build with -DLLAMA_CPP_DIR, which runs any");
    }
    text.resize((size_t) size);
    llama_chat_apply_template(source, list.data(), list.size(), true, text.data(), size);
    return text;
}

std::optional<int> template_process(const std::vector<std::string> & /*arguments*/) {
    return {};
}

} // namespace cli

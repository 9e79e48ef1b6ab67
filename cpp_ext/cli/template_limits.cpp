#include "template_limits.h"

#include "options.h"

#include <exception>
#include <new>

namespace cli {

namespace {

constexpr size_t MOST_TEXT   = 1u << 26;
constexpr size_t MOST_REASON = 300;

constexpr const char * TOO_MUCH = "it makes too much text";

// What llama.cpp's engine says of an error, without the piece of the template that it shows; a refusal's own words.
std::string reason_of(const std::string & what) {
    if (what.find("std::bad_alloc") != std::string::npos) {
        return TOO_MUCH;
    }
    for (const std::string & before : { std::string("Jinja Exception: "), std::string("Error: ") }) {
        const size_t at = what.rfind(before);
        if (at != std::string::npos) {
            const std::string reason = what.substr(at + before.size(), MOST_REASON);
            return reason.find_first_not_of(" \t\n") == std::string::npos ? "it gives no reason" : reason;
        }
    }
    const size_t begin = what.find_first_not_of(" \t\n-");
    return begin == std::string::npos ? "it gives no reason" : what.substr(begin, MOST_REASON);
}

std::string reason_for(const std::string & answer, template_end end) {
    switch (end) {
        case template_end::too_long:  return "it does not come to an end";
        case template_end::too_large: return TOO_MUCH;
        case template_end::crashed:   return "it goes too deep";
        case template_end::by_itself: break;
    }
    return answer.empty() ? "it goes too deep" : answer.substr(1);
}

} // namespace

std::string template_answer(template_renderer render, const template_texts & texts) {
    try {
        const std::string text = render(texts);
        return text.size() > MOST_TEXT ? std::string("r") + TOO_MUCH : "t" + text;
    } catch (const std::bad_alloc &) {
        return std::string("r") + TOO_MUCH;
    } catch (const std::exception & e) {
        return "r" + reason_of(e.what());
    }
}

std::string answered_text(const std::string & answer, template_end end) {
    if (end == template_end::by_itself && !answer.empty() && answer[0] == 't') {
        return answer.substr(1);
    }
    throw input_error("the model's chat template refuses the messages (" + reason_for(answer, end) + ")");
}

} // namespace cli

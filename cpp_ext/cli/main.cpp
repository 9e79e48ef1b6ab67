// autodeco-cli: a model that picks temperature and top-p for every token, in one program.

#include "chat_template.h"
#include "console.h"
#include "interrupt.h"
#include "memory.h"
#include "options.h"
#include "output.h"
#include "one_line.h"
#include "session.h"

#include <cstdio>
#include <new>

using namespace cli;

namespace {

// Generate, show, and give back the text.
std::string answer(session & s, const options & o, const std::vector<llama_token> & prompt, end_reason & reason) {
    const output out = { o, s.has_heads() };
    std::string  text;
    text_stream  stream(o.stop, [&](const shown_token & token) {
        out.token(token);
        text += token.text;
    });
    const answer_stats stats = s.answer(prompt, stream);
    out.answer_end(stats);
    reason = stats.reason;
    return text;
}

// A line from the user; false at the end of the input.
bool read_line(std::string & line) {
    const bool terminal = input_is_terminal();
    for (;;) {
        if (terminal) {
            fprintf(stderr, "> ");
        }
        const input_end end = read_input_line(line);
        if (end == input_end::end) {
            return false;
        }
        if (end == input_end::line) {
            line = prompt_text(line + "\n", "standard input");
            clear_interrupt();
            return true;
        }
        fprintf(stderr, "\n(Ctrl-C again leaves)\n");
    }
}

// The conversation as tokens, without its oldest exchanges where the context cannot hold them all.
std::vector<llama_token> conversation_tokens(const session & s, std::vector<message> & messages) {
    for (;;) {
        std::vector<llama_token> tokens = s.tokenize(apply_chat_template(s.model(), messages));
        const size_t first = messages.front().role == "system" ? 1 : 0;
        if (tokens.size() < s.n_ctx() || messages.size() < first + 3) {
            return tokens;
        }
        messages.erase(messages.begin() + (std::ptrdiff_t) first, messages.begin() + (std::ptrdiff_t) first + 2);
    }
}

void talk(session & s, const options & o) {
    std::vector<message> messages;
    if (!o.system.empty()) {
        messages.push_back({ "system", o.system });
    }
    std::string line;
    while (read_line(line)) {
        if (line.empty()) {
            continue;
        }
        messages.push_back({ "user", line });
        end_reason reason;
        const std::string text = answer(s, o, conversation_tokens(s, messages), reason);
        messages.push_back({ "assistant", text });
    }
}

int run(const options & o) {
    catch_interrupts();
    report_aborts();
    session s(o);
    if (o.chat && !o.has_prompt) {
        talk(s, o);
        return 0;
    }
    std::string prompt = o.prompt;
    if (o.chat) {
        std::vector<message> messages;
        if (!o.system.empty()) {
            messages.push_back({ "system", o.system });
        }
        messages.push_back({ "user", o.prompt });
        prompt = apply_chat_template(s.model(), messages);
    }
    end_reason reason;
    answer(s, o, s.tokenize(prompt), reason);
    return reason == end_reason::interrupted ? INTERRUPTED_EXIT_CODE : 0;
}

} // namespace

int main(int argc, char ** argv) {
    std::string what;
    try {
        const std::vector<std::string> arguments = utf8_arguments(argc, argv);
        if (const std::optional<int> exit_code = template_process(arguments)) {
            return *exit_code;
        }
        open_streams();
        return run(parse_options(arguments));
    } catch (const input_error & e) {
        what = e.what();
    } catch (const std::bad_alloc &) {
        what = "out of memory: take a smaller --ctx-size or model";
    } catch (const std::exception & e) {
        what = e.what();
    }
    fflush(stdout);
    fprintf(stderr, "autodeco-cli: error: %s\n", autodeco::one_line(what).c_str());
    return 2;
}

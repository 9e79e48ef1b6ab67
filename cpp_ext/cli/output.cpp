#include "output.h"

#include "memory.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace cli {

namespace {

const char * name_of(end_reason reason) {
    switch (reason) {
        case end_reason::end_of_text:  return "end";
        case end_reason::stop_text:    return "stop";
        case end_reason::limit:        return "limit";
        case end_reason::context_full: return "context";
        case end_reason::interrupted:  return "interrupt";
    }
    return "";
}

// cold to hot over temperatures 0 to 2, the same colours as in autodeco/reports/colors.py
void print_colored(const std::string & text, float temperature) {
    static const int stops[5][3] = { { 59, 107, 214 }, { 38, 166, 154 }, { 154, 176, 40 }, { 240, 150, 30 }, { 226, 58, 58 } };

    const float at    = std::min(std::max(temperature / 2.0f, 0.0f), 1.0f) * 4.0f;
    const int   low   = std::min((int) at, 3);
    const float share = at - (float) low;
    int         rgb[3];
    for (int i = 0; i < 3; ++i) {
        rgb[i] = (int) ((float) stops[low][i] + (float) (stops[low + 1][i] - stops[low][i]) * share + 0.5f);
    }
    printf("\x1b[38;2;%d;%d;%dm%s\x1b[0m", rgb[0], rgb[1], rgb[2], text.c_str());
}

double rate(int32_t n, double seconds) {
    return n > 0 && seconds > 0.0 ? n / seconds : 0.0;
}

void print_json(const nlohmann::ordered_json & line) {
    // a model may write bytes that are no UTF-8
    printf("%s\n", line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

} // namespace

void flush_output() {
    if (fflush(stdout) != 0 || ferror(stdout)) {
        throw input_error(std::string("standard output cannot be written: ") + std::strerror(errno));
    }
}

void output::token(const shown_token & token) const {
    const autodeco_decoding & d = token.decoding;
    if (o.json) {
        nlohmann::ordered_json line = { { "token", d.token }, { "text", token.text } };
        if (has_heads) {
            line.update({ { "temperature", d.temperature }, { "top_p", d.top_p }, { "nucleus", d.nucleus }, { "prob", d.prob } });
        }
        print_json(line);
    } else if (o.show) {
        print_colored(token.text, d.temperature);
    } else {
        fwrite(token.text.data(), 1, token.text.size(), stdout);
    }
    flush_output();
}

void output::answer_end(const answer_stats & stats) const {
    const double prompt_rate     = rate(stats.n_prompt, stats.prompt_s);
    const double generation_rate = rate(stats.n_generated - 1, stats.generation_s);
    if (o.json) {
        print_json({
            { "end", name_of(stats.reason) },
            { "prompt_tokens", stats.n_prompt },
            { "prompt_tokens_per_second", prompt_rate },
            { "tokens", stats.n_generated },
            { "tokens_per_second", generation_rate },
            { "first_token_seconds", stats.first_token_s },
            { "peak_memory_bytes", peak_memory() },
        });
    } else {
        printf("\n");
    }
    flush_output();
    if (o.stats) {
        fprintf(stderr, "prompt: %d tokens, %.1f tokens/s; answer: %d tokens, %.1f tokens/s; first token after %.3f s; peak memory %.1f MB\n",
                stats.n_prompt, prompt_rate, stats.n_generated, generation_rate, stats.first_token_s, (double) peak_memory() / 1e6);
    }
}

} // namespace cli

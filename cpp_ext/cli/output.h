// What goes to standard output: plain text, coloured text, or JSON lines.

#pragma once

#include "options.h"
#include "text_stream.h"

namespace cli {

enum class end_reason { end_of_text, stop_text, limit, context_full, interrupted };

// Figures of one answer.
struct answer_stats {
    int32_t    n_prompt       = 0; // tokens decoded for the prompt, without those that were in the context already
    double     prompt_s       = 0.0;
    int32_t    n_generated    = 0;
    double     generation_s   = 0.0; // of the tokens after the first
    double     first_token_s  = 0.0; // from the start of the program, or of this answer in a talk
    end_reason reason         = end_reason::end_of_text;
};

// Write what standard output still holds; throws input_error where it cannot be written.
void flush_output();

struct output {
    const options & o;
    const bool      has_heads;

    void token(const shown_token & token) const;
    void answer_end(const answer_stats & stats) const;
};

} // namespace cli

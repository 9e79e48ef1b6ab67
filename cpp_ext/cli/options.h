// The command line of autodeco-cli.

#pragma once

#include "llama.h"

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace cli {

// Bad input: one line that names the file or option, what is wrong, and what to do. main() turns it into exit code 2.
struct input_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What is taken where nothing is given, as in Python (autodeco/settings/limits.py): so many tokens of context, and
// no more than the model is trained for; a prompt in pieces of so many.
constexpr int64_t DEFAULT_CONTEXT      = -1;
constexpr int64_t MAX_DEFAULT_CONTEXT  = 4096;
constexpr int32_t DEFAULT_PROMPT_BATCH = 512;

struct options {
    std::string              model;
    std::string              heads; // empty: those in the model's file, if there are any
    std::string              prompt;
    bool                     has_prompt = false;
    bool                     chat       = false;
    std::string              system;
    int32_t                  n_predict = 0;
    int64_t                  n_ctx     = DEFAULT_CONTEXT; // 0: as trained
    int32_t                  n_batch   = 0;
    ggml_type                kv_type   = GGML_TYPE_F16;
    int32_t                  n_threads = 0;
    int32_t                  n_gpu_layers = 0;
    llama_split_mode         split_mode   = LLAMA_SPLIT_MODE_LAYER;
    int32_t                  main_gpu     = 0;
    std::vector<float>       tensor_split; // a share for each GPU; empty: by their free memory
    std::string              rpc; // servers: HOST:PORT,HOST:PORT; empty: none
    uint32_t                 seed = 0;
    float                    temperature = 1.0f;
    float                    top_p       = 1.0f;
    float                    level       = NAN; // of every answer; NaN: as its prompt says
    std::vector<std::string> stop;
    bool                     ignore_eos = false;
    bool                     show    = false;
    bool                     json    = false;
    bool                     stats   = false;
    bool                     verbose = false;
};

// Read the command line, of which the first argument is the program. Help and version are printed, and end the program.
options parse_options(const std::vector<std::string> & arguments);

// What is read from a file or a pipe, as everyone reads it who is no program: without a byte order mark and the line break
// at its end, and with lines that end alike. Throws input_error, which names it, where it is no UTF-8.
// autodeco/data/prompt_text.py does the same.
std::string prompt_text(std::string text, const std::string & name);

} // namespace cli

// The heads of a server: where they come from, what is said of them, and what they have decided so far.

#pragma once

#include "autodeco.h"

#include <memory>
#include <mutex>
#include <string>

struct common_params;
class common_json;

namespace autodeco {

// what becomes of the temperature and top-p that a client sends
enum class client_sampling { ignore, multiply, override };

struct serving {
    std::shared_ptr<autodeco_heads> heads;
    client_sampling                 policy;

    std::string file;
    std::string kind;    // sidecar, merged or embedded
    std::string weights; // their digest
    std::string verdict; // of held-out problems, "" where the file has none
    std::string warning; // "" where the heads were exported for this very file
    bool        has_temperature;
    bool        has_top_p;

    // A token was drawn.
    void count(const autodeco_decoding & decoding);

    common_json props() const;
    std::string metrics() const; // in the format of Prometheus

private:
    mutable std::mutex mutex;
    uint64_t           n_tokens    = 0;
    uint64_t           n_greedy    = 0;
    double             temperature = 0.0; // sums
    double             top_p       = 0.0;
};

// The heads that `params` name, or that the model's file brings; null where there are none. Throws std::invalid_argument,
// one line: the file, what is wrong, what to do.
std::shared_ptr<serving> open_serving(const common_params & params);

// Throws likewise where the heads cannot run with the model as it is loaded.
void check_model(const serving & serving, const llama_model * model);

// Throws std::invalid_argument where no server of llama.cpp's RPC answers at `endpoint`: llama.cpp aborts there.
void check_rpc_server(const std::string & endpoint);

// llama_model_load_from_file(), for merged files too.
llama_model * load_model_with_heads(const char * path, llama_model_params params);

// Whether the value of --client-sampling is one.
bool is_client_sampling(const std::string & text);

} // namespace autodeco

// Which operations of heads and draws the devices of this machine have.

#pragma once

#include "autodeco.h"

#include <functional>
#include <string>

namespace cli {

// What is asked of a device: as autodeco_device_predicts and _draws.
struct device_questions {
    std::function<bool(ggml_type type, autodeco_node_visitor visit, void * user_data)>  predicts;
    std::function<bool(int32_t n_vocab, autodeco_node_visitor visit, void * user_data)> draws;
};

// A line for each kind of operation, then one each for what comes of it: heads by type, draws by vocabulary.
std::string device_table(const device_questions & ask);

// The table of every device, on standard output; with what the backends log while they look for devices, if asked for.
void print_devices(bool log);

} // namespace cli

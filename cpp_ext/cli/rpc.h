// Devices of other machines, by llama.cpp's RPC.

#pragma once

#include <string>

namespace cli {

// Let llama.cpp use the devices of servers, "HOST:PORT,HOST:PORT", for every model that is loaded later. Throws input_error
// where llama.cpp has no RPC, or a server does not answer.
void use_rpc_servers(const std::string & servers);

} // namespace cli

#include "rpc.h"

#include "options.h"
#include "rpc_endpoint.h"

#include "ggml-backend.h"

#include <csignal>
#include <sstream>

namespace cli {

void use_rpc_servers(const std::string & servers) {
    ggml_backend_load_all(); // the RPC backend may be a library of its own
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    const auto         add = rpc ? (ggml_backend_reg_t (*)(const char *)) ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server") : nullptr;
    if (!add) {
        throw input_error("--rpc: this program was built without llama.cpp's RPC; build it with -DGGML_RPC=ON");
    }
#ifndef _WIN32
    std::signal(SIGPIPE, SIG_IGN); // of a server that has gone: llama.cpp's own error says so (report_aborts)
#endif
    std::istringstream list(servers);
    for (std::string endpoint; std::getline(list, endpoint, ',');) {
        const std::string complaint = autodeco::rpc_complaint(endpoint);
        if (!complaint.empty()) {
            throw input_error("--rpc: " + complaint);
        }
        ggml_backend_reg_t server = add(endpoint.c_str());
        if (!server) {
            throw input_error("--rpc: the server at " + endpoint + " has no devices");
        }
        ggml_backend_register(server);
    }
}

} // namespace cli

#include "rpc.h"

#include "options.h"

#include "ggml-backend.h"

#ifndef _WIN32
#    include <netdb.h>
#    include <sys/socket.h>
#    include <unistd.h>
#endif

#include <sstream>

namespace cli {

namespace {

// Whether somebody listens: llama.cpp aborts the process where nobody does.
bool listens(const std::string & host, const std::string & port) {
#ifdef _WIN32
    return !host.empty() && !port.empty();
#else
    addrinfo hints    = {};
    hints.ai_family   = AF_INET; // all that llama.cpp's RPC speaks
    hints.ai_socktype = SOCK_STREAM;
    addrinfo * found  = nullptr;
    if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
        return false;
    }
    const int  fd = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    const bool ok = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(found);
    return ok;
#endif
}

} // namespace

void use_rpc_servers(const std::string & servers) {
    ggml_backend_load_all(); // the RPC backend may be a library of its own
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    const auto         add = rpc ? (ggml_backend_reg_t (*)(const char *)) ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server") : nullptr;
    if (!add) {
        throw input_error("--rpc: this program was built without llama.cpp's RPC; build it with -DGGML_RPC=ON");
    }
    std::istringstream list(servers);
    for (std::string endpoint; std::getline(list, endpoint, ',');) {
        const size_t      colon = endpoint.rfind(':');
        const std::string port  = colon == std::string::npos ? "" : endpoint.substr(colon + 1);
        if (colon == 0 || port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) {
            throw input_error("--rpc: " + endpoint + " is no HOST:PORT");
        }
        ggml_backend_reg_t server = listens(endpoint.substr(0, colon), port) ? add(endpoint.c_str()) : nullptr;
        if (!server) {
            throw input_error("--rpc: no server answers at " + endpoint + "; start ggml-rpc-server there, of the same version of llama.cpp");
        }
        ggml_backend_register(server);
    }
}

} // namespace cli

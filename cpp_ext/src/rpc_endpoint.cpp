#include "rpc_endpoint.h"

#ifndef _WIN32
#    include <netdb.h>
#    include <sys/socket.h>
#    include <unistd.h>
#endif

#include <cstdlib>

namespace autodeco {

namespace {

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

bool is_port(const std::string & text) {
    return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string::npos && std::atoi(text.c_str()) <= 65535;
}

} // namespace

std::string rpc_complaint(const std::string & endpoint) {
    const size_t      colon = endpoint.rfind(':');
    const std::string host  = endpoint.substr(0, colon);
    const std::string port  = colon == std::string::npos ? "" : endpoint.substr(colon + 1);
    if (host.empty() || !is_port(port)) {
        return endpoint + " is no HOST:PORT";
    }
    return listens(host, port) ? "" : "no server answers at " + endpoint + "; start ggml-rpc-server there, of the same version of llama.cpp";
}

} // namespace autodeco

// Where a server of llama.cpp's RPC should answer: llama.cpp aborts the process where none does.

#pragma once

#include <string>

namespace autodeco {

// "" where somebody listens at `endpoint`, HOST:PORT; else one line that names it: it is no endpoint, or nobody answers.
std::string rpc_complaint(const std::string & endpoint);

} // namespace autodeco

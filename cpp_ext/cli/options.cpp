#include "options.h"

#include "devices.h"
#include "output.h"
#include "utf8.h"

// a value is one text, whatever it holds
#define CXXOPTS_VECTOR_DELIMITER '\0'
#include "cxxopts.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <thread>

namespace cli {

namespace {

constexpr const char * EXAMPLES = R"(
examples:
  autodeco-cli -m model.gguf --heads heads.gguf -p "Once upon a time" --show
  autodeco-cli -m merged.gguf --chat                       talk with it; Ctrl-C stops an answer, twice the program
  autodeco-cli -m merged.gguf --chat -f question.txt --json
)";

// more threads than this seldom help a small model, and a phone's other cores are slow ones
constexpr unsigned DEFAULT_THREADS = 4;

// what some editors begin a text in UTF-8 with
const std::string BYTE_ORDER_MARK = "\xEF\xBB\xBF";

constexpr size_t MAX_PROMPT_BYTES = 1u << 28; // llama.cpp counts bytes and tokens in 32 bits

cxxopts::Options declare_options() {
    cxxopts::Options made("autodeco-cli", "Generate text with a model that picks temperature and top-p for every token.");
    made.custom_help("-m MODEL.gguf [--heads HEADS.gguf] [-p TEXT | -f FILE] [--chat] [options]");
    made.set_width(110);
    made.add_options("model")
        ("m,model", "a model, or a file that brings its heads", cxxopts::value<std::string>(), "FILE")
        ("heads", "heads for the model", cxxopts::value<std::string>(), "FILE")
        ("c,ctx-size", "tokens of context, 0: as trained (default: " + std::to_string(MAX_DEFAULT_CONTEXT) + ", or as trained if that is less)", cxxopts::value<int64_t>(), "N")
        ("b,batch-size", "decode a prompt in pieces of so many tokens; small ones take less memory", cxxopts::value<int32_t>()->default_value(std::to_string(DEFAULT_PROMPT_BATCH)), "N")
        ("kv-type", "what keys and values of the context are kept in: f32, f16, or q8_0 for half the memory", cxxopts::value<std::string>()->default_value("f16"), "TYPE")
        ("t,threads", "CPU threads, 0: one a processor, at most 4", cxxopts::value<int32_t>()->default_value("0"), "N")
        ("g,gpu-layers", "layers on the GPU, -1: all (default: 0, with --rpc: -1)", cxxopts::value<int32_t>(), "N")
        ("split-mode", "how several GPUs share the model: layer by layer, row by row of each matrix, or none: one has it all", cxxopts::value<std::string>()->default_value("layer"), "MODE")
        ("tensor-split", "how much each GPU gets, such as 3,1 (default: as much as fits its free memory)", cxxopts::value<std::string>(), "N,N,...")
        ("main-gpu", "the GPU of --split-mode none, and of row for what is not split, from 0", cxxopts::value<int32_t>(), "N")
        ("rpc", "HOST:PORT,... of llama.cpp's RPC servers, whose devices count as GPUs; anyone who reaches a server commands it", cxxopts::value<std::string>(), "SERVERS");
    made.add_options("text")
        ("p,prompt", "the prompt", cxxopts::value<std::string>(), "TEXT")
        ("f,file", "read the prompt from a file, without the line break at its end; - is standard input", cxxopts::value<std::string>(), "FILE")
        ("chat", "put the prompt into the model's chat template; without a prompt, talk")
        ("system", "system message, with --chat", cxxopts::value<std::string>(), "TEXT")
        ("n,n-predict", "tokens an answer, -1: until the context is full", cxxopts::value<int32_t>()->default_value("256"), "N")
        ("ignore-eos", "go on past the end of text")
        ("stop", "end an answer before this text (may be given again)", cxxopts::value<std::vector<std::string>>(), "TEXT");
    made.add_options("sampling")
        ("s,seed", "of the random numbers (default: a random one)", cxxopts::value<uint32_t>(), "N")
        ("temp", "multiplies the predicted temperature, 0: greedy; without heads the temperature itself", cxxopts::value<float>()->default_value("1"), "X")
        ("top-p", "likewise for top-p", cxxopts::value<float>()->default_value("1"), "X")
        ("level", "steer answers from -1, cold, to 1, hot, by the control head of heads that have one (default: as the prompt says)", cxxopts::value<float>(), "X");
    made.add_options("output")
        ("show", "colour each token by its temperature")
        ("json", "one JSON object a line: each token with what was picked for it, then a summary")
        ("stats", "tokens per second, time to the first token and memory, on standard error")
        ("verbose", "show llama.cpp's log")
        ("devices", "show the devices of this machine, and which operations of heads and draws each has")
        ("h,help", "show this")
        ("version", "show the version");
    return made;
}

std::string read_text(const std::string & path) {
    std::ifstream  file;
    std::istream & from = path == "-" ? std::cin : file;
    if (path != "-") {
        file.open(std::filesystem::u8path(path), std::ios::binary);
    }
    std::string text;
    char        part[1 << 16];
    while (from.read(part, sizeof(part)) || from.gcount() > 0) {
        text.append(part, (size_t) from.gcount());
        if (text.size() > MAX_PROMPT_BYTES) {
            throw input_error(path + ": larger than any prompt");
        }
    }
    if (from.bad() || (path != "-" && !file.is_open())) {
        throw input_error(path + ": cannot be read");
    }
    return prompt_text(std::move(text), path == "-" ? "standard input" : path);
}

void require(bool ok, const std::string & message) {
    if (!ok) {
        throw input_error(message);
    }
}

std::vector<float> shares(const std::string & text) {
    std::vector<float> found;
    std::istringstream list(text);
    for (std::string part; std::getline(list, part, ',');) {
        char *      end   = nullptr;
        const float share = std::strtof(part.c_str(), &end);
        require(!part.empty() && *end == '\0' && std::isfinite(share) && share >= 0.0f, "--tensor-split must be numbers of 0 or more, such as 3,1");
        found.push_back(share);
    }
    require(std::any_of(found.begin(), found.end(), [](float share) { return share > 0.0f; }), "--tensor-split gives no GPU anything");
    require(found.size() <= llama_max_devices(), "--tensor-split has more numbers than llama.cpp takes devices, " + std::to_string(llama_max_devices()));
    found.resize(llama_max_devices()); // which llama.cpp reads, as far as there are devices
    return found;
}

llama_split_mode split_mode(const std::string & name) {
    require(name != "tensor", "--split-mode tensor: llama.cpp cannot sample in its graph with it; take layer, row or none");
    require(name == "layer" || name == "row" || name == "none", "--split-mode is layer, row or none");
    return name == "layer" ? LLAMA_SPLIT_MODE_LAYER : name == "row" ? LLAMA_SPLIT_MODE_ROW : LLAMA_SPLIT_MODE_NONE;
}

options to_options(const cxxopts::ParseResult & args) {
    options o;
    require(args.unmatched().empty(), "argument " + (args.unmatched().empty() ? "" : args.unmatched().front()) + " is not known; see --help");
    require(args.count("model") == 1, "-m MODEL.gguf is needed, once; see --help");
    require(!args.count("prompt") || !args.count("file"), "give -p or -f, not both");
    require(args.count("chat") || args.count("prompt") || args.count("file"), "give a prompt with -p or -f, or --chat to talk");
    require(args.count("chat") || !args.count("system"), "--system needs --chat; a plain prompt has no system message");
    require(!args.count("show") || !args.count("json"), "give --show or --json, not both");

    o.model = args["model"].as<std::string>();
    if (args.count("heads")) {
        o.heads = args["heads"].as<std::string>();
    }
    o.has_prompt = args.count("prompt") || args.count("file");
    if (args.count("prompt")) {
        o.prompt = args["prompt"].as<std::string>();
    } else if (args.count("file")) {
        o.prompt = read_text(args["file"].as<std::string>());
    }
    require(!o.has_prompt || !o.prompt.empty(), "the prompt is empty");
    o.chat = args.count("chat");
    if (args.count("system")) {
        o.system = args["system"].as<std::string>();
    }

    if (args.count("ctx-size")) {
        o.n_ctx = args["ctx-size"].as<int64_t>();
        require(o.n_ctx >= 0 && o.n_ctx <= INT32_MAX, "--ctx-size must be 0 or more");
    }
    o.n_batch = args["batch-size"].as<int32_t>();
    require(o.n_batch >= 1 && o.n_batch <= 65536, "--batch-size must be between 1 and 65536");
    const std::string kv_type = args["kv-type"].as<std::string>();
    require(kv_type == "f32" || kv_type == "f16" || kv_type == "q8_0", "--kv-type is f32, f16 or q8_0");
    o.kv_type   = kv_type == "f32" ? GGML_TYPE_F32 : kv_type == "f16" ? GGML_TYPE_F16 : GGML_TYPE_Q8_0;
    o.n_threads = args["threads"].as<int32_t>();
    require(o.n_threads >= 0 && o.n_threads <= GGML_MAX_N_THREADS, "--threads must be between 0 and " + std::to_string(GGML_MAX_N_THREADS));
    if (o.n_threads == 0) {
        o.n_threads = (int32_t) std::min(std::max(std::thread::hardware_concurrency(), 1u), DEFAULT_THREADS);
    }
    o.split_mode = split_mode(args["split-mode"].as<std::string>());
    if (args.count("tensor-split")) {
        o.tensor_split = shares(args["tensor-split"].as<std::string>());
    }
    if (args.count("main-gpu")) {
        o.main_gpu = args["main-gpu"].as<int32_t>();
        require(o.main_gpu >= 0, "--main-gpu must be 0 or more");
        require(o.split_mode != LLAMA_SPLIT_MODE_LAYER, "--main-gpu needs --split-mode none or row: layers are shared by --tensor-split");
    }
    if (args.count("rpc")) {
        o.rpc = args["rpc"].as<std::string>();
        require(!o.rpc.empty(), "--rpc is empty");
    }
    o.n_gpu_layers = args.count("gpu-layers") ? args["gpu-layers"].as<int32_t>() : o.rpc.empty() ? 0 : -1;
    require(o.n_gpu_layers >= -1, "--gpu-layers must be -1 or more");
    o.n_predict = args["n-predict"].as<int32_t>();
    require(o.n_predict >= -1, "--n-predict must be -1 or more");

    o.seed        = args.count("seed") ? args["seed"].as<uint32_t>() : LLAMA_DEFAULT_SEED;
    o.temperature = args["temp"].as<float>();
    o.top_p       = args["top-p"].as<float>();
    require(std::isfinite(o.temperature) && o.temperature >= 0.0f, "--temp must be 0 or more");
    require(std::isfinite(o.top_p) && o.top_p >= 0.0f, "--top-p must be 0 or more");
    if (args.count("level")) {
        o.level = args["level"].as<float>();
        require(o.level >= -1.0f && o.level <= 1.0f, "--level must be between -1 and 1");
    }
    if (args.count("stop")) {
        o.stop = args["stop"].as<std::vector<std::string>>();
        for (const std::string & text : o.stop) {
            require(!text.empty(), "--stop is empty");
        }
    }
    o.ignore_eos = args.count("ignore-eos");
    o.show    = args.count("show");
    o.json    = args.count("json");
    o.stats   = args.count("stats");
    o.verbose = args.count("verbose");
    return o;
}

} // namespace

std::string prompt_text(std::string text, const std::string & name) {
    if (text.compare(0, 2, "\xFF\xFE") == 0 || text.compare(0, 2, "\xFE\xFF") == 0) {
        throw input_error(name + ": is UTF-16; save it as UTF-8");
    }
    if (text.compare(0, BYTE_ORDER_MARK.size(), BYTE_ORDER_MARK) == 0) {
        text.erase(0, BYTE_ORDER_MARK.size());
    }
    if (const size_t at = autodeco::not_utf8_at(text); at != std::string::npos) {
        throw input_error(name + ": byte " + std::to_string(at) + " is no UTF-8; save it as UTF-8");
    }
    for (size_t at = 0; (at = text.find("\r\n", at)) != std::string::npos;) {
        text.erase(at, 1);
    }
    if (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    return text;
}

options parse_options(const std::vector<std::string> & arguments) {
    cxxopts::Options made = declare_options();
    try {
        std::vector<const char *> words;
        for (const std::string & argument : arguments) {
            words.push_back(argument.c_str());
        }
        const cxxopts::ParseResult args = made.parse((int) words.size(), words.data());
        if (args.count("help")) {
            printf("%s%s", made.help().c_str(), EXAMPLES);
            flush_output();
            exit(0);
        }
        if (args.count("version")) {
            printf("autodeco-cli %s, llama.cpp %s\n", AUTODECO_VERSION, AUTODECO_LLAMA_CPP_VERSION);
            flush_output();
            exit(0);
        }
        if (args.count("devices")) {
            print_devices(args.count("verbose"));
            flush_output();
            exit(0);
        }
        return to_options(args);
    } catch (const cxxopts::exceptions::exception & e) {
        throw input_error(std::string(e.what()) + "; see --help");
    }
}

} // namespace cli

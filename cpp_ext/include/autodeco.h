// AutoDeco: heads that predict temperature and top-p for every token, inside llama.cpp's compute graph.
//
// Method: "The End of Manual Decoding", arXiv 2510.26697. File format: docs/architecture.md.
//
// A C interface in the manner of llama.h, with llama.cpp's own types: a model, a context and a sampler chain are llama.cpp's.
//
// Errors. A function that can fail returns NULL (or false) and fills the `struct autodeco_error` it was given: a code for
// the program, one line for the user; AUTODECO_OK and an empty line when it did not fail. NULL in its place is allowed. Each
// such function names its codes; AUTODECO_ERROR_ARGUMENT, for a NULL where something is needed, AUTODECO_ERROR_MEMORY and
// AUTODECO_ERROR_INTERNAL can come from all of them. The others do nothing, or return 0, false or "", when they are given NULL or, where a sampler
// is wanted, a sampler that is not of this library. Nothing here throws, or aborts on bad input.
//
// Threads. Nothing here is global. Loaded heads are read-only: any number of threads and samplers may share them. A sampler
// belongs to one sequence of one context, and is used by one thread at a time, the one that drives that context. Different
// samplers may be used by different threads at once, and everything about heads and models by any.
//
// Paths are UTF-8, on Windows too, as llama.cpp's are.
//
// Language. C99 and C++11, as far as this header goes; llama.h, which it includes, is C11 and C++11.
//
// Stability. The version is that of the package. Below 1.0 each minor version may change functions, fields and the binary
// interface; compile anew. From 1.0 on they keep their meaning within a major version. New codes may come in any version.

#pragma once

#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(AUTODECO_SHARED)
#    define AUTODECO_API
#elif !defined(_WIN32)
#    define AUTODECO_API __attribute__((visibility("default")))
#elif defined(AUTODECO_BUILD)
#    define AUTODECO_API __declspec(dllexport)
#else
#    define AUTODECO_API __declspec(dllimport)
#endif

#define AUTODECO_VERSION_MAJOR 0
#define AUTODECO_VERSION_MINOR 2

#ifdef __cplusplus
extern "C" {
#endif

//
// Errors
//

enum autodeco_code {
    AUTODECO_OK             = 0,
    AUTODECO_ERROR_ARGUMENT = 1, // NULL where something is needed, or a value outside its range
    AUTODECO_ERROR_FILE     = 2, // the file cannot be opened or read
    AUTODECO_ERROR_FORMAT   = 3, // no GGUF, cut short, or not as the schema says
    AUTODECO_ERROR_NO_HEADS = 4, // a good GGUF without heads in it
    AUTODECO_ERROR_FIT      = 5, // the heads were made for another model
    AUTODECO_ERROR_MODEL    = 6, // llama.cpp does not load the model; its log says why
    AUTODECO_ERROR_MEMORY   = 7, // memory cannot be had

    AUTODECO_ERROR_OTHER_FILE = 8, // the heads were exported for another file of the same shape
    AUTODECO_ERROR_INTERNAL   = 9, // a fault of this library, which the line describes
};

struct autodeco_error {
    int32_t code;         // enum autodeco_code
    char    message[508]; // one line: the file, what is wrong, what to do
};

//
// Heads
//

struct autodeco_heads;

// Read heads from a GGUF file: a sidecar, or a merged or embedded file (the base model's tensors in it are not read). Free
// them with autodeco_heads_free(). Errors: _FILE, _FORMAT, _NO_HEADS.
AUTODECO_API struct autodeco_heads * autodeco_heads_load(const char * path, struct autodeco_error * error);

// The same from the bytes of such a file, which may be freed afterwards. `size` is in bytes. Errors: _FORMAT, _NO_HEADS.
AUTODECO_API struct autodeco_heads * autodeco_heads_load_from_memory(const void * data, size_t size, struct autodeco_error * error);

// Samplers keep what they need: heads may be freed while samplers that use them live on. NULL is allowed.
AUTODECO_API void autodeco_heads_free(struct autodeco_heads * heads);

// Width of the hidden states and number of tokens of the model that the heads are for; which heads there are; whether the
// top-p head reads the four statistics of the distribution. A control head is only there beside both others.
AUTODECO_API int32_t autodeco_heads_n_embd         (const struct autodeco_heads * heads);
AUTODECO_API int32_t autodeco_heads_n_vocab        (const struct autodeco_heads * heads);
AUTODECO_API bool    autodeco_heads_has_temperature(const struct autodeco_heads * heads);
AUTODECO_API bool    autodeco_heads_has_top_p      (const struct autodeco_heads * heads);
AUTODECO_API bool    autodeco_heads_has_control    (const struct autodeco_heads * heads);
AUTODECO_API bool    autodeco_heads_has_prob_stats (const struct autodeco_heads * heads);

// Name and fingerprint of the model file that the heads were exported for, "" where theirs does not say; they live as long
// as the heads. docs/export.md has the fingerprint's definition.
AUTODECO_API const char * autodeco_heads_base_name       (const struct autodeco_heads * heads);
AUTODECO_API const char * autodeco_heads_base_fingerprint(const struct autodeco_heads * heads);

// Whether the heads can run with the model: false when its width or vocabulary is another, or when it does not write one
// token after the other (autodeco_model_writes). Errors: _FIT.
AUTODECO_API bool autodeco_heads_fit(const struct autodeco_heads * heads, const struct llama_model * model, struct autodeco_error * error);

// Whether the heads were exported for the very model in the file at `path`, of any layout with a model (of a split model, its
// first part), by the fingerprint: a few milliseconds. Heads that fit run with another file too, such as another quantization, but
// may choose badly: show the user the line. Errors: _OTHER_FILE, which names both; _FILE, _FORMAT.
AUTODECO_API bool autodeco_heads_made_for(const struct autodeco_heads * heads, const char * path, struct autodeco_error * error);

// Load a model by llama.cpp: a plain or embedded GGUF, or the model inside a merged file, mapped where it lies. Free it with
// llama_model_free(). The heads in a merged or embedded file come from autodeco_heads_load() of the same path. llama.cpp itself can abort on
// a file that was made to harm. Errors: _FILE, _FORMAT, _MODEL.
AUTODECO_API struct llama_model * autodeco_model_load(const char * path, struct llama_model_params params, struct autodeco_error * error);

// Whether the model writes one token after the other, as heads need: false for encoder-decoder, embedding, diffusion and draft
// models, which llama.cpp loads too, and may abort on when they are decoded like others. Errors: _FIT.
AUTODECO_API bool autodeco_model_writes(const struct llama_model * model, struct autodeco_error * error);

//
// Devices
//

// Called for each operation that a device is asked for: `node` has shapes and types and no memory, and lives during the call.
typedef void (*autodeco_node_visitor)(const struct ggml_tensor * node, bool supported, void * user_data);

// Whether a device has all operations that predict with heads of weights of `type` from hidden states [n_embd], or that draw
// from logits [n_vocab]. What it lacks the CPU does, to which the scheduler then brings what is read. Asks the device, and
// allocates nothing there. `visit` may be NULL. A CPU predicts and draws by nodes of its own, whatever it says. A server of
// RPC says yes to everything.
AUTODECO_API bool autodeco_device_predicts(ggml_backend_dev_t device, int32_t n_embd, enum ggml_type type, autodeco_node_visitor visit, void * user_data);
AUTODECO_API bool autodeco_device_draws   (ggml_backend_dev_t device, int32_t n_vocab, autodeco_node_visitor visit, void * user_data);

//
// Samplers
//

struct autodeco_params {
    uint32_t seed;        // LLAMA_DEFAULT_SEED: a random one
    float    temperature; // 0 or more, multiplies the predicted temperature; 0: greedy
    float    top_p;       // 0 or more, multiplies the predicted top-p; the product is cut to 1
};

AUTODECO_API struct autodeco_params autodeco_default_params(void); // random seed, 1.0, 1.0

// What was decided for one token.
struct autodeco_decoding {
    int32_t token;
    float   temperature; // predicted, and steered by a control head, before the user's multiplier
    float   top_p;       // likewise
    int32_t nucleus;     // tokens that could have been drawn
    float   prob;        // probability of the token among them
    int32_t status;      // 0: ok, else autodeco_status_message() says what was wrong with the logits
};

// Statuses with which nothing was decided: the other fields mean nothing.
#define AUTODECO_STATUS_NOT_ATTACHED 100 // no context has attached the sampler, or one before it works on the host
#define AUTODECO_STATUS_NO_SAMPLER   101 // NULL, or a sampler that is not of this library
#define AUTODECO_STATUS_NOT_DECODED  102 // attached, and nothing was decoded since
#define AUTODECO_STATUS_LOST         103 // on a device, the context built another graph before the decision was asked for
#define AUTODECO_STATUS_NOT_ALONE    104 // another sampler of the chain works before ours, or takes what it gives
#define AUTODECO_STATUS_NO_CANDIDATE 105 // the samplers before the host stage left no token

// A line that need not be freed; "unknown" for a status that is none.
AUTODECO_API const char * autodeco_status_message(int32_t status);

// A sampler that decides everything inside the compute graph: temperature, top-p, and the token. Add it to a chain as the
// only member, and attach the chain to a sequence with llama_context_params.samplers or llama_set_sampler. After each
// decode, llama_sampler_sample() on the chain returns the token. Only graph sampling is possible: on a chain that is not
// attached to a context, the hidden state cannot be seen. Beside another sampler that works in the graph or before it, it
// decides nothing: the chain gives the token of that one, or the likeliest, and the status is NOT_ALONE. (llama.cpp skips
// those behind it that work on the host only.) Like every sampler here it is NULL when an argument is or memory
// cannot be had, and is freed by the chain that it was added to.
AUTODECO_API struct llama_sampler * autodeco_sampler_init(const struct autodeco_heads * heads, struct autodeco_params params);

// The same without heads: temperature and top-p are those of the params, for the sequences of a batch that use none.
AUTODECO_API struct llama_sampler * autodeco_sampler_init_static(struct autodeco_params params);

// A sampler that computes temperature and top-p in the graph and leaves the logits to the host. Attach its chain as above,
// then sample with another chain that ends in autodeco_sampler_init_host(observer): penalties, grammars, logit bias and
// the rest run before it, on the host.
AUTODECO_API struct llama_sampler * autodeco_sampler_init_observer(const struct autodeco_heads * heads, struct autodeco_params params);

// Host stages of an observer, which must outlive them. The first divides the logits by the temperature, for samplers that
// truncate by probability (min-p, typical, ...); the second applies what is left of temperature and top-p and draws, and is
// the last of its chain: where another one draws after it, the status is NOT_ALONE when that token is accepted.
AUTODECO_API struct llama_sampler * autodeco_sampler_init_host_temperature(struct llama_sampler * observer);
AUTODECO_API struct llama_sampler * autodeco_sampler_init_host            (struct llama_sampler * observer);

// Tell an observer that is attached to no context what to use for the next token: for contexts whose every token is an
// output, where temperature and top-p are computed from hidden states and logits on the host.
AUTODECO_API void autodeco_sampler_observe(struct llama_sampler * observer, float temperature, float top_p);

// Several outputs of a sequence in one decode, as when a draft is checked: set llama_context_params.n_outputs_max_per_seq. Each
// output has its own temperature, top-p and random number. Tokens are sampled and accepted in the order of the outputs, from the
// first on, as long as they are those of the draft; of the outputs behind, nothing counts. Random number i is that of accepted
// token i, whatever was drafted: drafts change no text, as far as the logits are the same. After llama_sampler_copy() from a copy
// made before, the same tokens are drawn again.
//
// Where more than one output is allowed, tell the sampler before the next decode if no token was accepted from the last one:
// llama.cpp may cut one decode into several graphs, and a sampler takes the two for one.
AUTODECO_API void autodeco_sampler_discard(struct llama_sampler * smpl);

// Before a decode whose outputs are those of a token and of the `n` drafted ones behind it, the draft: on a CPU the graph then
// computes no output behind the first token that it draws otherwise. Nothing may be sampled from those. It is optional.
AUTODECO_API void autodeco_sampler_expect(struct llama_sampler * smpl, const llama_token * draft, size_t n);

// Change the settings of autodeco_sampler_init or _observer and restart its random numbers.
AUTODECO_API void autodeco_sampler_set_params(struct llama_sampler * smpl, struct autodeco_params params);

// Take the temperature (the top-p) of the params as it is instead of multiplying the prediction by it.
AUTODECO_API void autodeco_sampler_set_fixed(struct llama_sampler * smpl, bool temperature, bool top_p);

// Steer the answer by a level in [-1, 1], -1 towards cold and 1 towards hot, instead of the one that a control head reads; others
// are cut to that range. NaN, the default: by the level that the control head reads at the state that the answer's first token is
// drawn from, which all its tokens then keep, those of a draft behind the first one included. A level is of the answer once that token is
// accepted. An answer ends, and its level is forgotten, with this call, autodeco_sampler_set_params and llama_sampler_reset: call
// one of them before the decode of the next answer's prompt. Copies of a sampler keep the level. 0 and heads without a control
// head steer nothing.
AUTODECO_API void autodeco_sampler_set_level(struct llama_sampler * smpl, float level);

// Cut the distribution before top-p: tokens below min_p (0: none) times the probability of the likeliest, then all but
// top_k (0: all) tokens. For graph sampling; on the host, llama.cpp's own samplers do it.
AUTODECO_API void autodeco_sampler_set_cuts(struct llama_sampler * smpl, int32_t top_k, float min_p);

// The decision of the last decode (autodeco_sampler_init) or of the last host draw (observer); of several outputs, that of the
// token that was accepted last, or of the first output before that. For graph sampling call it
// after llama_sampler_sample, or after llama_get_sampled_token_ith and llama_sampler_accept: then the sampler holds the
// decision itself, whatever becomes of the context. Before the token is accepted it lies in the context's memory on a
// device: wait with llama_synchronize, and ask before the chain is detached or the context freed, which llama.cpp does not
// tell a sampler. After a llama_decode that failed, as that of an empty batch does, sample nothing: llama.cpp still has the
// token of the decode before.
AUTODECO_API struct autodeco_decoding autodeco_sampler_last(const struct llama_sampler * smpl);

#ifdef __cplusplus
}
#endif

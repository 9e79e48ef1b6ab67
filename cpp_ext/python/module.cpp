// The Python module autodeco._native: arrays in, arrays out, and the sampler's life cycle. Checks and docstrings for users
// stand in autodeco/native.py.

#include "autodeco.h"

#include "control.h"
#include "kernel/distribution.h"
#include "heads.h"
#include "heads_predict.h"
#include "hidden_states.h"
#include "language_model.h"
#include "log_filter.h"
#include "row_draws.h"
#include "sampler_state.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace py = pybind11;

namespace {

using float_array  = py::array_t<float, py::array::c_style | py::array::forcecast>;
using double_array = py::array_t<double, py::array::c_style | py::array::forcecast>;
using row_array    = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
using flag_array   = py::array_t<bool, py::array::c_style | py::array::forcecast>;

// Raise ValueError with what the C interface said, in which paths and names need not be UTF-8.
[[noreturn]] void raise(const autodeco_error & error) {
    const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(error.message, (Py_ssize_t) std::strlen(error.message), "surrogateescape"));
    PyErr_SetObject(PyExc_ValueError, text.ptr());
    throw py::error_already_set();
}

struct heads_deleter {
    void operator()(autodeco_heads * heads) const { autodeco_heads_free(heads); }
};

class heads {
public:
    explicit heads(const std::string & path) {
        autodeco_error error;
        {
            py::gil_scoped_release release;
            ptr.reset(autodeco_heads_load(path.c_str(), &error));
        }
        if (!ptr) {
            raise(error);
        }
    }

    const autodeco_heads * get() const { return ptr.get(); }

    void check_fit(uintptr_t model) const {
        autodeco_error error;
        if (!autodeco_heads_fit(ptr.get(), (const llama_model *) model, &error)) {
            raise(error);
        }
    }

    void check_made_for(const std::string & path) const {
        autodeco_error error;
        if (!autodeco_heads_made_for(ptr.get(), path.c_str(), &error)) {
            raise(error);
        }
    }

    py::tuple predict(const float_array & hidden, const float_array & logits) const {
        const autodeco::heads_data & data = *ptr->data;
        if (hidden.ndim() != 2 || logits.ndim() != 2 || hidden.shape(0) != logits.shape(0)) {
            throw std::invalid_argument("expected hidden [n, H] and logits [n, V] with the same n");
        }
        if (hidden.shape(1) != data.n_embd) {
            throw std::invalid_argument("hidden has width " + std::to_string(hidden.shape(1)) + ", the heads are made for " + std::to_string(data.n_embd));
        }
        if (logits.shape(1) != data.n_vocab) {
            throw std::invalid_argument("logits have width " + std::to_string(logits.shape(1)) + ", the heads are made for " + std::to_string(data.n_vocab));
        }
        py::array_t<float> temperature(hidden.shape(0));
        py::array_t<float> top_p(hidden.shape(0));
        std::string        error;
        bool               ok;
        {
            const float * h = hidden.data();
            const float * z = logits.data();
            float *       t = temperature.mutable_data();
            float *       p = top_p.mutable_data();
            const int64_t n = hidden.shape(0);
            const int64_t v = logits.shape(1);
            py::gil_scoped_release release;
            ok = autodeco::heads_predict(data, h, z, n, v, t, p, error);
        }
        if (!ok) {
            throw std::invalid_argument(error);
        }
        return py::make_tuple(temperature, top_p);
    }

    py::array_t<float> levels(const float_array & hidden) const {
        const autodeco::heads_data & data = *ptr->data;
        if (hidden.ndim() != 2 || hidden.shape(1) != data.n_embd) {
            throw std::invalid_argument("expected hidden [n, " + std::to_string(data.n_embd) + "], the width that the heads are made for");
        }
        py::array_t<float> found(hidden.shape(0));
        std::string        error;
        if (!autodeco::heads_levels(data, hidden.data(), hidden.shape(0), found.mutable_data(), error)) {
            throw std::invalid_argument(error);
        }
        return found;
    }

    py::tuple steered(const float_array & temperature, const float_array & top_p, float level) const {
        if (temperature.ndim() != 1 || top_p.ndim() != 1 || temperature.shape(0) != top_p.shape(0)) {
            throw std::invalid_argument("expected temperature [n] and top_p [n] with the same n");
        }
        py::array_t<float> led_t(temperature.shape(0));
        py::array_t<float> led_p(temperature.shape(0));
        for (py::ssize_t i = 0; i < temperature.shape(0); ++i) {
            float t = temperature.at(i);
            float p = top_p.at(i);
            if (ptr->data->has_control) {
                autodeco::steer(ptr->data->control, level, t, p);
            }
            led_t.mutable_at(i) = t;
            led_p.mutable_at(i) = p;
        }
        return py::make_tuple(led_t, led_p);
    }

private:
    std::unique_ptr<autodeco_heads, heads_deleter> ptr;
};

// Throw for the request `index` if it cannot be drawn from one of `n_rows` rows.
void check_request(const autodeco::draw_request & request, py::ssize_t index, py::ssize_t n_rows) {
    const char * wrong = !(request.uniform >= 0.0 && request.uniform < 1.0) ? "u is outside [0, 1)" :
                         !(request.temperature >= 0.0f)                     ? "temperature is negative or NaN" :
                         std::isnan(request.top_p)                          ? "top-p is NaN" :
                         request.row < 0 || request.row >= n_rows           ? "there is no such row of logits" :
                                                                              nullptr;
    if (wrong) {
        throw std::invalid_argument("row " + std::to_string(index) + ": " + wrong);
    }
}

// Request i draws from row rows[i] of the logits; None: from row i.
py::array_t<int32_t> nucleus_sample(const float_array & logits, const float_array & temperature, const float_array & top_p, const double_array & u,
                                    const std::optional<row_array> & rows) {
    const py::ssize_t n = rows ? (rows->ndim() == 1 ? rows->shape(0) : -1) : logits.ndim() == 2 ? logits.shape(0) : -1;
    if (logits.ndim() != 2 || temperature.ndim() != 1 || top_p.ndim() != 1 || u.ndim() != 1 || temperature.shape(0) != n || top_p.shape(0) != n || u.shape(0) != n) {
        throw std::invalid_argument(rows ? "expected logits [m, V], and temperature [n], top_p [n], u [n] and rows [n] with the same n" :
                                           "expected logits [n, V], temperature [n], top_p [n] and u [n] with the same n");
    }
    std::vector<autodeco::draw_request> requests;
    for (py::ssize_t i = 0; i < n; ++i) {
        requests.push_back({ rows ? rows->at(i) : i, temperature.at(i), top_p.at(i), u.at(i) });
        check_request(requests.back(), i, logits.shape(0));
    }
    std::vector<autodeco::token_draw> draws(requests.size());
    {
        const float * z = logits.data();
        const int64_t v = logits.shape(1);
        py::gil_scoped_release  release;
        autodeco::row_workspace ws;
        autodeco::nucleus_samples(z, v, requests.data(), (int64_t) requests.size(), ws, draws.data());
    }
    py::array_t<int32_t> tokens(n);
    for (py::ssize_t i = 0; i < n; ++i) {
        if (draws[i].status != autodeco::row_status::ok) {
            throw std::invalid_argument("row " + std::to_string(i) + ": " + autodeco::row_status_message(draws[i].status));
        }
        tokens.mutable_at(i) = draws[i].token;
    }
    return tokens;
}

// Tokens, temperatures, top-p and levels [n]; request i draws from row rows[i], in ascending order, of hidden states and logits.
py::tuple draw_from_rows(const heads * h, const float_array & hidden, const float_array & logits, const row_array & rows, const float_array & temperature,
                         const float_array & top_p, const flag_array & by_temperature_head, const flag_array & by_top_p_head, const double_array & u,
                         const double_array & top_p_noise, const float_array & level) {
    const py::ssize_t n = rows.ndim() == 1 ? rows.shape(0) : -1;
    for (const py::array * each : { (const py::array *) &temperature, (const py::array *) &top_p, (const py::array *) &by_temperature_head,
                                    (const py::array *) &by_top_p_head, (const py::array *) &u, (const py::array *) &top_p_noise, (const py::array *) &level }) {
        if (each->ndim() != 1 || each->shape(0) != n) {
            throw std::invalid_argument("expected rows, temperature, top_p, by_temperature_head, by_top_p_head, u, top_p_noise and level [n] with the same n");
        }
    }
    if (hidden.ndim() != 2 || logits.ndim() != 2 || hidden.shape(0) != logits.shape(0)) {
        throw std::invalid_argument("expected hidden [m, H] and logits [m, V] with the same m");
    }
    const autodeco::heads_data * data = h ? h->get()->data.get() : nullptr;
    if (data && (hidden.shape(1) != data->n_embd || logits.shape(1) != data->n_vocab)) {
        throw std::invalid_argument("the heads are made for a width of " + std::to_string(data->n_embd) + " and a vocabulary of " + std::to_string(data->n_vocab));
    }
    std::vector<autodeco::guided_draw> draws;
    for (py::ssize_t i = 0; i < n; ++i) {
        draws.push_back({ { rows.at(i), temperature.at(i), top_p.at(i), u.at(i) }, by_temperature_head.at(i), by_top_p_head.at(i), top_p_noise.at(i), level.at(i) });
        const autodeco::guided_draw & draw = draws.back();
        check_request(draw.request, i, logits.shape(0));
        if (std::abs(draw.level) > 1.0f) {
            throw std::invalid_argument("row " + std::to_string(i) + ": level is outside [-1, 1]");
        }
        if (i > 0 && draw.request.row < draws[i - 1].request.row) {
            throw std::invalid_argument("row " + std::to_string(i) + ": stands before a lower row");
        }
        if (!data && (draw.by_temperature_head || draw.by_top_p_head)) {
            throw std::invalid_argument("row " + std::to_string(i) + ": wants heads, and there are none");
        }
    }
    py::array_t<int32_t> tokens(n);
    py::array_t<float>   used_temperature(n);
    py::array_t<float>   used_top_p(n);
    py::array_t<float>   used_level(n);
    std::string          error;
    bool                 ok;
    {
        const float *   states  = hidden.data();
        const float *   z       = logits.data();
        const int64_t   n_vocab = logits.shape(1);
        int32_t * const token   = tokens.mutable_data();
        float * const   t       = used_temperature.mutable_data();
        float * const   p       = used_top_p.mutable_data();
        float * const   led_by  = used_level.mutable_data();
        py::gil_scoped_release release;
        ok = autodeco::draw_from_rows(data, states, z, n_vocab, draws.data(), (int64_t) draws.size(), token, t, p, led_by, error);
    }
    if (!ok) {
        throw std::invalid_argument(error);
    }
    return py::make_tuple(tokens, used_temperature, used_top_p, used_level);
}

py::tuple spread(const float_array & logits) {
    if (logits.ndim() != 1) {
        throw std::invalid_argument("expected logits [V]");
    }
    autodeco::spread found;
    {
        const float * z = logits.data();
        const int64_t n = logits.shape(0);
        py::gil_scoped_release release;
        found = autodeco::spread_of_row(z, n);
    }
    if (found.status != autodeco::row_status::ok) {
        throw std::invalid_argument(autodeco::row_status_message(found.status));
    }
    return py::make_tuple(found.entropy, found.max_prob);
}

// A chain with one sampler of ours, attached to a context. llama.cpp keeps pointers to it: it must be detached or outlive
// the context.
class graph_sampler {
public:
    // without heads (null) only a sampler that is no observer
    graph_sampler(const heads * h, bool observer) : observer(observer) {
        if (!h && observer) {
            throw std::invalid_argument("an observer needs heads");
        }
        smpl  = not_null(observer ? autodeco_sampler_init_observer(h->get(), autodeco_default_params()) :
                               h ? autodeco_sampler_init(h->get(), autodeco_default_params()) : autodeco_sampler_init_static(autodeco_default_params()));
        chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
        llama_sampler_chain_add(chain, smpl);
    }

    graph_sampler(const graph_sampler &) = delete;
    graph_sampler & operator=(const graph_sampler &) = delete;

    ~graph_sampler() {
        detach();
        llama_sampler_free(chain);
    }

    bool attach(uintptr_t ctx, llama_seq_id seq_id) {
        if (attached) {
            throw std::logic_error("a sampler is attached once only");
        }
        const bool ok = llama_set_sampler((llama_context *) ctx, seq_id, chain);
        if (ok) {
            attached = (llama_context *) ctx;
            seq      = seq_id;
        }
        return ok;
    }

    void detach() {
        if (attached) {
            llama_synchronize(attached);
            autodeco::let_go(autodeco::state_of(smpl), true);
            llama_set_sampler(attached, seq, nullptr);
            attached = nullptr;
        }
    }

    // the context is gone: there is nothing to detach from
    void forget() {
        autodeco::let_go(autodeco::state_of(smpl), false);
        attached = nullptr;
    }

    void set_params(uint32_t seed, float temperature, float top_p) { autodeco_sampler_set_params(smpl, { seed, temperature, top_p }); }

    void set_fixed(bool temperature, bool top_p) { autodeco_sampler_set_fixed(smpl, temperature, top_p); }
    void set_level(float level) { autodeco_sampler_set_level(smpl, level); }
    void set_cuts(int32_t top_k, float min_p) { autodeco_sampler_set_cuts(smpl, top_k, min_p); }

    // what the graph drew for output `idx` of the last decode, as last() returns it; outputs are sampled in their order
    py::tuple sample(int32_t idx) {
        if (!attached) {
            throw std::logic_error("the sampler is not attached");
        }
        const autodeco::sampler_state & state = autodeco::state_of(smpl);
        if (state.next_output >= state.n_outputs()) { // what the context has was sampled before, or is of another sampler
            throw std::logic_error("nothing was decoded since the last token was sampled");
        }
        llama_token token;
        {
            py::gil_scoped_release release; // waits for the device
            token = llama_get_sampled_token_ith(attached, idx);
        }
        check();
        if (token == LLAMA_TOKEN_NULL) {
            throw std::runtime_error("llama.cpp sampled no token in its graph for this output");
        }
        llama_sampler_accept(chain, token);
        return last();
    }

    // the outputs of the last decode will not be sampled any more
    void discard() { autodeco_sampler_discard(smpl); }

    // the draft that the next decode checks: what is behind the first token that is drawn otherwise is not sampled
    void expect(const std::vector<llama_token> & draft) { autodeco_sampler_expect(smpl, draft.data(), draft.size()); }

    // whether the graph draws where the host cannot read the logits, so that only an observer can leave the draw to the host
    bool draws_on_device() const { return autodeco::state_of(smpl).on_device; }

    // from the next decode on: let the graph keep the logits for sample_on_host(), or draw
    void set_draws_on_host(bool on_host) { autodeco::state_of(smpl).draws_on_host = on_host; }
    bool draws_on_host() const { return autodeco::state_of(smpl).draws_on_host; }

    // what `host_chain`, which ends in host_stage(), draws from the logits that the last decode kept, as last() returns it
    py::tuple sample_on_host(uintptr_t host_chain) {
        if (!attached) {
            throw std::logic_error("the sampler is not attached");
        }
        llama_token token;
        {
            py::gil_scoped_release release; // callbacks of the chain take it again
            llama_synchronize(attached);
            token = autodeco::sample_on_host(autodeco::state_of(smpl), (llama_sampler *) host_chain);
        }
        check();
        if (token == LLAMA_TOKEN_NULL) {
            throw std::runtime_error("llama.cpp's graph kept no logits for the host, or its samplers drew no token");
        }
        return last();
    }

    // what an observer that is attached to no context uses next
    void observe(float temperature, float top_p) { autodeco_sampler_observe(smpl, temperature, top_p); }

    // raises for logits that could not be drawn from
    void check() const {
        const int32_t status = autodeco_sampler_last(smpl).status;
        if (status != 0) {
            throw std::invalid_argument(autodeco_status_message(status));
        }
    }

    const bool observer;

    py::tuple last() const {
        const autodeco_decoding d = autodeco_sampler_last(smpl);
        return py::make_tuple(d.token, d.temperature, d.top_p, d.nucleus, d.prob);
    }

    // new host stages for a chain, which takes ownership of them
    uintptr_t host_temperature_stage() { return (uintptr_t) not_null(autodeco_sampler_init_host_temperature(smpl)); }
    uintptr_t host_stage() { return (uintptr_t) not_null(autodeco_sampler_init_host(smpl)); }

private:
    // samplers are NULL for want of memory only, where their arguments are not
    static llama_sampler * not_null(llama_sampler * made) {
        if (!made) {
            throw std::bad_alloc();
        }
        return made;
    }

    llama_sampler * chain;
    llama_sampler * smpl;
    llama_context * attached = nullptr;
    llama_seq_id    seq      = 0;
};

// a copy: the next decode may move the rows
py::array_t<float> rows_of(const autodeco::hidden_states & states) {
    if (states.wrong()) {
        throw std::runtime_error(states.wrong());
    }
    const std::vector<float> & rows  = states.rows();
    const auto                 width = (py::ssize_t) states.width();
    return py::array_t<float>({ rows.empty() ? 0 : (py::ssize_t) rows.size() / width, width }, rows.data());
}

// Sizes of the structures that llama-cpp-python and this module hand to each other and to llama.cpp, and the places of the
// fields that are set in one and read in the other.
py::dict layout() {
    py::dict result;
    result["llama_model_params"]                     = sizeof(llama_model_params);
    result["llama_context_params"]                   = sizeof(llama_context_params);
    result["llama_context_params.n_seq_max"]         = offsetof(llama_context_params, n_seq_max);
    result["llama_context_params.cb_eval"]           = offsetof(llama_context_params, cb_eval);
    result["llama_context_params.cb_eval_user_data"] = offsetof(llama_context_params, cb_eval_user_data);
    result["llama_context_params.embeddings"]        = offsetof(llama_context_params, embeddings);
    result["llama_batch"]                            = sizeof(llama_batch);
    result["llama_token_data"]                       = sizeof(llama_token_data);
    result["llama_token_data_array"]                 = sizeof(llama_token_data_array);
    result["llama_sampler"]                          = sizeof(llama_sampler);
    return result;
}

} // namespace

PYBIND11_MODULE(_native, m) {
    m.attr("LLAMA_CPP_PYTHON_VERSION") = AUTODECO_LLAMA_CPP_PYTHON_VERSION;
    m.attr("GGML_VERSION")             = AUTODECO_GGML_VERSION;
    m.attr("LAYOUT")                   = layout();
    m.attr("ISA")                      = autodeco::distribution_isa();
    m.def("loaded_ggml", &ggml_version);

    py::class_<heads>(m, "Heads")
        .def(py::init<const std::string &>())
        .def_property_readonly("embedding_length", [](const heads & h) { return autodeco_heads_n_embd(h.get()); })
        .def_property_readonly("vocab_size", [](const heads & h) { return autodeco_heads_n_vocab(h.get()); })
        .def_property_readonly("has_temperature", [](const heads & h) { return autodeco_heads_has_temperature(h.get()); })
        .def_property_readonly("has_top_p", [](const heads & h) { return autodeco_heads_has_top_p(h.get()); })
        .def_property_readonly("has_control", [](const heads & h) { return autodeco_heads_has_control(h.get()); })
        .def_property_readonly("prob_stats", [](const heads & h) { return autodeco_heads_has_prob_stats(h.get()); })
        .def("check_fit", &heads::check_fit)
        .def("check_made_for", &heads::check_made_for)
        .def("predict", &heads::predict)
        .def("levels", &heads::levels)
        .def("steered", &heads::steered);

    m.def("refused_model", &autodeco::refused_model, py::arg("architecture"), py::arg("causal"), py::arg("pooling"));

    m.def("nucleus_sample", &nucleus_sample, py::arg("logits"), py::arg("temperature"), py::arg("top_p"), py::arg("u"), py::arg("rows") = py::none());

    m.def("draw_from_rows", &draw_from_rows, py::arg("heads").none(true), py::arg("hidden"), py::arg("logits"), py::arg("rows"), py::arg("temperature"),
          py::arg("top_p"), py::arg("by_temperature_head"), py::arg("by_top_p_head"), py::arg("u"), py::arg("top_p_noise"), py::arg("level"));
    m.def("spread", &spread, py::arg("logits"));

    m.def("begin_log_filter", &autodeco::log_filter::begin);
    m.def("end_log_filter", &autodeco::log_filter::end);

    py::class_<graph_sampler>(m, "GraphSampler")
        .def(py::init<const heads *, bool>())
        .def_readonly("observer", &graph_sampler::observer)
        .def("attach", &graph_sampler::attach)
        .def("detach", &graph_sampler::detach)
        .def("forget", &graph_sampler::forget)
        .def("set_params", &graph_sampler::set_params)
        .def("set_fixed", &graph_sampler::set_fixed)
        .def("set_cuts", &graph_sampler::set_cuts)
        .def("set_level", &graph_sampler::set_level)
        .def("sample", &graph_sampler::sample)
        .def("discard", &graph_sampler::discard)
        .def("expect", &graph_sampler::expect)
        .def_property_readonly("draws_on_device", &graph_sampler::draws_on_device)
        .def_property("draws_on_host", &graph_sampler::draws_on_host, &graph_sampler::set_draws_on_host)
        .def("sample_on_host", &graph_sampler::sample_on_host)
        .def("observe", &graph_sampler::observe)
        .def("check", &graph_sampler::check)
        .def("last", &graph_sampler::last)
        .def("host_temperature_stage", &graph_sampler::host_temperature_stage)
        .def("host_stage", &graph_sampler::host_stage);

    py::class_<autodeco::hidden_states>(m, "HiddenStates")
        .def(py::init<>())
        .def_property_readonly("address", [](const autodeco::hidden_states & s) { return (uintptr_t) &s; })
        .def_property_readonly_static("on_node", [](const py::object &) { return (uintptr_t) &autodeco::hidden_states::on_node; })
        .def("clear", &autodeco::hidden_states::clear)
        .def("rows", &rows_of);
}

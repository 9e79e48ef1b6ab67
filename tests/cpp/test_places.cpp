// Where the parts of a sampler run on devices that lack one operation or another. The devices are questions and answers.

#include "check.h"

#include "device_nodes.h"
#include "device_nucleus.h"

#include <memory>

using namespace autodeco;

int main() {
    constexpr int64_t n_vocab = 151936;
    const auto        heads   = [&](ggml_type type) {
        auto shapes = std::make_shared<heads_data>();
        shape_heads(*shapes, 4096, type);
        return shapes;
    };
    const auto half  = heads(GGML_TYPE_F16);
    const auto brain = heads(GGML_TYPE_BF16);

    const node_question anything = [](const ggml_tensor *) { return true; };
    const node_places   all      = places_on(anything, half.get(), n_vocab);
    check(all.draw_on_device && !all.heads_on_host, "a device that has every operation does everything");

    // no driver of a phone must have subgroups
    const node_question no_cumsum = [](const ggml_tensor * node) { return node->op != GGML_OP_CUMSUM; };
    const node_places   drawn     = places_on(no_cumsum, half.get(), n_vocab);
    check(!drawn.draw_on_device && !drawn.heads_on_host, "one without cumulative sums predicts, and the CPU draws");

    const node_question no_brain = [](const ggml_tensor * node) { return !(node->src[0] && node->src[0]->type == GGML_TYPE_BF16); };
    const node_places   brains   = places_on(no_brain, brain.get(), n_vocab);
    check(!brains.draw_on_device && brains.heads_on_host, "the CPU predicts with heads of a type that the device does not multiply");
    check(places_on(no_brain, half.get(), n_vocab).draw_on_device, "with heads of another type the device does everything");
    check(places_on(no_brain, nullptr, n_vocab).draw_on_device, "and without heads");

    // every tensor that a graph of many sequences holds is asked for
    const auto largest = [](int64_t bytes) {
        return [=](const ggml_tensor * node) { return (int64_t) ggml_nbytes(node) <= bytes; };
    };
    const int64_t most = most_rows(n_vocab) * n_vocab * (int64_t) sizeof(float);
    check(places_on(largest(most), half.get(), n_vocab).draw_on_device, "a device that holds the rows of all sequences draws from them", (double) most);
    check(!places_on(largest(most - 1), half.get(), n_vocab).draw_on_device, "one that does not leaves the draw to the CPU");

    const node_places cpu = places(ggml_backend_cpu_buffer_type(), half.get(), n_vocab);
    check(!cpu.draw_on_device && cpu.heads_on_host, "a CPU does everything by its own nodes");
    return report();
}


// What Metal has of our operations, by the rules of the pinned llama.cpp, which ask for three properties of a GPU. On a Mac,
// `autodeco-cli --devices` prints the same table of the GPU that is there.

#include "device_nodes.h"
#include "devices.h"

#include "ggml-impl.h"

#include "ggml-metal-common.h"
#include "ggml-metal-device.h"
#include "ggml-metal-impl.h"

#include <cstdio>

struct ggml_metal_device {
    ggml_metal_device_props props;
};

#include "metal_rules.inc"

using namespace autodeco;

// as ggml_metal_device_init finds them
static const struct {
    const char * name;
    bool         simdgroup_reduction;
    bool         simdgroup_mm;
    bool         bfloat;
} GPUS[] = {
    { "Apple silicon (Apple7: M1, A14 and later)", true, true, true },
    { "Apple silicon with GGML_METAL_BF16_DISABLE set, or whose compiler lacks bfloat", true, true, false },
    { "Metal 3 on another GPU (AMD and Intel in Macs)", true, false, true },
    { "a GPU before Metal 3 and Apple7", false, false, false },
};

int main() {
    for (const auto & gpu : GPUS) {
        ggml_metal_device device                 = {};
        device.props.has_simdgroup_reduction     = gpu.simdgroup_reduction;
        device.props.has_simdgroup_mm            = gpu.simdgroup_mm;
        device.props.has_bfloat                  = gpu.bfloat;
        device.props.max_theadgroup_memory_size  = 32768;

        const auto telling = [&](autodeco_node_visitor visit, void * data, bool & all) {
            return [&, visit, data](const ggml_tensor * node) {
                const bool has = ggml_metal_device_supports_op(&device, node);
                all            = all && has;
                visit(node, has, data);
                return true;
            };
        };
        const cli::device_questions ask = {
            [&](ggml_type type, autodeco_node_visitor visit, void * data) {
                heads_data heads;
                bool       all = true;
                shape_heads(heads, 4096, type);
                has_head_nodes(heads, telling(visit, data, all));
                return all;
            },
            [&](int32_t n_vocab, autodeco_node_visitor visit, void * data) {
                bool all = true;
                has_draw_nodes(n_vocab, telling(visit, data, all));
                return all;
            },
        };
        printf("%s\n%s", gpu.name, cli::device_table(ask).c_str());
    }
    return 0;
}

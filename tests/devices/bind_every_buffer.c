// Loaded before a program that uses ggml's Vulkan (LD_PRELOAD), for Mesa 22.3's driver for CPUs alone.
//
// That driver counts references to the buffers of all bindings of a descriptor set that is bound, even of bindings that no
// shader reads. ggml's sets have 12 bindings, of which an operation writes as many as it has tensors. The others keep the
// buffers of an earlier operation, which Vulkan allows to be gone by then. The driver then counts in freed memory, and the
// program ends with a corrupted heap. Here every write goes on to the last binding, with its last buffer. ggml writes a set
// anew after a buffer was freed, so that none of them is gone.

#define _GNU_SOURCE

#include <dlfcn.h>
#include <string.h>
#include <vulkan/vulkan.h>

enum { BINDINGS = 12 }; // MAX_PARAMETER_COUNT of ggml-vulkan

static PFN_vkUpdateDescriptorSets update;

static void update_all(VkDevice device, uint32_t n, const VkWriteDescriptorSet * writes, uint32_t n_copies, const VkCopyDescriptorSet * copies) {
    update(device, n, writes, n_copies, copies);
    for (uint32_t i = 0; i < n; ++i) {
        VkWriteDescriptorSet   rest = writes[i];
        VkDescriptorBufferInfo buffers[BINDINGS];
        rest.dstBinding += rest.descriptorCount;
        if (rest.descriptorType != VK_DESCRIPTOR_TYPE_STORAGE_BUFFER || rest.descriptorCount == 0 || rest.dstBinding >= BINDINGS) {
            continue;
        }
        for (int k = 0; k < BINDINGS; ++k) {
            buffers[k] = writes[i].pBufferInfo[writes[i].descriptorCount - 1];
        }
        rest.descriptorCount = BINDINGS - rest.dstBinding;
        rest.pBufferInfo     = buffers;
        update(device, 1, &rest, 0, NULL);
    }
}

static PFN_vkVoidFunction replaced(const char * name, PFN_vkVoidFunction found) {
    if (!found || strcmp(name, "vkUpdateDescriptorSets") != 0) {
        return found;
    }
    update = (PFN_vkUpdateDescriptorSets) found;
    return (PFN_vkVoidFunction) update_all;
}

PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char * name) {
    return replaced(name, ((PFN_vkGetDeviceProcAddr) dlsym(RTLD_NEXT, "vkGetDeviceProcAddr"))(device, name));
}

PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char * name) {
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) {
        return (PFN_vkVoidFunction) vkGetDeviceProcAddr;
    }
    return replaced(name, ((PFN_vkGetInstanceProcAddr) dlsym(RTLD_NEXT, "vkGetInstanceProcAddr"))(instance, name));
}

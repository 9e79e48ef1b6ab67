#include "embedded_file.h"

#include "gguf.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace autodeco {

namespace {

struct header_writer {
    const gguf_bytes &     bytes;
    std::vector<uint8_t> & own;

    void add(const void * data, uint64_t n) { own.insert(own.end(), (const uint8_t *) data, (const uint8_t *) data + n); }

    template <typename T> void add(T value) { add(&value, sizeof(value)); }

    bool copy(uint64_t start, uint64_t end) {
        own.resize(own.size() + (end - start));
        return bytes.read(own.data() + own.size() - (end - start), start, end - start);
    }
};

} // namespace

bool own_header(const gguf_bytes & bytes, const gguf_header & header, std::vector<uint8_t> & own) {
    using entry = std::pair<const std::string, gguf_value>;
    std::vector<const entry *> kept;
    for (const entry & key : header.values) {
        if (key.first.compare(0, 9, "autodeco.") != 0 && !header.value("autodeco.added." + key.first)) {
            kept.push_back(&key);
        }
    }
    std::sort(kept.begin(), kept.end(), [](const entry * a, const entry * b) { return a->second.start < b->second.start; });

    header_writer to = { bytes, own };
    own.clear();
    to.add(GGUF_MAGIC, 4);
    to.add(header.version);
    to.add((uint64_t) header.tensors.size());
    to.add((uint64_t) kept.size());
    for (const entry * key : kept) {
        const std::string & name     = key->first;
        const std::string   note     = "autodeco.replaced." + name;
        const gguf_value *  replaced = header.value(note);
        bool                read;
        if (replaced) {
            to.add((uint64_t) name.size());
            to.add(name.data(), name.size());
            read = to.copy(replaced->start + sizeof(uint64_t) + note.size(), replaced->end);
        } else {
            read = to.copy(key->second.start, key->second.end);
        }
        if (!read) {
            return false;
        }
    }
    const bool read = to.copy(header.infos, header.infos_end);
    own.resize(gguf_padded(own.size(), header.alignment));
    return read;
}

} // namespace autodeco

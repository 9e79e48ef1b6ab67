#include "text_stream.h"

#include <algorithm>

namespace cli {

namespace {

// how many bytes of UTF-8 text are whole characters
size_t whole_characters(const std::string & text) {
    size_t start = text.size();
    while (start > 0 && text.size() - start < 3 && ((unsigned char) text[start - 1] & 0xC0) == 0x80) {
        --start;
    }
    if (start == 0) {
        return text.size(); // no character begins here: not UTF-8, shown as it is
    }
    const unsigned char lead   = (unsigned char) text[start - 1];
    const size_t        length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    return text.size() - (start - 1) < length ? start - 1 : text.size();
}

// the length of the longest end of `text` that `stop` begins with
size_t overlap(const std::string & text, const std::string & stop) {
    for (size_t n = std::min(text.size(), stop.size()); n > 0; --n) {
        if (text.compare(text.size() - n, n, stop, 0, n) == 0) {
            return n;
        }
    }
    return 0;
}

} // namespace

text_stream::text_stream(std::vector<std::string> stop, std::function<void(const shown_token &)> show)
    : stop(std::move(stop)), show(std::move(show)) {}

bool text_stream::push(const autodeco_decoding & decoding, const std::string & piece) {
    held.push_back({ decoding, piece });
    text += piece;
    size_t found   = std::string::npos;
    size_t certain = whole_characters(text);
    for (const std::string & end : stop) {
        found   = std::min(found, text.find(end));
        certain = std::min(certain, text.size() - overlap(text, end));
    }
    if (found == std::string::npos) {
        show_up_to(certain);
        return true;
    }
    const size_t rest = show_up_to(found);
    if (rest > 0) { // the stop text begins inside this token
        show({ held.front().decoding, held.front().text.substr(0, rest) });
    }
    held.clear();
    text.clear();
    return false;
}

void text_stream::finish() {
    show_up_to(text.size());
}

size_t text_stream::show_up_to(size_t n) {
    while (!held.empty() && held.front().text.size() <= n) {
        shown_token token = std::move(held.front());
        held.pop_front();
        const size_t whole = held.empty() ? token.text.size() : whole_characters(token.text);
        if (whole < token.text.size()) {
            held.front().text.insert(0, token.text, whole);
            token.text.resize(whole);
        }
        n -= whole;
        text.erase(0, whole);
        show(token);
    }
    return n;
}

} // namespace cli

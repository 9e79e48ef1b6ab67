// Tokens become text: whole characters, stop texts kept back, and every token shown once.

#include "text_stream.h"

#include <cstdio>

static int n_passed = 0;
static int n_failed = 0;

struct shown {
    std::vector<std::string> texts; // one a token
    bool                     stopped = false;

    std::string all() const {
        std::string text;
        for (const std::string & part : texts) {
            text += part;
        }
        return text;
    }
};

static shown run(const std::vector<std::string> & pieces, const std::vector<std::string> & stop, bool finish = true) {
    shown result;
    cli::text_stream stream(stop, [&](const cli::shown_token & token) { result.texts.push_back(token.text); });
    for (const std::string & piece : pieces) {
        if (!stream.push({}, piece)) {
            result.stopped = true;
            break;
        }
    }
    if (finish) {
        stream.finish();
    }
    return result;
}

static void check(bool ok, const char * claim) {
    printf("%s: %s\n", ok ? "ok" : "FAILED", claim);
    (ok ? n_passed : n_failed) += 1;
}

int main() {
    using texts = std::vector<std::string>;
    check(run({ "a", "b" }, {}, false).texts == texts{ "a", "b" }, "text is shown at once");
    check(run({ "\xE2\x82", "\xAC!" }, {}, false).texts == texts{ "", "\xE2\x82\xAC!" }, "a character in two tokens is shown with the second");
    check(run({ "\xF0", "\x9F", "\x98", "\x80" }, {}, false).texts == texts{ "", "", "", "\xF0\x9F\x98\x80" }, "a character in four tokens is shown once");
    check(run({ "x\xC3" }, {}, false).texts.empty() && run({ "x\xC3" }, {}).texts == texts{ "x\xC3" }, "an unfinished character is held back until the end");
    check(run({ "\x80", "\x80", "\x80", "\x80", "\x80" }, {}).all() == "\x80\x80\x80\x80\x80", "bytes that are no UTF-8 are not lost");
    check(run({ "one ", "two", " three" }, { "two" }).texts == texts{ "one " }, "a stop text is not shown");
    check(run({ "one t", "w", "o" }, { "two" }).texts == texts{ "one " }, "a stop text over three tokens is not shown");
    check(run({ "one t", "wice" }, { "two" }, false).texts == texts{ "one t", "wice" }, "what only began like it is shown, token by token");
    check(run({ "one tw" }, { "two" }).texts == texts{ "one tw" }, "so is what the answer ends with");
    check(run({ "abc", "def" }, { "ef", "cd" }).texts == texts{ "ab" }, "the first of two stop texts counts");
    check(run({ "ab\xC3", "\xA9 end" }, { "end" }).texts == texts{ "ab", "\xC3\xA9 " }, "stop text and character meet in one token");
    check(run({ "a" }, { "b" }).stopped == false && run({ "ab" }, { "b" }).stopped, "the caller learns of it");
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed > 0;
}

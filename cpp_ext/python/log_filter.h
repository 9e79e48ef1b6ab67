// What llama.cpp logs for its developers, dropped before it reaches Python.
//
// Each of its graphs logs a dozen such lines. A callback in Python waits for the interpreter's lock with each of them, behind
// all threads that draw, and then prints nothing.

#pragma once

#include "llama.h"

#include <mutex>

namespace autodeco {

class log_filter {
public:
    // Until as many calls of end(), only warnings and errors go to the callback that was there before.
    static void begin() {
        log_filter &                      filter = instance();
        const std::lock_guard<std::mutex> lock(filter.mutex);
        if (filter.users++ == 0) {
            llama_log_get(&filter.before, &filter.data);
            llama_log_set(on_line, nullptr);
        }
    }

    static void end() {
        log_filter &                      filter = instance();
        const std::lock_guard<std::mutex> lock(filter.mutex);
        if (--filter.users > 0) {
            return;
        }
        ggml_log_callback now  = nullptr;
        void *            data = nullptr;
        llama_log_get(&now, &data);
        if (now == on_line) { // else somebody has set another
            llama_log_set(filter.before, filter.data);
        }
    }

private:
    static log_filter & instance() {
        static log_filter filter;
        return filter;
    }

    static void on_line(ggml_log_level level, const char * text, void * /*data*/) {
        thread_local bool passes = true;
        if (level != GGML_LOG_LEVEL_CONT) { // which continues the line before it
            passes = level != GGML_LOG_LEVEL_DEBUG && level != GGML_LOG_LEVEL_INFO;
        }
        if (passes && instance().before) {
            instance().before(level, text, instance().data);
        }
    }

    std::mutex        mutex;
    int               users  = 0;
    ggml_log_callback before = nullptr;
    void *            data   = nullptr;
};

} // namespace autodeco

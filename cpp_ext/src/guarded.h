// The wall between this library, which may throw, and its C interface, which may not.

#pragma once

#include "failure.h"
#include "one_line.h"

#include <cstdio>
#include <exception>
#include <initializer_list>
#include <new>
#include <string>
#include <utility>

namespace autodeco {

inline void write_error(autodeco_error * error, autodeco_code code, const std::string & message) {
    if (error) {
        error->code = code;
        snprintf(error->message, sizeof(error->message), "%s", one_line(message).c_str());
    }
}

// What `body` returns; null and an error when it fails, throws, or when one of the pointers that it needs is null.
template <typename F> auto guarded(autodeco_error * error, std::initializer_list<const void *> needed, F && body) -> decltype(body(std::declval<failure &>())) {
    write_error(error, AUTODECO_OK, "");
    for (const void * pointer : needed) {
        if (!pointer) {
            write_error(error, AUTODECO_ERROR_ARGUMENT, "an argument is NULL");
            return {};
        }
    }
    try {
        failure what;
        auto    result = body(what);
        if (!result) {
            write_error(error, what.code, what.message);
        }
        return result;
    } catch (const std::bad_alloc &) {
        write_error(error, AUTODECO_ERROR_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        write_error(error, AUTODECO_ERROR_INTERNAL, std::string("autodeco failed: ") + e.what());
    } catch (...) {
        write_error(error, AUTODECO_ERROR_INTERNAL, "autodeco failed, and does not know why");
    }
    return {};
}

} // namespace autodeco

#include "template_limits.h"

#include "options.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cli {

namespace {

constexpr rlim_t MOST_SECONDS = 5;        // of a processor; a template takes milliseconds
constexpr rlim_t MORE_MEMORY  = 1u << 30; // than this process has already
constexpr size_t MOST_TEXT    = 1u << 26;
constexpr size_t MOST_REASON  = 300;

// What llama.cpp's engine says of an error, without the piece of the template that it shows; a refusal's own words.
std::string reason_of(const std::string & what) {
    if (what.find("std::bad_alloc") != std::string::npos) {
        return "it makes too much text";
    }
    for (const std::string & before : { std::string("Jinja Exception: "), std::string("Error: ") }) {
        const size_t at = what.rfind(before);
        if (at != std::string::npos) {
            const std::string reason = what.substr(at + before.size(), MOST_REASON);
            return reason.find_first_not_of(" \t\n") == std::string::npos ? "it gives no reason" : reason;
        }
    }
    const size_t begin = what.find_first_not_of(" \t\n-");
    return begin == std::string::npos ? "it gives no reason" : what.substr(begin, MOST_REASON);
}

// bytes of addresses in use
rlim_t addresses() {
    unsigned long pages = 0;
    if (FILE * file = fopen("/proc/self/statm", "r")) {
        if (fscanf(file, "%lu", &pages) != 1) {
            pages = 0;
        }
        fclose(file);
    }
    return (rlim_t) pages * (rlim_t) sysconf(_SC_PAGESIZE);
}

void limit(int resource, rlim_t most) {
    rlimit now = {};
    if (getrlimit((decltype(RLIMIT_CPU)) resource, &now) == 0) {
        now.rlim_cur = now.rlim_max == RLIM_INFINITY ? most : std::min(most, now.rlim_max);
        setrlimit((decltype(RLIMIT_CPU)) resource, &now);
    }
}

void write_all(int to, const std::string & text) {
    for (size_t done = 0; done < text.size();) {
        const ssize_t n = write(to, text.data() + done, text.size() - done);
        if (n < 0 && errno != EINTR) {
            return;
        }
        done += n > 0 ? (size_t) n : 0;
    }
}

// In the new process: the text behind a 't', or the reason for which there is none behind an 'r'.
[[noreturn]] void child(int to, const std::function<std::string()> & render) {
    for (const int number : { SIGSEGV, SIGBUS, SIGABRT, SIGXCPU }) {
        signal(number, SIG_DFL);
    }
    signal(SIGINT, SIG_IGN); // the parent is interrupted, and ends this
    const rlim_t used = addresses();
    if (used > 0) {
        limit(RLIMIT_AS, used + MORE_MEMORY);
    }
    limit(RLIMIT_CPU, MOST_SECONDS);
    limit(RLIMIT_CORE, 0);
    try {
        const std::string text = render();
        write_all(to, text.size() > MOST_TEXT ? "rit makes too much text" : "t" + text);
    } catch (const std::bad_alloc &) {
        write_all(to, "rit makes too much text");
    } catch (const std::exception & e) {
        write_all(to, "r" + reason_of(e.what()));
    }
    _exit(0);
}

std::string read_all(int from) {
    std::string text;
    char        part[1 << 16];
    for (;;) {
        const ssize_t n = read(from, part, sizeof(part));
        if (n > 0) {
            text.append(part, (size_t) n);
        } else if (n == 0 || errno != EINTR) {
            return text;
        }
    }
}

} // namespace

std::string in_limits(const std::function<std::string()> & render) {
    int ends[2];
    if (pipe(ends) != 0) {
        throw input_error("the chat template cannot be applied: no pipe can be had");
    }
    fflush(nullptr); // else the new process has a copy of what is not written yet
    const pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        child(ends[1], render);
    }
    close(ends[1]);
    std::string told = pid > 0 ? read_all(ends[0]) : "";
    close(ends[0]);
    if (pid < 0) {
        throw input_error("the chat template cannot be applied: no process can be had");
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && !told.empty() && told[0] == 't') {
        return told.substr(1);
    }
    const int         number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const std::string reason = number == 0 && !told.empty() ? told.substr(1) : number == SIGXCPU || number == SIGKILL ? "it does not come to an end" : "it goes too deep";
    throw input_error("the model's chat template refuses the messages (" + reason + ")");
}

} // namespace cli

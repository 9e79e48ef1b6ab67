#include "template_limits.h"

#include "options.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cli {

namespace {

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

// In the new process.
[[noreturn]] void child(int to, template_renderer render, const template_texts & texts) {
    for (const int number : { SIGSEGV, SIGBUS, SIGABRT, SIGXCPU }) {
        signal(number, SIG_DFL);
    }
    signal(SIGINT, SIG_IGN); // the parent is interrupted, and ends this
    const rlim_t used = addresses();
    if (used > 0) {
        limit(RLIMIT_AS, used + (rlim_t) MORE_TEMPLATE_MEMORY);
    }
    limit(RLIMIT_CPU, (rlim_t) MOST_TEMPLATE_SECONDS);
    limit(RLIMIT_CORE, 0);
    write_all(to, template_answer(render, texts));
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

template_end end_of(int status) {
    if (!WIFSIGNALED(status)) {
        return template_end::by_itself;
    }
    return WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL ? template_end::too_long : template_end::crashed;
}

} // namespace

std::string in_limits(template_renderer render, const template_texts & texts) {
    int ends[2];
    if (pipe(ends) != 0) {
        throw input_error("the chat template cannot be applied: no pipe can be had");
    }
    fflush(nullptr); // else the new process has a copy of what is not written yet
    const pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        child(ends[1], render, texts);
    }
    close(ends[1]);
    const std::string answer = pid > 0 ? read_all(ends[0]) : "";
    close(ends[0]);
    if (pid < 0) {
        throw input_error("the chat template cannot be applied: no process can be had");
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return answered_text(answer, end_of(status));
}

std::optional<int> template_process(template_renderer /*render*/, const std::vector<std::string> & /*arguments*/) {
    return {};
}

} // namespace cli

// Windows has no fork: the program starts itself, with one argument that says so. The texts go in by standard input, the answer
// comes by standard output. A thread of the new process watches its time and memory; a template cannot stop that thread.

#include "template_limits.h"

#include "options.h"
#include "windows_text.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <thread>

#define PSAPI_VERSION 2 // in the kernel's library
#include <psapi.h>

namespace cli {

namespace {

constexpr const char * ARGUMENT = "--render-chat-template-of-standard-input";

constexpr DWORD  WATCH_MILLISECONDS = 20;
constexpr UINT   TOO_LONG           = 3; // exit codes
constexpr UINT   TOO_LARGE          = 4;
constexpr UINT   CRASHED            = 5;
constexpr size_t PIECE              = 1u << 16;

struct handle_closer {
    void operator()(HANDLE handle) const { CloseHandle(handle); }
};
using handle_ptr = std::unique_ptr<void, handle_closer>;

bool write_all(HANDLE to, const std::string & text) {
    for (size_t done = 0; done < text.size();) {
        DWORD n = 0;
        if (!WriteFile(to, text.data() + done, (DWORD) std::min(text.size() - done, PIECE), &n, nullptr)) {
            return false;
        }
        done += n;
    }
    return true;
}

std::string read_all(HANDLE from) {
    std::string text;
    char        part[PIECE];
    DWORD       n = 0;
    while (ReadFile(from, part, sizeof(part), &n, nullptr) && n > 0) {
        text.append(part, n);
    }
    return text;
}

// Each text behind its length.
std::string packed(const template_texts & texts) {
    std::string bytes;
    for (const std::string & text : texts) {
        const uint64_t n = text.size();
        bytes.append((const char *) &n, sizeof(n));
        bytes += text;
    }
    return bytes;
}

template_texts unpacked(const std::string & bytes) {
    template_texts texts;
    for (size_t at = 0; bytes.size() - at >= sizeof(uint64_t);) {
        uint64_t n;
        std::memcpy(&n, bytes.data() + at, sizeof(n));
        at += sizeof(n);
        texts.push_back(bytes.substr(at, n));
        at += texts.back().size();
    }
    return texts;
}

uint64_t number_of(const FILETIME & time) {
    return (uint64_t) time.dwHighDateTime << 32 | time.dwLowDateTime;
}

uint64_t memory_of_this() {
    PROCESS_MEMORY_COUNTERS counters = {};
    GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof(counters));
    return counters.PagefileUsage; // what it has asked for, resident or not
}

// `renderer`: the thread that renders; where its stack overflows, some systems end it alone (Wine).
[[noreturn]] void watch(HANDLE renderer) {
    const uint64_t most_memory = memory_of_this() + MORE_TEMPLATE_MEMORY;
    const uint64_t most_time   = MOST_TEMPLATE_SECONDS * 10000000; // units of 100 ns
    for (;;) {
        FILETIME created, ended, kernel, user;
        if (GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user) && number_of(kernel) + number_of(user) > most_time) {
            TerminateProcess(GetCurrentProcess(), TOO_LONG);
        }
        if (memory_of_this() > most_memory) {
            TerminateProcess(GetCurrentProcess(), TOO_LARGE);
        }
        if (WaitForSingleObject(renderer, WATCH_MILLISECONDS) == WAIT_OBJECT_0) {
            TerminateProcess(GetCurrentProcess(), CRASHED);
        }
    }
}

// One end of a pipe for the new process, the other for this one; `input`: the new process reads.
bool make_pipe(bool input, handle_ptr & theirs, handle_ptr & ours) {
    SECURITY_ATTRIBUTES inherited = { sizeof(inherited), nullptr, TRUE };
    HANDLE              reading, writing;
    if (!CreatePipe(&reading, &writing, &inherited, 0)) {
        return false;
    }
    theirs.reset(input ? reading : writing);
    ours.reset(input ? writing : reading);
    return SetHandleInformation(ours.get(), HANDLE_FLAG_INHERIT, 0);
}

std::wstring program() {
    std::wstring path(32768, L'\0'); // no path is longer
    path.resize(GetModuleFileNameW(nullptr, path.data(), (DWORD) path.size()));
    return path;
}

// A job whose processes end with this one.
handle_ptr new_job() {
    handle_ptr                           job(CreateJobObjectW(nullptr, nullptr));
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {};
    limits.BasicLimitInformation.LimitFlags     = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    SetInformationJobObject(job.get(), JobObjectExtendedLimitInformation, &limits, sizeof(limits));
    return job;
}

template_end end_of(HANDLE process) {
    DWORD code = 0;
    WaitForSingleObject(process, INFINITE);
    GetExitCodeProcess(process, &code);
    return code == 0 ? template_end::by_itself : code == TOO_LONG ? template_end::too_long : code == TOO_LARGE ? template_end::too_large : template_end::crashed;
}

} // namespace

std::string in_limits(template_renderer /*render*/, const template_texts & texts) {
    handle_ptr input, to, output, from;
    if (!make_pipe(true, input, to) || !make_pipe(false, output, from)) {
        throw input_error("the chat template cannot be applied: no pipe can be had");
    }
    const std::wstring path    = program();
    std::wstring       command = L"\"" + path + L"\" " + std::wstring(ARGUMENT, ARGUMENT + std::strlen(ARGUMENT));
    STARTUPINFOW       startup = {};
    startup.cb                 = sizeof(startup);
    startup.dwFlags            = STARTF_USESTDHANDLES;
    startup.hStdInput          = input.get();
    startup.hStdOutput         = output.get();

    PROCESS_INFORMATION process = {};
    const handle_ptr    job     = new_job();
    // in a group of its own, which Ctrl-C does not reach: this process is interrupted, and ends that one
    const DWORD flags = CREATE_SUSPENDED | CREATE_NEW_PROCESS_GROUP;
    if (!CreateProcessW(path.c_str(), command.data(), nullptr, nullptr, TRUE, flags, nullptr, nullptr, &startup, &process)) {
        throw input_error("the chat template cannot be applied: no process can be had");
    }
    const handle_ptr its_process(process.hProcess), its_thread(process.hThread);
    AssignProcessToJobObject(job.get(), process.hProcess);
    ResumeThread(process.hThread);
    input.reset();
    output.reset();
    write_all(to.get(), packed(texts));
    to.reset();
    const std::string answer = read_all(from.get());
    return answered_text(answer, end_of(process.hProcess));
}

std::optional<int> template_process(template_renderer render, const std::vector<std::string> & arguments) {
    if (arguments.size() != 2 || arguments[1] != ARGUMENT) {
        return {};
    }
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX); // a crash shows no window
    const template_texts texts = unpacked(read_all(GetStdHandle(STD_INPUT_HANDLE)));
    std::thread(watch, OpenThread(SYNCHRONIZE, FALSE, GetCurrentThreadId())).detach();
    write_all(GetStdHandle(STD_OUTPUT_HANDLE), template_answer(render, texts));
    TerminateProcess(GetCurrentProcess(), 0); // with whatever else is alive
    return 0;
}

} // namespace cli
